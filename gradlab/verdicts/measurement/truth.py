"""What a verdict says of the truth: what it is, how well it is known, or why there is none."""

from __future__ import annotations

from math import exp, inf, log

from gradlab.gradients.ways import WAYS
from gradlab.runs.decision_rules import judged_horizons
from gradlab.runs.profile import Profile
from gradlab.wording import duration, percent, samples, steps, times


def no_truth(profile: Profile) -> str:
    """Why there is none, and what is left."""
    reason = str(profile.truth["reason"])
    return f"{reason[0].upper() + reason[1:]}; only variances and their growth are reported."


def admissible_truth(profile: Profile, name: str | None) -> str:
    """What every bias is measured against, and its own standard error."""
    facts, actions = profile.truth, profile.config.get("actions", {})
    kind = "all_" if name is not None and WAYS[actions.get(name, "first")].every else ""
    kind = kind if f"{kind}standard_error" in facts else ""
    error, norm = float(facts[f"{kind}standard_error"]), float(facts[f"{kind}norm"])
    share = f"its standard error is {percent(error / norm)} of its norm" if norm > 0 else ""
    reason = str(facts.get("reason", facts["status"]))
    parts = filter(None, (reason, _divergence(profile), share))
    return f"Truth: {'; '.join(parts)} ({samples(profile.config)})."


def _divergence(profile: Profile) -> str:
    """How much of a cut truth is made beyond the horizons that are judged by it."""
    growth = float(profile.truth.get("lyapunov", -inf)) + log(profile.config.get("discount", 1.0))
    beyond = int(profile.truth.get("horizon", 0)) - profile.horizons[-1]
    if growth <= 0:
        return ""
    if beyond <= 0:
        return "uncut it would diverge"
    return (
        f"uncut it would diverge: the {steps(beyond)} beyond H = {profile.horizons[-1]} make it up "
        f"to {times(exp(min(growth * beyond, 700.0)))} as large"
    )


def imprecise_truth(profile: Profile, name: str | None) -> str:
    """How large its error is, and the starts that would do; or that few starts carry it."""
    truth, config = profile.truth, profile.config
    if truth.get("carried_by_few", False):  # files of older versions do not know
        return f"Undecided: {truth['reason']}."
    error, norm = float(truth["standard_error"]), float(truth["norm"])
    size = f"its norm ({norm:.2g})" if norm > 0 else "its norm, which is lost in it"
    bias = "" if name is None else _against_bias(profile, name, error)
    missing, starts = int(truth["missing"]), int(config["starts"])
    cost = ""
    if missing > 0:
        factor = (starts + missing) / starts
        seconds = factor * float(profile.environment.get("wall_seconds", "nan"))
        again = f"--starts {starts + missing}, {factor:.2g} times as many (≈ {duration(seconds)})"
        cost = f": rerun with {again}"
    return (
        f"Undecided: the truth's error ({error:.2g}, N = {starts}) is not small against {size}"
        f"{bias}{cost}. Comparisons between estimators on the same starts remain sharp."
    )


def _against_bias(profile: Profile, name: str, error: float) -> str:
    """The bias at the smallest error, mentioned where the truth's error is not small beside it."""
    over = judged_horizons(profile, name)
    if not over:
        return ""
    at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    bias = max(profile.estimate(name, "bias2", at).value, 0.0) ** 0.5
    return f" or the bias ({bias:.2g} at h = {at})" if error > bias / 4 else ""
