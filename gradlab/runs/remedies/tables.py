"""Tables of a test of remedies: differences and ratios with paired intervals, and plain levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, nan

import numpy as np
import pandas as pd

from gradlab.runs.remedies.ratios import ratio
from gradlab.runs.remedies.values import Cells, Key, Pair
from gradlab.statistics.comparison import difference
from gradlab.statistics.intervals import jackknife_se, skewness_corrected
from gradlab.statistics.moments import Estimate

SIGNED = ("cosine", "usable_horizon", "best_horizon", "lyapunov", "held_out_nll")  # no ratio
WHERE = ("quantity", "block", "at", "region")
PAIRED = (
    "arm", "budget", *WHERE, "first", "second", "difference", "ci_low", "ci_high", "ratio",
    "ratio_low", "ratio_high", "n", "method",
)  # fmt: skip
LEVELS = ("model", *WHERE, "value", "ci_low", "ci_high", "n", "method")


def pairs(cells: Cells, pairs: Sequence[Pair]) -> pd.DataFrame:
    """`Remedies.table`; `at` is NaN where a quantity has neither step nor horizon."""
    return pd.DataFrame(list(_paired(cells, pairs)), columns=list(PAIRED))


def levels(cells: Cells) -> pd.DataFrame:
    """`Remedies.levels`."""
    return pd.DataFrame(list(_levels(cells)), columns=list(LEVELS))


def _paired(cells: Cells, pairs: Sequence[Pair]) -> Iterator[tuple[object, ...]]:
    for pair in pairs:
        for key in cells.keys(pair.second):
            estimates = cells.estimates((pair.first, pair.second), key)
            if estimates is not None:
                first, second = estimates
                numbers = compared(first, second, key.quantity not in SIGNED, cells.trials > 1)
                yield (pair.arm, pair.budget, *_where(key), *numbers, *_samples(cells, second))


def _levels(cells: Cells) -> Iterator[tuple[object, ...]]:
    for model in cells.models:
        for key in cells.keys(model):
            estimates = cells.estimates((model,), key)
            if estimates is not None:
                low, high = _ends(estimates[0])
                where = (model, *_where(key))
                yield (*where, estimates[0].value, low, high, *_samples(cells, estimates[0]))


def compared(first: Estimate, second: Estimate, ratios: bool, trials: bool) -> tuple[float, ...]:
    """first, second, second − first with its interval, second / first with its.

    Args:
        trials: whether what is left out are trials: then the ratio is the geometric mean of theirs.
    """
    values = (first.value, second.value, second.value - first.value)
    if not all(np.isfinite(each.left_out).all() for each in (first, second)):
        quotient = second.value / first.value if ratios and first.value > 0 else nan
        return (*values, nan, nan, quotient, nan, nan)
    gap = difference(second, first)
    change = ratio(first, second, trials) if ratios else None
    if change is None:
        return (*values, gap.low, gap.high, nan, nan, nan)
    return (*values, gap.low, gap.high, *(exp(x) for x in (change.value, change.low, change.high)))


def _where(key: Key) -> tuple[object, ...]:
    return key.quantity, key.block, nan if key.at < 0 else float(key.at), key.region


def _ends(estimate: Estimate) -> tuple[float, float]:
    finite = np.isfinite(estimate.left_out).all() and np.isfinite(jackknife_se(estimate.left_out))
    return skewness_corrected(estimate) if finite else (nan, nan)


def _samples(cells: Cells, estimate: Estimate) -> tuple[int, str]:
    """Trials behind a number, or starts of a single trial, and how its interval was made."""
    if not np.isfinite(estimate.left_out).all():
        return 1, "one trial"
    over = "starts of one trial" if cells.trials == 1 else "trials"
    return len(estimate.left_out), f"paired jackknife over {over}"
