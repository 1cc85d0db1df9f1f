"""What logs and a model say of a policy gradient, in plain sentences, each with interval and N.

Up to which horizon the recorded scores support the model's gradient, in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log, sqrt

from gradlab.runs.logs import (
    SUPPORTED,
    TOLERANCE,
    Agreement,
    LogsRun,
    agreements,
    by_output,
    critics,
    numbers,
    referee,
    supported,
)
from gradlab.statistics.number import Number
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.phrases import further
from gradlab.wording import cosine, cosines, horizons, percent, rounded_up, span, steps, times, two


def _agreement_sentences(run: LogsRun) -> list[Sentence]:
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


_FIT = 0.05  # of a critic's spread: residuals within it are called small
_BEYOND = 0.01  # share of values outside of the return bound that is worth a word
_LEAST = 0.001  # share that is worth its digits
_NOISY = 0.95  # share of noise from which neighbours are not asked about derivatives


def verdict(run: LogsRun) -> tuple[Sentence, ...]:
    """The sentences that head a report: what the data can support, then why, then what to mend."""
    return (
        *_policy(run),
        *_agreement_sentences(run),
        *_referee(run),
        *_noise(run),
        *_disagreement(run),
        *[_critic(run, name, found) for name, found in critics(run).items()],
        *_direction(run),
        *_prediction(run),
        *_episodes(run),
    )


def _policy(run: LogsRun) -> list[Sentence]:
    if not run.config["stochastic"]:
        text = (
            "The policy is deterministic and its record holds no noise, so that no score exists "
            "and nothing without a derivative judges the model's gradient; record with known "
            "noise (noise_std) to have a referee."
        )
        return [Sentence("policy", False, text)]
    p, spread, mean = (by_output(run, "policy", name) for name in ("p_value", "spread", "mean"))
    rows = p[""].n
    if run.notes["on_policy"]:
        text = (
            f"The recorded actions are this policy's own: its noise, inferred from {rows} rows, is "
            f"standard normal and independent of the state (p = {two(p[''].value)} of all tests)."
        )
        return [Sentence("policy", True, text)]
    explained = by_output(run, "policy", "explained")
    worst = max(spread, key=lambda name: abs(spread[name].value - 1) + abs(mean[name].value))
    by_state = max(explained, key=lambda name: explained[name].value)
    text = (
        f"The recorded actions are not quite this policy's (p = {p[''].value:.1g}, {rows} rows): "
        f"in units of its noise {worst} has mean {_ci(mean[worst])} and spread "
        f"{_ci(spread[worst])}, expected 0 and 1, and the state explains "
        f"{percent(max(explained[by_state].value, 0.0))} of {by_state}. What follows is biased by "
        f"as much: give the policy and the noise that recorded."
    )
    return [Sentence("policy", True, text)]


def _referee(run: LogsRun) -> list[Sentence]:
    """Can the score judge anything: its own noise, before it is used."""
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if not cosines_at:
        return []
    h = max(cosines_at)
    own, less = cosines_at[h], _saved(run, h)
    text = (
        f"The score itself, over {steps(h)}, has a cosine of {cosine(own.value)} (CI "
        f"{cosines(own.low, own.high)}, N = {own.n} trajectories) with what it estimates{less}"
    )
    if own.low >= SUPPORTED:
        return [Sentence("score", True, f"{text}: enough to referee.")]
    size, few, most = referee(own)
    if size is None or most is None:
        reach = "nobody knows" if few is None else f"at least about {rounded_up(few)} in all"
        text = f"{text}: too noisy to referee; how many trajectories {SUPPORTED:g} needs: {reach}."
        return [Sentence("score", False, text)]
    ends = f"CI {rounded_up(few or 1)}–{rounded_up(most)}"
    text = f"{text}; {SUPPORTED:g} needs about {rounded_up(size)} trajectories in all ({ends})."
    return [Sentence("score", own.high < SUPPORTED, text)]


def _saved(run: LogsRun, h: int) -> str:
    plain = numbers(run, "gradient", "variance", "score without baseline").get(h)
    variance = numbers(run, "gradient", "variance", "score").get(h)
    if plain is None or variance is None or not plain.value > variance.value > 0:
        return ""
    return f" (its baseline divides its variance by {two(plain.value / variance.value)})"


def _noise(run: LogsRun) -> list[Sentence]:
    """The model's noise against the score's, and how it grows."""
    ratios = numbers(run, "agreement", "variance_ratio", "same")
    slopes = numbers(run, "gradient", "variance_slope", "model")
    parts = []
    if ratios:
        h = max(ratios)
        each = ratios[h]
        parts.append(
            f"at h = {h} one trajectory's model gradient has {times(each.value)} the variance of "
            f"its score (CI {span(each.low, each.high)}, N = {each.n})"
        )
    if slopes:
        onset, each = next(iter(slopes.items()))
        if each.low > 0:
            double = [log(2) / x for x in (each.value, each.high, each.low)]
            parts.append(
                f"beyond h = {onset} its variance doubles every {two(double[0])} steps (CI "
                f"{span(*double[1:])}, N = {each.n})"
            )
        else:
            ends = span(each.low, each.high)
            parts.append(f"no exponential growth detected (slope per step CI {ends}, N = {each.n})")
    return [Sentence("noise", True, f"Noise: {'; '.join(parts)}.")] if parts else []


def _disagreement(run: LogsRun) -> list[Sentence]:
    """Between-critic standard deviation of the mean gradient, relative to its norm: the largest,
    and that of the longest horizon."""
    between = numbers(run, "gradient", "variance_critics", "model")
    norms = numbers(run, "gradient", "mean_norm", "model")
    nonzero = {h: each for h, each in between.items() if norms.get(h) and norms[h].value > 0}
    if not nonzero:
        return []
    parts = []
    worst = max(nonzero, key=lambda h: nonzero[h].value / norms[h].value ** 2)
    for h in sorted({worst, max(nonzero)}):
        value, low, high = (
            percent(sqrt(max(x, 0.0)) / norms[h].value)
            for x in (nonzero[h].value, nonzero[h].low, nonzero[h].high)
        )
        parts.append(f"{value} (CI {low}–{high}) of its norm at h = {h}")
    n = next(iter(nonzero.values())).n
    text = (
        f"The {run.config['critics']} critics make the model's mean gradient differ by "
        f"{' and '.join(parts)} (standard deviation between critics, N = {n} trajectories)."
    )
    return [Sentence("disagreement", True, text)]


def _critic(run: LogsRun, name: str, quantities: Mapping[str, Number]) -> Sentence:
    residual = quantities["residual"]
    small = residual.low > -_FIT and residual.high < _FIT
    off = residual.low > 0 or residual.high < 0
    ends = f"{percent(residual.low)} to {percent(residual.high)}"
    parts = [f"mean Bellman residual {percent(residual.value)} of its spread (CI {ends})"]
    if "slope" in quantities:
        parts.append(f"observed returns rise by {_ci(quantities['slope'])} per unit of its value")
    if quantities["beyond"].low > _BEYOND:
        low, high = run.notes["return_bound"]
        parts.append(
            f"{percent(quantities['beyond'].value)} of its values lie outside of what the rewards "
            f"seen can pay ({low:.3g} to {high:.3g})"
        )
    text = f"{name.capitalize()}: {'; '.join(parts)}; N = {residual.n} trajectories."
    return Sentence("critic", small or off, text)


def _direction(run: LogsRun) -> list[Sentence]:
    errors, noise = (by_output(run, "direction", name) for name in ("error", "noise"))
    if run.config["model"] is None:
        return []
    if "all" not in errors:
        text = (
            "The model's derivatives cannot be tried on recorded neighbours: too few trajectories "
            "for a neighbourhood, or nothing varies."
        )
        return [Sentence("direction", False, text)]
    all_, floor = errors["all"], noise["all"]
    outputs = {name: each for name, each in errors.items() if name != "all"}
    worst = max(outputs, key=lambda name: outputs[name].value)
    text = (
        f"Held against differences between neighbours, the model's directional derivatives are off "
        f"by {_root(all_)} over all outputs, most in {worst}: {_root(outputs[worst])}; "
        f"{_small(floor.value)} of what neighbours show is noise (N = {all_.n} trajectories)."
    )
    decided = floor.low < _NOISY and isfinite(all_.low) and all_.high - all_.low < 1.0
    if not decided:
        text = f"Undecided: {text[0].lower()}{text[1:]}"
    return [Sentence("direction", decided, text)]


def _small(share: float) -> str:
    return percent(share) if share >= _LEAST else f"less than {percent(_LEAST)}"


def _root(square: Number) -> str:
    """√ε² with its interval; "at most" where the square may be 0."""
    if not (isfinite(square.low) and isfinite(square.high)):
        return "an unknown share"
    value, low, high = (percent(sqrt(max(x, 0.0))) for x in (square.value, square.low, square.high))
    return f"at most {high} (95%)" if square.low <= 0 else f"{value} (CI {low}–{high})"


def _prediction(run: LogsRun) -> list[Sentence]:
    errors = numbers(run, "prediction", "error")
    if not errors:
        return []
    lost, law = run.notes.get("prediction_lost"), run.notes.get("growth")
    parts = " and ".join(
        f"{percent(errors[k].value)} (CI {percent(errors[k].low)}–{percent(errors[k].high)}) after "
        f"{steps(k)}"
        for k in dict.fromkeys((min(errors), max(errors)))
    )
    text = (
        f"Under the recorded actions the model's prediction is off by {parts}, 100% being the "
        f"error of predicting no change, process noise included (N = {errors[min(errors)].n})"
    )
    text += f"; growth: {law}" if law else ""
    text += f"; from step {lost} on it leaves the finite numbers" if lost else ""
    return [Sentence("prediction", True, f"{text}.")]


def _episodes(run: LogsRun) -> list[Sentence]:
    parts = []
    if run.notes["left_out"]:
        parts.append(
            f"{run.notes['left_out']} trajectories stop before {run.config['reach']} steps and are "
            f"left out"
        )
    if run.notes["ended"] > 0:
        parts.append(
            f"{percent(run.notes['ended'])} of the windows end in a terminal state: the score "
            f"counts that actions move the end, pathwise gradients do not"
        )
    n = run.config["trajectories"]
    joined = f"Episodes: {'; '.join(parts)} (N = {n} trajectories used)."
    return [Sentence("episodes", True, joined)] if parts else []


def _ci(number: Number) -> str:
    return f"{two(number.value)} (CI {span(number.low, number.high)})"
