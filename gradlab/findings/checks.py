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

_CRITIC_SIZE = "The critic's values are {value} times the returns measured there ({n} states)."
_CRITIC_FLAT = "Where the critic rises by 1, the measured return rises by {value} ({n} states)."
_REFIT = "Fit the critic further, to this discount, reward scale and policy."
_FEW_RETURNS = (
    "Over 90% of the squared returns come from 2% of the states: end episodes that run off, or "
    "narrow the starts."
)
_STILL = "Moving θ by a tenth changes no return beyond rounding ({n} states)."
_DETACHED = Code(
    "detached derivatives",
    "{number} of {threshold} derivatives of the {subject} by its {at} are exactly 0 in all {n} "
    "states, though it moves.",
    "Let the gradient of the {subject} through.",
    "premise",
)
_WHERE_OFF = "The {subject}'s {at} differs from differences in {number} of {n} states"

register({
    "premises_hold": Code(
        "premises", "Returns differ, θ moves them, and the critic has their size."
    ),
    "reward_constant": Code(
        "constant reward", "Every return is {value} ({n} states): the true gradient is exactly 0.",
        "Fix the reward.", "premise",
    ),
    "policy_still": Code(
        "policy without effect", _STILL,
        "Look for a dead output, saturated actions, or actions that the simulator ignores.",
        "premise",
    ),
    "fitted_policy_still": Code(
        "policy without effect", _STILL,
        "Set reference_state= of the task to where it should rest, or give --policy.", "premise",
    ),
    "no_derivative": Code(
        "return without derivative",
        "The true gradient is exactly 0 although θ moves returns ({n} states).",
        "Look for a threshold, a clip or a detached tensor in reward, step and policy.", "premise",
    ),
    "critic_size": Code("size of the critic", _CRITIC_SIZE, _REFIT, "premise"),
    "critic_size_few": Code("size of the critic", _CRITIC_SIZE, _FEW_RETURNS, "premise"),
    "critic_sign": Code(
        "sign of the critic", _CRITIC_SIZE, "Fit the critic to rewards of the right sign.",
        "premise",
    ),
    "critic_flat": Code("slope of the critic", _CRITIC_FLAT, _REFIT, "premise"),
    "critic_flat_few": Code("slope of the critic", _CRITIC_FLAT, _FEW_RETURNS, "premise"),
    "policy_detached": _DETACHED,
    "simulator_detached": _DETACHED,
    "simulator_reward_detached": _DETACHED,
    "model_detached": _DETACHED,
    "model_reward_detached": _DETACHED,
    "simulator_wrong": Code(
        "derivative of the simulator",
        "The simulator's {at} is off by over 10% in {number} of {n} states.",
        "Correct its backward pass, or linearize.", "premise",
    ),
    "check_crashed": Code(
        "check that crashed", "The check of {subject} could not be run: {at}.", "", "error"
    ),
    "model_exact": Code(
        "exact model", "The {subject} does exactly what the simulator does.",
        "All error is the critic's: give the model that you train with.",
    ),
    "jacobians": Code(
        "derivatives", "The {subject}'s derivatives are those of its step: largest relative error "
        "{value} ({n} states).",
    ),
    "jacobians_wrong": Code(
        "derivatives", f"{_WHERE_OFF}.", "Correct linearize before trusting any number here.",
        "error",
    ),
    "jacobians_kinked": Code("derivatives", f"{_WHERE_OFF}: a kink, contact or wrap."),
    "jacobians_unknown": Code(
        "derivatives", "The {subject} has no finite step to compare its derivatives with.",
        severity="error",
    ),
    "jacobians_certified": Code(
        "contacts and limits", "No contact or limit lies inside the stencils of {subject} "
        "({n} Jacobians).",
    ),
    "jacobians_flagged": Code(
        "contacts and limits", "{value} of {n} Jacobians of {subject} have a contact or limit "
        "inside their stencil, first at {at}.",
        "They are jumps, not derivatives, and one may outweigh all other samples: shorten the "
        "horizon.", write=percent,
    ),
    "action_dead": Code(
        "dead action", "{subject} moves no state of the {at}: ∂f/∂a is exactly 0 in all {n} "
        "states.",
        "Look for a wrong control, a detached tensor, or a state that it never reaches.", "error",
    ),
    "action_faint": Code(
        "vanishing action", "{subject} hardly moves the {at}: ∂f/∂a is {value} of the largest "
        "(limit {threshold}).",
    ),
    "actions_clipped": Code(
        "clipped actions", "In {value} of {n} states some action does not move the {subject} "
        "(limit {threshold}).", "A limit or a clip stops the gradient there.", write=percent,
    ),
    "action_idle": Code(
        "action without effect", "{subject} has no effect on any reward of {at} within {number} "
        "steps.", "Only the critic moves it: lengthen the horizon, or look for a dead path.",
    ),
    "gradients_finite": Code("finite gradients", "Every gradient is finite and not 0 (N = {n})."),
    "gradients_lost": Code(
        "finite gradients", "{number} of {n} groups of {subject} are not finite from {at}.",
        "Use a shorter horizon, or repair that state.", "error",
    ),
    "gradients_zero": Code(
        "gradients of 0", "{number} of {n} groups of {subject} are exactly 0 at {at}.",
        "Look for saturated actions or dead paths.",
    ),
    "chain_growth": Code(
        "growth of the chain", "∂s/∂a of {subject} is multiplied by {value} per step (limit "
        "{threshold}, over {n} steps).", "Shorten the horizon, or stabilise the policy.",
    ),
    "chain_overflow": Code(
        "growth of the chain", "∂s/∂a of {subject} exceeds {threshold} from step {number} on.",
        "Shorten the horizon, or stabilise the policy.", "error",
    ),
    "theta_alone": Code("leaks of θ", "Critics and systems do not change with the policy's θ."),
    "theta_leaks": Code(
        "leaks of θ", "The {subject} changes with the policy's θ.",
        "Detach it: gradlab holds it fixed, and your update does not.", "error",
    ),
    "theta_shared": Code(
        "leaks of θ", "Policy and critics share {number} tensors.",
        "Copy them: gradlab holds the critics' fixed, and your update does not.", "error",
    ),
    "theta_counted": Code(
        "where θ counts", "The gradient {subject} differs from differences of its own return by "
        "{value} of its size at {at}.", "Its θ counts where it should not, or a Jacobian is wrong.",
    ),
    "float32": Code(
        "float32", "Rounding to float32 changes {subject} at {at} by {value} of its size (limit "
        "{threshold}).", "Use float64 or a shorter horizon before blaming the model.",
    ),
    "float32_untested": Code("float32", "{at}: the gradient {subject} was not tried."),
    "term_drowns": Code(
        "scale of the terms", "The {subject} of {at} is {value} times all other terms together "
        "(limit {threshold}).", "Check its scale.",
    ),
    "critic_beyond": Code(
        "bound of the critic", "At some state |Q| is {value}, where r_max / (1 − γ) = {threshold}.",
        "Refit the critic.",
    ),
    "actions_saturated": Code(
        "saturated actions", "{subject} sits at its limit in {value} of the steps (limit "
        "{threshold}).",
        "If updates hardly move the return, divide the policy's last layer (weights and bias) by "
        "10, and measure again.", write=percent,
    ),
    "episodes_short": Code(
        "ends of episodes", "{value} of the starts end at the first step (limit {threshold}).",
        "Start farther from the ends of episodes.", write=percent,
    ),
    "states_alive": Code(
        "alive states", "{number} of {n} states where gradients are taken are alive, in {at} "
        "groups.", "The policy leaves the task early: take more starts.",
    ),
    "states_seen": Code(
        "states that the model has seen",
        "{value} of {n} states lie over 5 deviations from the data of the {subject} (limit "
        "{threshold}; farthest: {at}).",
        "Fit it on data of this policy, or trust it elsewhere.", write=percent,
    ),
})  # fmt: skip

