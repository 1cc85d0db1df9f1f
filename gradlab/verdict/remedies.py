"""Form 10: what a remedy does to variance and bias, horizon by horizon, and whether it matters.

The evidence is errors of one policy's gradient without the remedy and with it, on common samples:
of two measurements (`OfProfiles`), or of repeated fits (`gradlab.remedies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Protocol

import numpy as np

from gradlab.comparison import Comparison
from gradlab.judgement import LogRatio, least_ratio
from gradlab.statistics.comparison import difference, log_ratio, more_samples
from gradlab.statistics.moments import Estimate
from gradlab.verdict.phrases import capital, inverse, ratio_of, ratio_span, same
from gradlab.verdict.sentence import Sentence
from gradlab.wording import horizons, rounded_up, span, times, two

ABOUT = "remedy"
WIDE = log(1e6)  # a ratio's interval that says nothing of it


class Evidence(Protocol):
    """Errors without a remedy and with it."""

    @property
    def count(self) -> int:
        """Independent samples behind every number."""

    @property
    def unit(self) -> str:
        """What one more of them is called, in the plural."""

    @property
    def samples(self) -> str:
        """How a sentence tells their number."""

    @property
    def horizons(self) -> Sequence[int]:
        """Those at which both errors are known."""

    def estimates(self, quantity: str, horizon: int) -> tuple[Estimate, Estimate]:
        """Without and with, on common groups: mse, variance or bias2."""

    def least(self) -> LogRatio | None:
        """log(least error over the horizons without / with); None where it cannot be told."""


@dataclass(frozen=True, eq=False)
class OfProfiles:
    """Two measurements: without the remedy, and with it; `name`: the estimator that is judged."""

    comparison: Comparison
    name: str = "model"

    @property
    def count(self) -> int:
        return self.comparison.samples

    @property
    def unit(self) -> str:
        return "samples"

    @property
    def samples(self) -> str:
        return f"N = {self.count}"

    @property
    def horizons(self) -> list[int]:
        found = self.comparison
        if self.name not in found.estimators or "mse" not in found.quantities:
            return []
        return [
            h
            for h in found.measured(self.name, "mse")
            if h and all(np.isfinite(e.left_out).all() for e in self.estimates("mse", h))
        ]

    def estimates(self, quantity: str, horizon: int) -> tuple[Estimate, Estimate]:
        return self.comparison.estimates(self.name, quantity, horizon)

    def least(self) -> LogRatio | None:
        pairs = [self.estimates("mse", h) for h in self.horizons]
        return least_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def remedy(evidence: Evidence, what: str, also: str = "") -> Sentence:
    """Whether a remedy is worth it: better for some horizons, worse below, or not shown to matter.

    Args:
        what: the remedy's name, at the beginning of the sentence.
        also: what stands beside the gain, such as its price; a clause.
    """
    n, over = evidence.samples, evidence.horizons
    if not over:
        return Sentence(ABOUT, False, f"Undecided: {what} has no error to compare ({n}).")
    better, worse = _sides(evidence)
    moved, tail = f"{what} {_parts(evidence)}", f"; {also}" if also else ""
    if not better and not worse:
        text = f"{capital(moved)} ({n}): not shown to matter here{_missing(evidence)}{tail}."
        return Sentence(ABOUT, False, text)
    told = [f"better at h = {horizons(better)}"] if better else []
    told += [f"worse at h = {horizons(worse)}"] if worse else []
    text = f"{capital(moved)} ({n}): {', '.join(told)}{_least(evidence)}{tail}."
    return Sentence(ABOUT, True, text)


def best_horizon(evidence: Evidence) -> int:
    """The horizon of least error without the remedy."""
    errors = [evidence.estimates("mse", h)[0].value for h in evidence.horizons]
    return evidence.horizons[int(np.argmin(errors))]


def _sides(evidence: Evidence) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy."""
    gaps = {h: difference(*evidence.estimates("mse", h)) for h in evidence.horizons}
    better = [h for h, gap in gaps.items() if gap.low > 0]
    return better, [h for h, gap in gaps.items() if gap.high < 0]


def _parts(evidence: Evidence) -> str:
    """Changes of variance and of |bias| at the horizon of least error without the remedy."""
    at = best_horizon(evidence)
    told = [
        _change(evidence, "variance", at, "variance"),
        _change(evidence, "bias2", at, "bias"),
    ]
    return f"{' and '.join(told)} at h = {at}"


def _missing(evidence: Evidence) -> str:
    """How many more samples would tell the least errors apart, were they what they seem."""
    ratio = evidence.least()
    if ratio is None or same(ratio):
        return ""
    more = more_samples(ratio.value, ratio.se, evidence.count)
    if more is None:
        return f"; no affordable number of {evidence.unit} would tell"
    return f"; about {rounded_up(max(more, 1))} more {evidence.unit} would tell"


def _change(evidence: Evidence, quantity: str, at: int, word: str) -> str:
    """cuts variance 31× / raises bias 1.1×; what is in doubt is given as a difference."""
    first, second = evidence.estimates(quantity, at)
    found = log_ratio(second, first)
    if found is None or not found.high - found.low < WIDE:
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


def _least(evidence: Evidence) -> str:
    """What becomes of the smallest error over the horizons."""
    ratio = evidence.least()
    if ratio is None or same(ratio) or ratio.low <= 0 <= ratio.high:
        return "; the least error over the horizons is not shown to change"
    word, shown = ("lower", ratio) if ratio.value > 0 else ("higher", inverse(ratio))
    return f"; the least error over the horizons is {by(shown)} {word}"


def by(ratio: LogRatio) -> str:
    """3.2× (CI 2.1–4.9)"""
    return f"{ratio_of(ratio)} (CI {ratio_span(ratio)})"
