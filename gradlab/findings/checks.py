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
from gradlab.wording import counted, percent

Findings = tuple[Finding, ...] | None

_REFIT = "Fit the critic further."
_FEW_RETURNS = "2% of the states carry over 90%: narrow the starts, or end runaways."
_DETACHED = Code(
    "derivatives of 0", ":{subject} by its {at}, {number} of {threshold}.",
    "Let its gradient through.", "premise",
)  # fmt: skip
_SIZE, _SLOPE = "critic's values over returns", "returns over the critic's changes"
_WHERE_OFF = ":the {subject}'s {at}, {number} of {n} states."
_FIXED = "gradlab holds it fixed, your update does not."
_SHORTER = "Shorten the horizon, or stabilise the policy."
_NOT_OWN = "derivatives off differences"

register({
    "premises_hold": Code("premises hold"),
    "reward_constant": Code("constant reward", "", "The true gradient is 0: fix it.", "premise"),
    "policy_still": Code(
        "policy without effect", "", "Look for saturated actions, or ignored ones.", "premise"
    ),
    "fitted_policy_still": Code(
        "policy without effect", "", "Set reference_state= of the task to where it should rest, or "
        "give --policy.", "premise",
    ),
    "no_derivative": Code(
        "return without derivative", "", "Look for a threshold, clip or detach.", "premise"
    ),
    "critic_size": Code(_SIZE, "", _REFIT, "premise"),
    "critic_size_few": Code(_SIZE, "", _FEW_RETURNS, "premise"),
    "critic_sign": Code(_SIZE, "", "Turn its sign.", "premise"),
    "critic_flat": Code(_SLOPE, "", _REFIT, "premise"),
    "critic_flat_few": Code(_SLOPE, "", _FEW_RETURNS, "premise"),
    **dict.fromkeys(
        ("policy_detached", "simulator_detached", "simulator_reward_detached", "model_detached",
         "model_reward_detached"), _DETACHED,
    ),
    "simulator_wrong": Code(
        "simulator's wrong derivative", ":{at}, {number} of {n} states.",
        "Correct its backward pass, or linearize.", "premise",
    ),
    "check_crashed": Code("check that crashed", severity="error"),
    "model_exact": Code("exact model", remedy="All error is the critic's: give your model."),
    "jacobians": Code("error of the derivatives"),
    "jacobians_wrong": Code(_NOT_OWN, _WHERE_OFF, "Correct linearize first.", "error"),
    "jacobians_kinked": Code(f"{_NOT_OWN}: a kink", _WHERE_OFF),
    "jacobians_unknown": Code("no finite step", severity="error"),
    "jacobians_certified": Code("no contacts or limits"),
    "jacobians_flagged": Code(
        "contacts and limits", remedy="They are jumps: shorten the horizon.", write=percent
    ),
    "action_dead": Code(
        "dead action", remedy="∂f/∂a is 0: look for a wrong index or detach.", severity="error"
    ),
    "action_faint": Code("vanishing action"),
    "actions_clipped": Code(
        "clipped actions", remedy="A clip stops the gradient.", write=percent
    ),
    "action_idle": Code(
        "action without effect", "{subject} moves no reward of {at} within {number} steps.",
        "Lengthen the horizon.",
    ),
    "gradients_finite": Code("finite gradients"),
    "gradients_lost": Code(
        "gradients not finite", ":{subject}, {number} of {n} groups from {at}.",
        "Use a shorter horizon.", "error",
    ),
    "gradients_zero": Code(
        "gradients of 0", ":{subject}, {number} of {n} groups at {at}.",
        "Look for saturated actions or dead paths.",
    ),
    "chain_growth": Code("growth of ∂s/∂a per step", remedy=_SHORTER),
    "chain_overflow": Code(
        "growth of the chain", "{subject} exceeds {threshold} from step {number} on.", _SHORTER,
        "error",
    ),
    "theta_alone": Code("no leaks of θ"),
    "theta_leaks": Code("leaks of θ", "", f"Detach it: {_FIXED}", "error"),
    "theta_shared": Code("shared tensors", "", f"Copy them: {_FIXED}", "error"),
    "theta_counted": Code(
        "gradient off differences", remedy="Its θ counts elsewhere, or a Jacobian is wrong."
    ),
    "float32": Code("change by float32", remedy="Use float64."),
    "float32_untested": Code("float32 not tried"),
    "term_drowns": Code("term over all others", remedy="Check its scale."),
    "critic_beyond": Code("|Q| beyond its bound", remedy=_REFIT),
    "actions_saturated": Code(
        "saturated actions", "{subject} sits at its limit in {value} of the steps.",
        "If updates hardly move the return, divide the policy's last layer by 10.", write=percent,
    ),
    "episodes_short": Code(
        "ends at the first step", remedy="Start farther from ends.", write=percent
    ),
    "states_alive": Code("alive states", remedy="Take more starts."),
    "states_seen": Code(
        "states that the model has not seen", remedy="Fit it on this policy's data.", write=percent
    ),
})  # fmt: skip


register({
    "starts_carry": Code(
        "concentration", ":1% of the starts carry {value} of the {at} (N = {n}).",
        "Variance, error and SNR are undecided, gain and returns hold. Take {threshold} starts, or "
        "the central 99% (--trim-starts 0.01: another question).",
        write=lambda x, n: percent(x, n) if x <= 1 else counted(x, n), whole=True,
    ),
    "starts_undrawn": Code("concentration in one start", write=percent),
})  # fmt: skip

_LENGTH = ":does not hold at an update's length"
_TRUTHS = {  # those without a remedy
    "converged": ":converges within {number} steps, agrees with finite differences.",
    "unchecked": ":converges within {number} steps, unchecked.",
    "cut": ":cut at T = {number} steps, where it is precise.",
    "cut_by_steps": ":cut at T = {number} of {threshold} steps.",
    "score": ":the score function's over {number} steps.",
    "lost": ":not finite on {number} of {n} starts, first at {at}.",
    "diverges": ":does not converge, λ = {value} per step, ln 1/γ = {threshold}.",
    "misses_boundary": ":misses the boundary term of termination, {value} beside {threshold}.",
    "differs": ":differs from finite differences {value} times too much.",
    "remainder": ":the rest after {number} steps counts.",
    "score_lost": ":noisy paths are not finite on {number} of {n} starts.",
    "score_imprecise": ":the score's standard error is {value} of its norm (limit {threshold}, N = "
    "{n}).",
    "zero": ":0 at every start.",
}
_REMEDIED = {
    "imprecise": (":standard error {value} of its norm.", "Comparisons on the same starts hold."),
    "in_noise": (":lost in its standard error.", "Shorten the horizon, or narrow the starts."),
    "without_score": (
        f"{_LENGTH}, and the policy is deterministic.",
        "Give it a score: gradlab.networks.policies.Gaussian(policy, std).",
    ),
    "without_density": (
        f"{_LENGTH}, and the policy's noise has no density.",
        "Write log_prob(state, action) -> [N].",
    ),
}
register({
    f"truth_{status}": Code("true gradient", *text)
    for status, text in ({key: (text,) for key, text in _TRUTHS.items()} | _REMEDIED).items()
} | {
    "truth_few_carry": Code(
        "true gradient", ":1% of the starts carry {value} of its square.",
        "Take many more starts, narrow them, or shorten the horizon.", write=percent,
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
    return found.beside.removesuffix(".")
