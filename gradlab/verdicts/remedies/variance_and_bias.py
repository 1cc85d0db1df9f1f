"""Form 10: what a remedy does to variance and bias, horizon by horizon, and whether it matters.

The evidence is errors of one policy's gradient without the remedy and with it, on common samples:
of two measurements (`OfProfiles`), or of repeated fits (`gradlab.remedies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Protocol

import numpy as np
import scipy

from gradlab.runs.comparison import Comparison
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import difference, log_ratio, more_samples
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate
from gradlab.verdicts.phrases import capital, further, inverse, same
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import horizons, span, two
from gradlab.wording import ratio as sized

ABOUT = "remedy"
FALSE = 0.05  # share of named horizons that chance may have named
WIDE = log(1e6)  # a ratio's interval that says nothing of it


class Evidence(Protocol):
    """Errors without a remedy and with it: mse, variance, bias2 at horizons."""

    @property
    def samples(self) -> str:
        """How a sentence tells their number."""

    def more(self, ratio: LogRatio) -> str:
        """How many more of them would tell a ratio from 1."""

    @property
    def groups(self) -> int:
        """Independent samples behind each number."""

    @property
    def horizons(self) -> Sequence[int]:
        """Those at which both errors are known."""

    def error(self, horizon: int) -> float:
        """Mean squared error without the remedy."""

    def ratio(self, quantity: str, horizon: int) -> LogRatio | None:
        """log(with / without); None where a number is not known to be above 0."""

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        """With less without."""

    def least(self) -> LogRatio | None:
        """log(least error over the horizons without / with); None where it cannot be told."""


@dataclass(frozen=True, eq=False)
class OfProfiles:
    """Two measurements: without the remedy, and with it; `name`: the estimator that is judged."""

    comparison: Comparison
    name: str = "model"

    @property
    def samples(self) -> str:
        return f"N = {self.comparison.samples}"

    def more(self, ratio: LogRatio) -> str:
        count = more_samples(ratio.value, ratio.se, self.comparison.samples)
        return f"{further(count)} decide"

    @property
    def groups(self) -> int:
        return len(self._pair("mse", self.horizons[0])[0].left_out)

    @property
    def horizons(self) -> list[int]:
        comparison = self.comparison
        if self.name not in comparison.estimators or "mse" not in comparison.quantities:
            return []
        return [
            h
            for h in comparison.measured(self.name, "mse")
            if h and all(np.isfinite(e.left_out).all() for e in self._pair("mse", h))
        ]

    def error(self, horizon: int) -> float:
        return self._pair("mse", horizon)[0].value

    def ratio(self, quantity: str, horizon: int) -> LogRatio | None:
        first, second = self._pair(quantity, horizon)
        logarithm = log_ratio(second, first)
        if logarithm is None:
            return None
        return LogRatio(
            log(second.value / first.value), logarithm.low, logarithm.high, logarithm.se
        )

    def change(self, quantity: str, horizon: int) -> tuple[float, Interval]:
        first, second = self._pair(quantity, horizon)
        return second.value - first.value, difference(second, first)

    def _pair(self, quantity: str, horizon: int) -> tuple[Estimate, Estimate]:
        return self.comparison.estimates(self.name, quantity, horizon)

    def least(self) -> LogRatio | None:
        pairs = [self._pair("mse", h) for h in self.horizons]
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
    sides = [f"better at h = {horizons(better)}"] if better else []
    sides += [f"worse at h = {horizons(worse)}"] if worse else []
    text = f"{capital(moved)} ({n}): {', '.join(sides)}{_least(evidence)}{tail}."
    return Sentence(ABOUT, True, text)


def best_horizon(evidence: Evidence) -> int:
    """The horizon of least error without the remedy."""
    return min(evidence.horizons, key=evidence.error)


def _sides(evidence: Evidence) -> tuple[list[int], list[int]]:
    """Horizons at which the error is clearly smaller, and clearly larger, with the remedy.

    Of many horizons some differ by chance: of those that are named at most 5% are expected to
    (Benjamini and Hochberg, 1995; errors of neighbouring horizons go together, as it allows).
    """
    moved = {h: _moved(evidence, h) for h in evidence.horizons}
    chance = [_chance(each, evidence.groups - 1) for each in moved.values()]
    adjusted = scipy.stats.false_discovery_control(chance)
    sure = {h: each for (h, each), p in zip(moved.items(), adjusted, strict=True) if p <= FALSE}
    better = [h for h, each in sure.items() if each.high < 0]
    return better, [h for h, each in sure.items() if each.low > 0]


def _moved(evidence: Evidence, horizon: int) -> LogRatio:
    """The change of the error: of its logarithm where that is known, else of itself."""
    ratio = evidence.ratio("mse", horizon)
    if ratio is not None:
        return ratio
    value, gap = evidence.change("mse", horizon)
    return LogRatio(value, gap.low, gap.high, gap.se)


def _chance(moved: LogRatio, freedom: int) -> float:
    """How often no change at all would look as large."""
    if not moved.se > 0:
        return 1.0 if moved.value == 0 else 0.0
    return float(2 * scipy.stats.t.sf(abs(moved.value) / moved.se, freedom))


def _parts(evidence: Evidence) -> str:
    """Changes of variance and of |bias| at the horizon of least error without the remedy."""
    at = best_horizon(evidence)
    changes = [
        _change(evidence, "variance", at, "variance"),
        _change(evidence, "bias2", at, "bias"),
    ]
    return f"{' and '.join(changes)} at h = {at}"


def _missing(evidence: Evidence) -> str:
    """How many more samples would tell the least errors apart, were they what they seem."""
    ratio = evidence.least()
    return "" if ratio is None or same(ratio) else f"; {evidence.more(ratio)}"


def _change(evidence: Evidence, quantity: str, at: int, word: str) -> str:
    """cuts variance 31× / raises bias 1.1×; what is in doubt is given as a difference."""
    ratio = evidence.ratio(quantity, at)
    if ratio is None or not ratio.high - ratio.low < WIDE:
        value, gap = evidence.change(quantity, at)
        squared = "squared " if quantity == "bias2" else ""
        return f"changes the {squared}{word} by {two(value)} (CI {span(gap.low, gap.high)})"
    power = 0.5 if quantity == "bias2" else 1.0
    change = LogRatio(*(power * each for each in (ratio.value, ratio.low, ratio.high, ratio.se)))
    if change.low <= 0 <= change.high:
        return f"leaves {word} at {by(change)}"
    if change.value < 0:
        return f"cuts {word} {by(inverse(change))}"
    return f"raises {word} {by(change)}"


def _least(evidence: Evidence) -> str:
    """What becomes of the smallest error over the horizons."""
    ratio = evidence.least()
    if ratio is None or same(ratio) or ratio.low <= 0 <= ratio.high:
        return "; the least error over the horizons is not shown to change"
    word, shown = ("lower", ratio) if ratio.value > 0 else ("higher", inverse(ratio))
    return f"; the least error over the horizons is {by(shown)} {word}"


def by(ratio: LogRatio) -> str:
    """3.2× (CI 2.1–4.9), or the end that is known."""
    return sized(exp(ratio.value), exp(ratio.low), exp(ratio.high))
