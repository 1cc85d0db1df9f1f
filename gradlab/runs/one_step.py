"""What steps along gradients, realised and rehearsed, have in common: their names and intervals."""

from __future__ import annotations

import numpy as np

from gradlab.statistics.intervals import Interval, skewness_corrected
from gradlab.statistics.intervals import jackknife_se as se_of
from gradlab.statistics.moments import Estimate

Cell = tuple[str, int]
Share = tuple[float, Interval]
TRUTH = "truth"  # in the place of an estimator's name
TRUE_CELL: Cell = (TRUTH, 0)
# Directions that are no truth and no estimator, and are stepped along where the return jumps.
PATHWISE, SCORE = "pathwise", "score function"
REFERENCES: tuple[Cell, ...] = (TRUE_CELL, (PATHWISE, 0), (SCORE, 0))
UNIT = "discounted return"
LINEAR = 0.1  # largest even part of the return's change over its odd part


def interval_of(change: Estimate) -> Interval:
    """95% interval of a change of the return."""
    low, high = skewness_corrected(change)
    return Interval(low, high, se_of(change.left_out), "jackknife with skewness")


def share_columns(share: Share | None) -> dict[str, float]:
    """Of a table: the share of the truth's gain and its interval, NaN where it is unknown."""
    value, low, high = np.nan, np.nan, np.nan
    if share is not None:
        value, low, high = share[0], share[1].low, share[1].high
    return {"share": value, "share_low": low, "share_high": high}
