"""Tables of a test of remedies: differences and ratios with paired intervals, and plain levels.

Ratios of two models' numbers: over trials by geometric means, over starts by the jackknife.

    log ratio = mean_k log(b_k / a_k),   Student's t with K − 1 degrees of freedom

Trials are few and their errors have heavy tails: with 3 to 10 pairs of log-normal numbers this
interval covers in 95 cases of 100, the jackknife of the ratio of means in 87 to 95, while it is up
to 1.7 times as wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log, nan

import numpy as np
import pandas as pd
import scipy

from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.comparison import POWER, UNAFFORDABLE, difference, log_ratio
from gradlab.statistics.intervals import LEVEL, jackknife_se, pseudo_values, skewness_corrected
from gradlab.statistics.moments import Estimate
from gradlab.tools.remedies.values import Cells, Key, ModelPair

_WIDE = 700.0  # beyond the logarithms of floating-point numbers


def ratio(first: Estimate, second: Estimate, trials: bool) -> LogRatio | None:
    """log(second / first) with its interval; None where a number is not above 0, or all is open.

    Args:
        trials: whether what is left out are trials, of which the estimates are means.
    """
    if not all(np.isfinite(each.left_out).all() for each in (first, second)):
        return None
    logarithm = _of_trials(first, second) if trials else _of_starts(first, second)
    finite = logarithm is not None and np.isfinite([logarithm.low, logarithm.high]).all()
    return (
        logarithm
        if finite and logarithm is not None and max(-logarithm.low, logarithm.high) < _WIDE
        else None
    )


def more_trials(ratio: LogRatio, trials: int) -> int | None:
    """Further trials with which 1 is left out of the interval; None where no affordable number is.

    Smallest n > K with (t_{97.5%} + t_{power}) se √(K/n) ≤ |log ratio|, n − 1 degrees of freedom.
    """
    if not np.isfinite([ratio.value, ratio.se]).all() or ratio.value == 0:
        return None
    n = np.unique(np.geomspace(trials + 1, UNAFFORDABLE, 500).astype(int))
    n = np.union1d(n, np.arange(trials + 1, trials + 50))
    reach = scipy.stats.t.ppf(LEVEL, n - 1) + scipy.stats.t.ppf(POWER, n - 1)
    enough = n[reach * ratio.se * np.sqrt(trials / n) <= abs(ratio.value)]
    return int(enough[0]) - trials if len(enough) else None


def _of_trials(first: Estimate, second: Estimate) -> LogRatio | None:
    a, b = pseudo_values(first), pseudo_values(second)  # of a mean: what it is the mean of
    if not ((a > 0).all() and (b > 0).all()):
        return None
    logs = np.log(b / a)
    value, se = float(logs.mean()), float(logs.std(ddof=1) / len(logs) ** 0.5)
    half = float(scipy.stats.t.ppf(LEVEL, len(logs) - 1)) * se
    return LogRatio(value, value - half, value + half, se)


def _of_starts(first: Estimate, second: Estimate) -> LogRatio | None:
    ends = log_ratio(second, first)
    if ends is None:
        return None
    return LogRatio(log(second.value / first.value), ends.low, ends.high, ends.se)


_SIGNED = ("cosine", "usable_horizon", "best_horizon", "lyapunov", "held_out_nll")  # no ratio
_WHERE = ("quantity", "block", "at", "region")
PAIRED = (
    "arm", "budget", *_WHERE, "first", "second", "difference", "ci_low", "ci_high", "ratio",
    "ratio_low", "ratio_high", "n", "method",
)  # fmt: skip
_LEVELS = ("model", *_WHERE, "value", "ci_low", "ci_high", "n", "method")


def pairs(cells: Cells, pairs: Sequence[ModelPair]) -> pd.DataFrame:
    """`Remedies.table`; `at` is NaN where a quantity has neither step nor horizon."""
    return pd.DataFrame(list(_paired(cells, pairs)), columns=list(PAIRED))


def levels(cells: Cells) -> pd.DataFrame:
    """`Remedies.levels`."""
    return pd.DataFrame(list(_levels(cells)), columns=list(_LEVELS))


def _paired(cells: Cells, pairs: Sequence[ModelPair]) -> Iterator[tuple[object, ...]]:
    for pair in pairs:
        for key in cells.keys(pair.second):
            estimates = cells.estimates((pair.first, pair.second), key)
            if estimates is not None:
                first, second = estimates
                numbers = compared(first, second, key.quantity not in _SIGNED, cells.trials > 1)
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
