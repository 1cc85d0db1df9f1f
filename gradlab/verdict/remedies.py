"""Form 10: what a remedy does to variance and bias, horizon by horizon, and whether it matters.

A remedy is judged by a comparison of two measurements of one policy, without it and with it.
"""

from __future__ import annotations

from math import exp, sqrt

import numpy as np

from gradlab.comparison import Comparison
from gradlab.judgement import LogRatio, least_ratio
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.verdict.phrases import capital, inverse, ratio_of, ratio_span, same
from gradlab.verdict.sentence import Sentence
from gradlab.wording import horizons, span, times, two

ABOUT = "remedy"


def remedy(comparison: Comparison, what: str, name: str = "model") -> Sentence:
    """Whether a remedy is worth it: better for some horizons, worse below, or not shown to matter.

    Args:
        comparison: without the remedy, and with it.
        what: the remedy's name, at the beginning of the sentence.
    """
    over = _judged(comparison, name)
    n = f"N = {comparison.samples}"
    if not over:
        return Sentence(ABOUT, False, f"Undecided: {what} has no error to compare ({n}).")
    better, worse = _sides(comparison, name, over)
    moved = f"{what} {_parts(comparison, name, over)}"
    if not better and not worse:
        return Sentence(ABOUT, False, f"{capital(moved)} ({n}): not shown to matter here.")
    told = [f"better at h = {horizons(better)}"] if better else []
    told += [f"worse at h = {horizons(worse)}"] if worse else []
    least = _least(comparison, name, over)
    return Sentence(ABOUT, True, f"{capital(moved)} ({n}): {', '.join(told)}{least}.")


def _judged(comparison: Comparison, name: str) -> list[int]:
    if name not in comparison.estimators or "mse" not in comparison.quantities:
        return []
    return [
        h
        for h in comparison.measured(name, "mse")
        if h and all(np.isfinite(e.left_out).all() for e in comparison.estimates(name, "mse", h))
    ]


def _sides(comparison: Comparison, name: str, over: list[int]) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy."""
    gaps = {h: difference(*comparison.estimates(name, "mse", h)) for h in over}
    better = [h for h, gap in gaps.items() if gap.low > 0]
    return better, [h for h, gap in gaps.items() if gap.high < 0]


def _parts(comparison: Comparison, name: str, over: list[int]) -> str:
    """Changes of variance and of |bias| at the horizon of least error without the remedy."""
    errors = [comparison.estimates(name, "mse", h)[0].value for h in over]
    at = over[int(np.argmin(errors))]
    told = [
        _change(comparison, name, "variance", at, "variance"),
        _change(comparison, name, "bias2", at, "bias"),
    ]
    return f"{' and '.join(told)} at h = {at}"


def _change(comparison: Comparison, name: str, quantity: str, at: int, word: str) -> str:
    """cuts variance 31× / raises bias 1.1×; a squared bias in doubt is given as a difference."""
    first, second = comparison.estimates(name, quantity, at)
    found = log_ratio(second, first)
    if found is None:
        gap = difference(second, first)
        return (
            f"changes the {'squared ' if quantity == 'bias2' else ''}{word} by "
            f"{two(second.value - first.value)} (CI {span(gap.low, gap.high)})"
        )
    power = 0.5 if quantity == "bias2" else 1.0
    ratio, low, high = (second.value / first.value, exp(found.low), exp(found.high))
    ratio, low, high = (sqrt(each) if power == 0.5 else each for each in (ratio, low, high))
    if low <= 1 <= high:
        return f"leaves {word} at {times(ratio)} (CI {span(low, high)})"
    if ratio < 1:
        return f"cuts {word} {times(1 / ratio)} (CI {span(1 / high, 1 / low)})"
    return f"raises {word} {times(ratio)} (CI {span(low, high)})"


def _least(comparison: Comparison, name: str, over: list[int]) -> str:
    """What becomes of the smallest error over the horizons."""
    pairs = [comparison.estimates(name, "mse", h) for h in over]
    ratio = least_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    if ratio is None or same(ratio) or ratio.low <= 0 <= ratio.high:
        return "; the least error over the horizons is not shown to change"
    word, shown = ("lower", ratio) if ratio.value > 0 else ("higher", inverse(ratio))
    return f"; the least error over the horizons is {_by(shown)} {word}"


def _by(ratio: LogRatio) -> str:
    return f"{ratio_of(ratio)} (CI {ratio_span(ratio)})"
