"""Checks beside a measurement, and the status of its truth.

    premises     what must hold before a gain or a horizon means something
    checks       Jacobians, numbers, leaks of θ, precision, scales, states
    starts       those that few samples hold, and carry the variance
    truth        why it stands, is cut or does not exist

Below the table are the questions that decisions ask of a run's findings. Findings may be missing,
of a measurement without checks: that is "not recorded", not "passed".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradlab.findings.finding import Code, Finding, failed, register
from gradlab.wording import percent

Findings = tuple[Finding, ...] | None

_CRITIC_SIZE = "The critic's values are {value} times the returns there ({n} states)."
_CRITIC_FLAT = "Where the critic rises by 1, returns rise by {value} ({n} states)."
_REFIT = "Fit the critic further."
_FEW_RETURNS = "2% of the states carry over 90%: narrow the starts, or end runaways."
_STILL = "Moving θ by a tenth moves no return ({n} states)."
_DETACHED = Code(
    "detached derivatives",
    "{number} of {threshold} derivatives of the {subject} by its {at} are 0, though it moves.",
    "Let its gradient through.", "premise",
)  # fmt: skip
_WHERE_OFF = "The {subject}'s {at} differs from differences in {number} of {n} states"
_OTHERS = "gradlab holds it fixed, your update does not."
_SHORTER = "Shorten the horizon, or stabilise the policy."

register({
    "premises_hold": Code("premises", "Returns differ, θ moves them, the critic has their size."),
    "reward_constant": Code(
        "constant reward", "Every return is {value} ({n} states): the true gradient is 0.",
        "Fix the reward.", "premise",
    ),
    "policy_still": Code(
        "policy without effect", _STILL, "Look for saturated actions, or ignored ones.", "premise"
    ),
    "fitted_policy_still": Code(
        "policy without effect", _STILL, "Set reference_state= of the task to where it should "
        "rest, or give --policy.", "premise",
    ),
    "no_derivative": Code(
        "return without derivative", "The true gradient is 0, though θ moves returns.",
        "Look for a threshold, clip or detach.", "premise",
    ),
    "critic_size": Code("size of the critic", _CRITIC_SIZE, _REFIT, "premise"),
    "critic_size_few": Code("size of the critic", _CRITIC_SIZE, _FEW_RETURNS, "premise"),
    "critic_sign": Code("sign of the critic", _CRITIC_SIZE, "Turn its sign.", "premise"),
    "critic_flat": Code("slope of the critic", _CRITIC_FLAT, _REFIT, "premise"),
    "critic_flat_few": Code("slope of the critic", _CRITIC_FLAT, _FEW_RETURNS, "premise"),
    "policy_detached": _DETACHED,
    "simulator_detached": _DETACHED,
    "simulator_reward_detached": _DETACHED,
    "model_detached": _DETACHED,
    "model_reward_detached": _DETACHED,
    "simulator_wrong": Code(
        "derivative of the simulator", "The simulator's {at} is off by over 10% in {number} of "
        "{n} states.", "Correct its backward pass, or linearize.", "premise",
    ),
    "check_crashed": Code("check that crashed", "{subject} crashed: {at}.", "", "error"),
    "model_exact": Code(
        "exact model", "The {subject} does what the simulator does.",
        "All error is the critic's: give your model.",
    ),
    "jacobians": Code("derivatives", "The {subject}'s derivatives are its step's to {value}."),
    "jacobians_wrong": Code("derivatives", f"{_WHERE_OFF}.", "Correct linearize first.", "error"),
    "jacobians_kinked": Code("derivatives", f"{_WHERE_OFF}: a kink, contact or wrap."),
    "jacobians_unknown": Code("derivatives", "The {subject} has no finite step.", severity="error"),
    "jacobians_certified": Code(
        "contacts and limits", "No contact or limit lies inside stencils of {subject}."
    ),
    "jacobians_flagged": Code(
        "contacts and limits", "{value} of {n} Jacobians of {subject} hold a contact or limit, "
        "first at {at}.", "They are jumps: shorten the horizon.", write=percent,
    ),
    "action_dead": Code(
        "dead action", "{subject} moves no state of the {at}: ∂f/∂a is 0 in {n} states.",
        "Look for a wrong index or detach.", "error",
    ),
    "action_faint": Code(
        "vanishing action", "{subject} hardly moves the {at}: ∂f/∂a is {value} of the largest."
    ),
    "actions_clipped": Code(
        "clipped actions", "In {value} of {n} states some action moves no {subject}.",
        "A clip stops the gradient.", write=percent,
    ),
    "action_idle": Code(
        "action without effect", "{subject} moves no reward of {at} within {number} steps.",
        "Lengthen the horizon.",
    ),
    "gradients_finite": Code("finite gradients", "Gradients are finite, not 0."),
    "gradients_lost": Code(
        "finite gradients", "{number} of {n} groups of {subject} are not finite from {at}.",
        "Use a shorter horizon.", "error",
    ),
    "gradients_zero": Code(
        "gradients of 0", "{number} of {n} groups of {subject} are 0 at {at}.",
        "Look for saturated actions or dead paths.",
    ),
    "chain_growth": Code(
        "growth of the chain", "∂s/∂a of {subject} grows by {value} per step.", _SHORTER
    ),
    "chain_overflow": Code(
        "growth of the chain", "∂s/∂a of {subject} exceeds {threshold} from step {number} on.",
        _SHORTER, "error",
    ),
    "theta_alone": Code("leaks of θ", "Critics and systems do not change with θ."),
    "theta_leaks": Code(
        "leaks of θ", "The {subject} changes with θ.", f"Detach it: {_OTHERS}", "error"
    ),
    "theta_shared": Code(
        "leaks of θ", "Policy and critics share {number} tensors.", f"Copy them: {_OTHERS}",
        "error",
    ),
    "theta_counted": Code(
        "where θ counts", "The gradient {subject} differs from differences by {value} at {at}.",
        "Its θ counts elsewhere, or a Jacobian is wrong.",
    ),
    "float32": Code(
        "float32", "float32 changes {subject} at {at} by {value} of its size.", "Use float64."
    ),
    "float32_untested": Code("float32", "{at}: {subject} was not tried."),
    "term_drowns": Code(
        "scale of the terms", "The {subject} of {at} is {value} times all other terms.",
        "Check its scale.",
    ),
    "critic_beyond": Code(
        "bound of the critic", "|Q| reaches {value}, r_max / (1 − γ) is {threshold}.", _REFIT
    ),
    "actions_saturated": Code(
        "saturated actions", "{subject} sits at its limit in {value} of the steps.",
        "If updates hardly move the return, divide the policy's last layer by 10.", write=percent,
    ),
    "episodes_short": Code(
        "ends of episodes", "{value} of the starts end at the first step.",
        "Start farther from ends.", write=percent,
    ),
    "states_alive": Code(
        "alive states", "{number} of {n} states are alive, in {at} groups.", "Take more starts."
    ),
    "states_seen": Code(
        "states that the model has seen", "{value} of {n} states are far from the data of the "
        "{subject} (limit {threshold}; most: {at}).", "Fit it on this policy's data.",
        write=percent,
    ),
})  # fmt: skip

register({
    "starts_carry": Code(
        "concentration", "1% of the starts carry {value} of the {at}.",
        "Variance, error and SNR are undecided, gain and returns hold. Take {threshold} starts, or "
        "the central 99% (--trim-starts 0.01: another question).", write=percent,
    ),
    "starts_undrawn": Code(
        "concentration", "No other starts can be drawn: one of {n} carries {value} of the {at}.",
        write=percent,
    ),
})  # fmt: skip

_LENGTH = "The gradient does not hold at an update's length"
_TRUTHS = {  # those without a remedy
    "converged": "The simulator's gradient converges within {number} steps and agrees with "
    "finite differences.",
    "unchecked": "The simulator's gradient converges within {number} steps, not checked by "
    "finite differences.",
    "cut": "The objective is cut at T = {number} steps, where its gradient is precise and "
    "agrees with finite differences.",
    "cut_by_steps": "The objective is cut at T = {number} of at most {threshold} steps.",
    "score": "The truth is the score function's gradient of {number} steps.",
    "lost": "Paths or Jacobians are not finite on {number} of {n} starts, first at {at}.",
    "diverges": "The unrolled gradient does not converge: λ = {value} per step, ln 1/γ = "
    "{threshold}.",
    "misses_boundary": "The unrolled gradient misses the boundary term of termination, "
    "{value} beside a norm of {threshold}.",
    "differs": "The unrolled gradient differs from finite differences {value} times too much.",
    "remainder": "The rest after {number} steps is not negligible.",
    "score_lost": "Noisy paths are not finite on {number} of {n} starts.",
    "score_imprecise": "The score function's standard error is {value} of its norm (limit "
    "{threshold}, N = {n}).",
}
register({f"truth_{status}": Code("truth", sentence) for status, sentence in _TRUTHS.items()})
register({
    "truth_zero": Code("truth", "The true gradient is 0 at every start."),
    "truth_imprecise": Code(
        "truth", "The truth's standard error is {value} of its norm.",
        "Comparisons on the same starts hold.",
    ),
    "truth_in_noise": Code(
        "truth", "The truth's norm is lost in its standard error.",
        "Shorten the horizon, or narrow the starts.",
    ),
    "truth_few_carry": Code(
        "truth", "1% of the starts carry {value} of the truth's squared gradients.",
        "Take many more starts, narrow them, or shorten the horizon.", write=percent,
    ),
    "truth_without_score": Code(
        "truth", f"{_LENGTH}, and the policy is deterministic.",
        "Give it a score: gradlab.networks.policies.Gaussian(policy, std).",
    ),
    "truth_without_density": Code(
        "truth", f"{_LENGTH}, and the policy's noise has no density.",
        "Write log_prob(state, action) -> [N].",
    ),
})  # fmt: skip

_OF_SIMULATOR = ("simulator_detached", "simulator_reward_detached")
_OF_DERIVATIVES = (*_OF_SIMULATOR, "policy_detached", "model_detached", "model_reward_detached")


def failed_premises(findings: Findings) -> tuple[Finding, ...]:
    """Why nothing can be decided from a measurement, the first reason first: a derivative that is
    lost explains what else fails, and the simulator's is the truth."""
    found = [each for each in failed(findings) if each.severity == "premise"]
    order = (_OF_SIMULATOR, _OF_DERIVATIVES)
    return tuple(sorted(found, key=lambda each: [each.code not in codes for codes in order]))


