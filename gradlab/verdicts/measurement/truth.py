"""What a verdict says of the truth: what it is, whether it holds, or why there is none."""

from __future__ import annotations

from math import exp, inf, log

from gradlab.gradients.ways import WAYS
from gradlab.runs.decision_rules import judged_horizons
from gradlab.runs.jumps import UPDATE, Jumps
from gradlab.runs.profile import Profile
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import duration, percent, rounded_up, samples, span, steps, times


def jumps(profile: Profile) -> list[Sentence]:
    """What backpropagation promised at the length of an update, and what it brought."""
    found = profile.jumps
    if found is None:
        return []
    promised, move = f"{found.promised:+.3g}", percent(float(found.moves[UPDATE]))
    brought = f"{float(found.brought[UPDATE]):+.3g}"
    where = f"{found.count} of {found.tried} starts" + (
        "" if found.step is None else f", near step {found.step}"
    )
    holds = f"backpropagation promises {promised} per unit step and brings {brought}"
    ends = span(float(found.gap_low[UPDATE]), float(found.gap_high[UPDATE]))
    n = f"N = {found.samples}"
    text = {
        "harmful": f"The return jumps ({where}): {holds}.",
        "harmless": f"The return jumps ({where}) without harm: {holds} ({n}).",
        "open": f"The return jumps ({where}), and whether that does harm is open: {holds}, a gap "
        f"of {ends} of it ({n}){_would_tell(found.missing)}.",
        "rough": f"The return is rough: {holds}, and where actions move by "
        f"{percent(float(found.moves[0]))} {float(found.brought[0]):+.3g}.",
        "curved": f"The return bends within an update, and does not jump: {holds}; where actions "
        f"move by {percent(float(found.moves[-1]))} {float(found.brought[-1]):+.3g}.",
        "smooth": f"The return is smooth at the length of an update, where actions move by {move}: "
        f"{holds}.",
    }[found.kind]
    if found.first_lost is not None:
        text = _lost(found) if found.kind == "open" else f"{text} {_lost(found)}"
    return [Sentence("jumps", found.kind != "open", text.replace("-", "−"))]


def _lost(found: Jumps) -> str:
    """From how many starts returns are lost, and what is left to be said where that is open."""
    n, move = found.first_lost or (0, 0.0)
    text = f"From {n} of {found.samples} starts the return leaves the finite numbers where actions "
    text += f"move by {percent(move)}"
    if found.kind != "open":
        return f"{text}."
    return f"{text}: it is not smooth there, and what backpropagation promises is open."


def _would_tell(missing: int) -> str:
    return f"; about {rounded_up(missing)} more starts would tell" if missing > 0 else ""


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
