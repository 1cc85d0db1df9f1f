"""Up to which horizon the recorded scores support the model's gradient, in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt

from gradlab.runs.logs import LogsRun
from gradlab.runs.logs_numbers import TOLERANCE, Agreement, agreements, supported
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.phrases import further
from gradlab.wording import cosine, cosines, horizons, percent, rounded_up, steps


def agreement_sentences(run: LogsRun) -> list[Sentence]:
    """Of the same returns, of the whole recorded return, and of the control at h = 0."""
    same, whole = agreements(run, "same"), agreements(run, "whole")
    return [*_control(same), *_same(run, same), *_whole(run, whole)]


def _control(same: Sequence[Agreement]) -> list[Sentence]:
    """At h = 0 no model is involved: the critic's own gradient, by itself and by scores."""
    if not same or same[0].horizon > 0 or same[0].status != "disagree":
        return []
    text = (
        f"At h = 0, where no model is involved, pathwise gradient and score of the critic differ "
        f"by {_gap(same[0])}: policy, noise or data are not what they are said to be, and the "
        f"other comparisons are worth as little."
    )
    return [Sentence("control", True, text)]


def _same(run: LogsRun, same: Sequence[Agreement]) -> list[Sentence]:
    judged = [each for each in same if each.horizon > 0]
    if not judged:
        return []
    H, longest = judged[-1].horizon, supported(list(judged))
    score = f"score of the same returns (difference below {TOLERANCE:.0%} of it)"
    rest = _beyond(judged, longest)
    if longest:
        at = next(each for each in judged if each.horizon == longest)
        upto = f"all {steps(H)}" if longest == H else f"h = {longest} of {H}"
        text = (
            f"These data support the model's gradient up to {upto}: it agrees with the {score}; "
            f"at h = {longest} they differ by {_gap(at)}.{rest}"
        )
        return [Sentence("support", True, text)]
    first = judged[0]
    refuted = first.status == "disagree"
    words = "refute" if refuted else "do not decide about"
    text = (
        f"These data {words} the model's gradient already at h = {first.horizon}, where it differs "
        f"from the {score} by {_gap(first)}.{rest}"
    )
    return [Sentence("support", refuted, text)]


def _beyond(judged: Sequence[Agreement], longest: int) -> str:
    """What is known of the horizons that are not supported."""
    later = [each for each in judged if each.horizon > longest]
    refuted = [each for each in later if each.status == "disagree"]
    open_ = [each for each in later if each.status == "undecided"]
    text = ""
    if refuted:
        worst = max(refuted, key=lambda each: each.gap.value)
        where = horizons([each.horizon for each in refuted])
        text += f" Refuted: h = {where} (at h = {worst.horizon} by {_gap(worst)})."
    again = [each.horizon for each in later if each.status == "agree"]
    if again:
        text += f" Agrees beyond, too: h = {horizons(again)}."
    if open_:
        where = horizons([each.horizon for each in open_])
        text += f" Undecided: h = {where}; {_enough(open_)}."
    return text


def _whole(run: LogsRun, whole: Sequence[Agreement]) -> list[Sentence]:
    """With its critic, against what the trajectories earned to their end."""
    if not whole:
        return []
    T, left = run.config["reach"], float(run.notes["remainder"])
    agree = [each.horizon for each in whole if each.status == "agree"]
    differ = [each.horizon for each in whole if each.status == "disagree"]
    open_ = [each for each in whole if each.status == "undecided"]
    best = min(whole, key=lambda each: each.gap.value if isfinite(each.gap.value) else 1e300)
    parts = [f"agrees at h = {horizons(agree)}"] if agree else []
    parts += [f"differs at h = {horizons(differ)}"] if differ else []
    parts += [f"is undecided at h = {horizons([e.horizon for e in open_])}"] if open_ else []
    critic = "model and critic" if run.config["critics"] else "the model, without a critic,"
    text = (
        f"Against the score of the whole recorded return ({T} steps, γ^{T} = {percent(left)} left "
        f"out), the gradient by {critic} {', '.join(parts)}; closest at h = {best.horizon}: "
        f"difference {_gap(best)}."
    )
    if open_ and not agree and not differ:
        text = f"{text[:-1]}; {_enough(open_)}."
    return [Sentence("whole", bool(agree or differ), text)]


def _enough(undecided: Sequence[Agreement]) -> str:
    counts = [each.more for each in undecided if each.more is not None]
    few, most = (rounded_up(end(counts, default=0)) for end in (min, max))
    if few == most:
        return f"{further(max(counts, default=None), 'trajectories')} decide"
    return f"about {few}–{most} more trajectories would decide"


def _gap(each: Agreement) -> str:
    """42% (CI 31–55%), cosine 0.97 (CI 0.95–0.99), N = 400 trajectories"""
    n, turn = f"N = {each.n} trajectories", each.cosine
    angle = f"cosine {cosine(turn.value)} (CI {cosines(turn.low, turn.high)})"
    if not isfinite(each.gap.value):
        return f"an unknown share of a score that is not distinguishable from zero ({n})"
    size = _percent(each.gap.value)
    ends = f"{_percent(each.gap.low)}–{_percent(each.gap.high)}"
    size = (
        f"at most {_percent(each.gap.high)} (95%)" if each.gap.value <= 0 else f"{size} (CI {ends})"
    )
    return f"{size}, {angle if isfinite(turn.value) else 'cosine unknown'}, {n}"


def _percent(square: float) -> str:
    return percent(sqrt(max(square, 0.0))) if isfinite(square) else "?"
