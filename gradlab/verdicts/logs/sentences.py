"""What logs and a model say of a policy gradient, in plain sentences, each with interval and N."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log, sqrt

from gradlab.runs.logs import LogsRun
from gradlab.runs.logs_numbers import SUPPORTED, by_output, critics, numbers, referee
from gradlab.statistics.number import Number
from gradlab.verdicts.logs.agreement import agreement_sentences
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.wording import cosine, cosines, percent, rounded_up, span, steps, times, two

FIT = 0.05  # of a critic's spread: residuals within it are called small
BEYOND = 0.01  # share of values outside of the return bound that is worth a word
LEAST = 0.001  # share that is worth its digits
NOISY = 0.95  # share of noise from which neighbours are not asked about derivatives


def verdict(run: LogsRun) -> tuple[Sentence, ...]:
    """The sentences that head a report: what the data can support, then why, then what to mend."""
    return (
        *_policy(run),
        *agreement_sentences(run),
        *_referee(run),
        *_noise(run),
        *_disagreement(run),
        *_critics(run),
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
    found = numbers(run, "gradient", "cosine_self", "score")
    if not found:
        return []
    h = max(found)
    own, less = found[h], _saved(run, h)
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
    own = numbers(run, "gradient", "variance", "score").get(h)
    if plain is None or own is None or not plain.value > own.value > 0:
        return ""
    return f" (its baseline divides its variance by {two(plain.value / own.value)})"


def _noise(run: LogsRun) -> list[Sentence]:
    """The model's noise against the score's, and how it grows."""
    ratios = numbers(run, "agreement", "variance_ratio", "same")
    slopes = numbers(run, "gradient", "variance_slope", "model")
    told = []
    if ratios:
        h = max(ratios)
        each = ratios[h]
        told.append(
            f"at h = {h} one trajectory's model gradient has {times(each.value)} the variance of "
            f"its score (CI {span(each.low, each.high)}, N = {each.n})"
        )
    if slopes:
        onset, each = next(iter(slopes.items()))
        if each.low > 0:
            double = [log(2) / x for x in (each.value, each.high, each.low)]
            told.append(
                f"beyond h = {onset} its variance doubles every {two(double[0])} steps (CI "
                f"{span(*double[1:])}, N = {each.n})"
            )
        else:
            ends = span(each.low, each.high)
            told.append(f"no exponential growth detected (slope per step CI {ends}, N = {each.n})")
    return [Sentence("noise", True, f"Noise: {'; '.join(told)}.")] if told else []


def _disagreement(run: LogsRun) -> list[Sentence]:
    """Between-critic standard deviation of the mean gradient, relative to its norm: the largest,
    and that of the longest horizon."""
    between = numbers(run, "gradient", "variance_critics", "model")
    norms = numbers(run, "gradient", "mean_norm", "model")
    known = {h: each for h, each in between.items() if norms.get(h) and norms[h].value > 0}
    if not known:
        return []
    told = []
    worst = max(known, key=lambda h: known[h].value / norms[h].value ** 2)
    for h in sorted({worst, max(known)}):
        value, low, high = (
            percent(sqrt(max(x, 0.0)) / norms[h].value)
            for x in (known[h].value, known[h].low, known[h].high)
        )
        told.append(f"{value} (CI {low}–{high}) of its norm at h = {h}")
    n = next(iter(known.values())).n
    text = (
        f"The {run.config['critics']} critics make the model's mean gradient differ by "
        f"{' and '.join(told)} (standard deviation between critics, N = {n} trajectories)."
    )
    return [Sentence("disagreement", True, text)]


def _critics(run: LogsRun) -> list[Sentence]:
    return [_critic(run, name, found) for name, found in critics(run).items()]


def _critic(run: LogsRun, name: str, found: Mapping[str, Number]) -> Sentence:
    residual = found["residual"]
    small = residual.low > -FIT and residual.high < FIT
    off = residual.low > 0 or residual.high < 0
    ends = f"{percent(residual.low)} to {percent(residual.high)}"
    told = [f"mean Bellman residual {percent(residual.value)} of its spread (CI {ends})"]
    if "slope" in found:
        told.append(f"observed returns rise by {_ci(found['slope'])} per unit of its value")
    if found["beyond"].low > BEYOND:
        low, high = run.notes["return_bound"]
        told.append(
            f"{percent(found['beyond'].value)} of its values lie outside of what the rewards seen "
            f"can pay ({low:.3g} to {high:.3g})"
        )
    text = f"{name.capitalize()}: {'; '.join(told)}; N = {residual.n} trajectories."
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
    known = {name: each for name, each in errors.items() if name != "all"}
    worst = max(known, key=lambda name: known[name].value)
    text = (
        f"Held against differences between neighbours, the model's directional derivatives are off "
        f"by {_root(all_)} over all outputs, most in {worst}: {_root(known[worst])}; "
        f"{_small(floor.value)} of what neighbours show is noise (N = {all_.n} trajectories)."
    )
    decided = floor.low < NOISY and isfinite(all_.low) and all_.high - all_.low < 1.0
    if not decided:
        text = f"Undecided: {text[0].lower()}{text[1:]}"
    return [Sentence("direction", decided, text)]


def _small(share: float) -> str:
    return percent(share) if share >= LEAST else f"less than {percent(LEAST)}"


def _root(square: Number) -> str:
    """√ε² with its interval; "at most" where the square may be 0."""
    if not (isfinite(square.low) and isfinite(square.high)):
        return "an unknown share"
    value, low, high = (percent(sqrt(max(x, 0.0))) for x in (square.value, square.low, square.high))
    return f"at most {high} (95%)" if square.low <= 0 else f"{value} (CI {low}–{high})"


def _prediction(run: LogsRun) -> list[Sentence]:
    found = numbers(run, "prediction", "error")
    if not found:
        return []
    lost, law = run.notes.get("prediction_lost"), run.notes.get("growth")
    told = " and ".join(
        f"{percent(found[k].value)} (CI {percent(found[k].low)}–{percent(found[k].high)}) after "
        f"{steps(k)}"
        for k in dict.fromkeys((min(found), max(found)))
    )
    text = (
        f"Under the recorded actions the model's prediction is off by {told}, 100% being the error "
        f"of predicting no change, process noise included (N = {found[min(found)].n})"
    )
    text += f"; growth: {law}" if law else ""
    text += f"; from step {lost} on it leaves the finite numbers" if lost else ""
    return [Sentence("prediction", True, f"{text}.")]


def _episodes(run: LogsRun) -> list[Sentence]:
    told = []
    if run.notes["left_out"]:
        told.append(
            f"{run.notes['left_out']} trajectories stop before {run.config['reach']} steps and are "
            f"left out"
        )
    if run.notes["ended"] > 0:
        told.append(
            f"{percent(run.notes['ended'])} of the windows end in a terminal state: the score "
            f"counts that actions move the end, pathwise gradients do not"
        )
    n = run.config["trajectories"]
    joined = f"Episodes: {'; '.join(told)} (N = {n} trajectories used)."
    return [Sentence("episodes", True, joined)] if told else []


def _ci(number: Number) -> str:
    return f"{two(number.value)} (CI {span(number.low, number.high)})"