_DOUBT = (
    "Variance, error and SNR are not decided; gain and returns hold. Take more starts, or those "
    "from the central 99% of their law (--trim-starts 0.01: another question)."
)

register({
    "starts_enough": Code(
        "rare starts", "1% of the starts carry {value} of their score (N = {n}).", write=percent
    ),
    "starts_unseen": Code(
        "rare starts", "Starts beyond any of the sample carry {value} of the squared score of {n} "
        "(limit {threshold}).", _DOUBT, write=percent,
    ),
    "starts_ending": Code(
        "rare ends", "Episodes end in 1 of {number} starts: {threshold} are needed (N = {n}).",
        _DOUBT,
    ),
    "starts_few_carry": Code(
        "rare starts", "1% of the starts carry {value} of the squared gradients of {at} (limit "
        "{threshold}, N = {n}).", _DOUBT, write=percent,
    ),
    "starts_tail": Code(
        "rare starts", "The squared score of {n} starts has a tail without a variance: Pareto k = "
        "{value} (limit {threshold}).", _DOUBT,
    ),
    "starts_beyond_cut": Code(
        "rare starts", "Few starts carry the return beyond the {number} steps of the truth.",
        _DOUBT,
    ),
    "starts_undrawn": Code(
        "rare starts", "Rarer starts were not searched for: one carries up to {value} of a mean "
        "square ({at}, N = {n}).", write=percent,
    ),
})  # fmt: skip

