"""Form 1: at which horizons may one unroll, where is the error least, what is your setting worth?

The horizon of least error comes with the set of those that may have it (`statistics.selection`),
and with the samples that would make it smaller; both rest on differences on the same starts.

What a verdict says of the truth: what it is, whether it holds, or why there is none.
"""

from __future__ import annotations

from math import exp, inf, log

import numpy as np

from gradlab.gradients.ways import WAYS
from gradlab.runs.decision_rules import (
    COSINE,
    EXCESS,
    UsableHorizons,
    best_horizons,
    horizons_of,
    judged_horizons,
    least_ratio,
    ratio_to_best,
    usable_horizons,
)
from gradlab.runs.jumps import UPDATE, Jumps
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.selection import RankSet, separations
from gradlab.verdicts.phrases import (
    SAME,
    capital,
    further,
    inverse,
    ratio_of,
    ratio_span,
    same,
    usable_text,
)
from gradlab.verdicts.screen import Sentence
from gradlab.wording import (
    cosine,
    duration,
    gradient,
    horizons,
    percent,
    rounded_up,
    samples,
    span,
    steps,
    times,
)


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
    more = (
        f"; about {rounded_up(found.missing)} more starts would tell" if found.missing > 0 else ""
    )
    text = {
        "harmful": f"The return jumps ({where}): {holds}.",
        "harmless": f"The return jumps ({where}) without harm: {holds} ({n}).",
        "open": f"The return jumps ({where}), and whether that does harm is open: {holds}, a gap "
        f"of {ends} of it ({n}){more}.",
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
    bias = ""
    if name is not None and (over := judged_horizons(profile, name)):
        at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
        least = max(profile.estimate(name, "bias2", at).value, 0.0) ** 0.5
        bias = f" or the bias ({least:.2g} at h = {at})" if error > least / 4 else ""
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


_FAR = 2.0  # times more accurate, at least, before another estimator is recommended


def horizon(profile: Profile, name: str) -> list[Sentence]:
    """The usable horizons, the set of the best, and the price of the user's own."""
    usable = usable_horizons(profile, name)
    rule = f"each by its own 95% intervals; {samples(profile.config)}"
    text = usable_text(gradient(profile.identities[name]), usable, rule)
    ranges = (*usable.usable, *usable.undecided)
    if usable.measured and not any(low == usable.measured[0] for low, _ in ranges):
        joint, shortest = ", not below" if ranges else "", usable.measured[0]
        text += f"{joint}: at h = {shortest} {_obstacle(profile, name, shortest)}"
    if not usable.decided:
        text += f"; {_more_for_horizon(profile, name, usable)} decide"
    text += f"; {_best(profile, name)}.{_yours(profile, name)}{_rival(profile, name)}"
    return [Sentence("horizon", usable.decided, text)]


def paired_horizon(profile: Profile, name: str) -> list[Sentence]:
    """What differences on the same starts still say where the truth is imprecise."""
    n, best = samples(profile.config), _best(profile, name)
    rest = f"{_yours(profile, name)}{_rival(profile, name)}"
    text = f"Of {gradient(profile.identities[name])} {best}, {n}.{rest}"
    return [Sentence("horizon", True, text)]


def _best(profile: Profile, name: str) -> str:
    """Where the error is least, the 95% set, and what would make it smaller."""
    over = judged_horizons(profile, name)
    errors = [profile.estimate(name, "mse", h) for h in over]
    at = over[int(np.argmin([each.value for each in errors]))]
    text = f"the mean squared error is smallest at h = {at}"
    text += ", the data gradient J_0" if at == 0 else ""
    if (ranked := best_horizons(profile, name)) is not None:
        ranks = ranked[1]
        kept = [h for h, here in zip(over, ranks.kept, strict=True) if here]
        text += f" (95% set: {horizons(kept)}{_separation(profile, over, ranks)})"
    relative = profile.estimate(name, "relative_mse", at)
    ends = interval("relative_mse", relative)
    if not ends.low > 1:  # the error of not moving at all, |truth|²
        return text
    backwards = profile.interval(name, "cosine", at).high < 0
    remedy = "it points backwards" if backwards else "a smaller scale would do better"
    return (
        f"{text}, where it is still {times(relative.value)} (CI {span(ends.low, ends.high)}) that "
        f"of a zero gradient ({remedy})"
    )


def _separation(profile: Profile, over: list[int], ranks: RankSet) -> str:
    """The next member that more samples would take out of the set."""
    if ranks.kept.sum() < 2:
        return ""
    partings = separations(ranks, int(profile.config["starts"]))
    if not partings:
        return f"; {further(None)} separate them"
    first = partings[0]
    return f"; {further(first.more)} separate {over[first.member]} from {over[first.contender]}"


def _yours(profile: Profile, name: str) -> str:
    """The error of the longest horizon, the user's setting, against the best one's."""
    H, over = max(horizons_of(profile, name)), judged_horizons(profile, name)
    if min(over, key=lambda h: profile.estimate(name, "mse", h).value) == H:
        return ""
    ratio = ratio_to_best(profile, (name, H), name, over)
    if ratio is None:
        return f" The gradient at H = {H} is not finite or not distinguishable from zero."
    if same(ratio):
        return f" H = {H} has the error of the best to within {percent(SAME - 1)}."
    numbers = f"{ratio_of(ratio)} the error of the best (CI {ratio_span(ratio)})"
    if ratio.low > 0:
        return f" H = {H} has {numbers}."
    return f" Undecided whether H = {H} is worse: {numbers}."


def _rival(profile: Profile, name: str) -> str:
    """Another estimator with the same truth that is far more accurate."""
    actions = profile.config.get("actions", {})
    mine = [profile.estimate(name, "mse", h) for h in judged_horizons(profile, name)]
    best = ""
    least = log(_FAR)
    for other in profile.estimators:
        alike = actions.get(other, "first") == actions.get(name, "first")
        rival = profile.identities[other]
        if other == name or rival.data or rival.control or not alike:
            continue
        over = [h for h in judged_horizons(profile, other) if h > 0]
        theirs = [profile.estimate(other, "mse", h) for h in over]
        ratio = least_ratio(theirs, mine)
        if ratio is None or not -ratio.high > least:
            continue
        least, turned = -ratio.high, inverse(ratio)
        at = over[int(np.argmin([each.value for each in theirs]))]
        best = (
            f" {capital(gradient(rival))} at h = {at} is {ratio_of(turned)} more accurate than "
            f"that (CI {ratio_span(turned)})."
        )
    return best


def _obstacle(profile: Profile, name: str, at: int) -> str:
    """Which of the two conditions fails at a horizon, with its number."""
    measured = profile.estimate(name, "cosine", at)
    ends = profile.interval(name, "cosine", at)
    if not ends.high >= COSINE:
        shown = cosine(measured.value) if np.isfinite(measured.value) else "unknown"
        return (
            f"its cosine with the truth is {shown} (CI {span(ends.low, ends.high)}, wanted: "
            f"≥ {COSINE})"
        )
    values = [profile.estimate(name, "mse", h).value for h in judged_horizons(profile, name)]
    excess = profile.estimate(name, "mse", at).value / min(values)
    return f"its mean squared error is {times(excess)} the smallest (wanted: ≤ {EXCESS:g}×)"


def _more_for_horizon(profile: Profile, name: str, usable: UsableHorizons) -> str:
    """Samples that would settle the first horizon in doubt, by its direction or by its error."""
    over, starts = judged_horizons(profile, name), int(profile.config["starts"])
    at = usable.undecided[0][0]
    measured = profile.estimate(name, "cosine", at)
    ends = profile.interval(name, "cosine", at)
    ratio = ratio_to_best(profile, (name, at), name, over)
    if ratio is not None and not ends.low < COSINE <= ends.high:
        return further(more_samples(abs(ratio.value - log(EXCESS)), ratio.se, starts))
    se = jackknife_se(measured.left_out)
    return further(more_samples(abs(measured.value - COSINE), se, starts))