def detached(findings: Findings) -> frozenset[str]:
    """Whose Jacobians are lost, as an identity says it; a policy's are in those of all systems."""
    lost = {each.code for each in failed(findings, *_OF_DERIVATIVES)}
    if "policy_detached" in lost:
        return frozenset(("simulator", "model"))
    return frozenset("simulator" if code in _OF_SIMULATOR else "model" for code in lost)


def other_derivative(findings: Findings) -> bool:
    """Is the simulator's derivative none, or one of something else than its step?"""
    return bool(failed(findings, "simulator_wrong")) or "simulator" in detached(findings)


def no_gradient(findings: Findings) -> tuple[Finding, ...]:
    """Of the premises that fail, that the true gradient is 0: an absurd critic may still be
    compared with another, and its error attributed."""
    codes = (
        "reward_constant", "policy_still", "fitted_policy_still", "no_derivative",
        "simulator_reward_detached", "model_reward_detached",
    )  # fmt: skip
    return tuple(each for each in failed_premises(findings) if each.code in codes)


def saturated(findings: Findings) -> Finding | None:
    """Most actions are at their limits; None where they are not."""
    return next(iter(failed(findings, "actions_saturated")), None)


def concentration(findings: Findings) -> Finding | None:
    """Do few starts carry the variance? None where it is not known."""
    return next((each for each in findings or () if each.code == "starts_carry"), None)


def truth_values(found: Finding) -> dict[str, Any]:
    """What is known of a truth's finding as plain values, and its words as a reason."""
    values = {each.name: getattr(found, each.name) for each in fields(Finding)}
    defaults = {each.name: each.default for each in fields(Finding)}
    known = {k: x for k, x in values.items() if x == x and x != defaults[k]}
    return known | {"reason": reason(found)}


def truth_finding(truth: Mapping[str, Any]) -> Finding:
    """The finding of a profile's truth; a stranger's that has none is known by its status."""
    known = {each.name: truth[each.name] for each in fields(Finding) if each.name in truth}
    if "code" in known:
        return Finding(**known)
    status = str(truth.get("status", "none"))
    stands = truth.get("admissible", False) and status != "imprecise"
    text = str(truth.get("reason", status))
    return Finding(f"truth_{status}", "pass" if stands else "undecided", text=text)


def reason(found: Finding) -> str:
    """What is said of it, as part of another sentence."""
    return found.said.removesuffix(".")