_LENGTH = "The gradient does not hold at the length of an update"
_TRUTHS = {  # those without a remedy
    "truth_converged": "The simulator's gradient converges within {number} steps and agrees with "
    "finite differences.",
    "truth_unchecked": "The simulator's gradient converges within {number} steps; finite "
    "differences were left out.",
    "truth_cut": "The objective is cut at T = {number} steps, where its gradient is precise and "
    "agrees with finite differences.",
    "truth_cut_by_price": "The objective is cut at T = {number} steps; more than {threshold} are "
    "too many to unroll.",
    "truth_score": "The truth is the score function's gradient of {number} steps.",
    "truth_lost": "Paths or Jacobians leave the finite numbers on {number} of {n} starts, first "
    "at {at}.",
    "truth_diverges": "The unrolled gradient does not converge: λ = {value} per step, against "
    "ln 1/γ = {threshold}.",
    "truth_misses_boundary": "The unrolled gradient misses the boundary term of termination, "
    "{value} beside a norm of {threshold}.",
    "truth_differs": "The unrolled gradient differs from finite differences by {value} times what "
    "is allowed.",
    "truth_remainder": "What is left out after {number} steps is not negligible.",
    "truth_too_dear": "Unrolling {n} starts for {number} steps takes {threshold} s of a core.",
    "truth_never_precise": "No length from {number} to {threshold} steps would be precise "
    "(N = {n}).",
    "truth_score_lost": "Paths with other noise leave the finite numbers on {number} of {n} "
    "starts.",
    "truth_score_imprecise": "The score function's standard error is {value} of its norm (limit "
    "{threshold}, N = {n}).",
}
register({code: Code("truth", sentence) for code, sentence in _TRUTHS.items()})
register({
    "truth_zero": Code("truth", "The true gradient is 0 at every start (N = {n})."),
    "truth_imprecise": Code(
        "truth", "The truth's standard error is {value} of its norm (limit {threshold}, N = {n}).",
        "Comparisons between gradients on the same starts hold.",
    ),
    "truth_in_noise": Code(
        "truth", "The truth's norm is lost in its standard error (N = {n}).",
        "Take a shorter horizon or a narrower law of the starts.",
    ),
    "truth_few_carry": Code(
        "truth", "1% of the starts carry {value} of the truth's squared gradients (limit "
        "{threshold}, N = {n}).",
        "Take many more starts, a narrower law of the starts or a shorter horizon.", write=percent,
    ),
    "truth_without_score": Code(
        "truth", f"{_LENGTH}, and the policy is deterministic.",
        "Wrap it: gradlab.networks.policies.Gaussian(policy, std) has a score.",
    ),
    "truth_without_density": Code(
        "truth", f"{_LENGTH}, and the policy has noise but no density.",
        "Write a method log_prob(state, action) -> [N] beside its noise_dim.",
    ),
})  # fmt: skip

_OF_SIMULATOR = ("simulator_detached", "simulator_reward_detached")
_OF_DERIVATIVES = (*_OF_SIMULATOR, "policy_detached", "model_detached", "model_reward_detached")
_RARE = (
    "starts_unseen", "starts_ending", "starts_few_carry", "starts_tail", "starts_beyond_cut",
)  # fmt: skip


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


def rare_starts(findings: Findings) -> Finding | None:
    """Do starts that no sample of N holds carry the variance? None where it is not known."""
    found = (each for each in findings or () if each.code == "starts_enough")
    return next(iter(failed(findings, *_RARE)), None) or next(found, None)


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
