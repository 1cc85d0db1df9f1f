"""Noise of each gradient, and agreement of two, from inner products of samples.

    ρ² = |E M − E S|² / |E S|²          M the model's gradient, S the score's, of the same windows

    agree      the upper ends of ρ² and of |E M − E S|² − TOLERANCE² |E S|² say that they differ by
               less than half of a reference that is above 0: at most 30° between them
    disagree   the lower end of |E M − E S|² is above 0, and agreement is not shown
    undecided  neither: the sentence has the number of trajectories that would decide

Every number is a U-statistic over pairs of trajectories, with the jackknife's interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

import numpy as np

from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.intervals import Interval, interval, jackknife_se
from gradlab.statistics.moments import (
    Array,
    Estimate,
    Moments,
    PairSums,
    combine,
    estimates,
    pair_mean,
)
from gradlab.tools.logs.gradients import Cell, Products, weighted
from gradlab.tools.logs.result import TOLERANCE


@dataclass(frozen=True)
class TableEntry:
    """One number with its interval, as a row of the table."""

    quantity: str
    estimate: Estimate
    interval: Interval


def noise_of(products: Products, cell: Cell, others: tuple[Cell, ...] = ()) -> list[TableEntry]:
    """mean_norm, variance, cosine_self; variance_critics where there are others.

    Args:
        others: the same gradient with other critics.
    """
    critics = None
    if others:  # Σ_c |X_c − X̄|² / (C − 1), from inner products: Σ_c ⟨c, c⟩ − Σ_cd ⟨c, d⟩ / C
        cells = (cell, *others)
        count = len(cells)
        terms = [(1.0, products.pair(c, c)) for c in cells]
        terms += [(-1.0 / count, products.pair(c, d)) for c in cells for d in cells]
        critics = weighted([(w / (count - 1), sums) for w, sums in terms])
    gradient = products.pair(cell, cell)
    moments = Moments(products.size, products.squares[cell], gradient, critics=critics)
    every = estimates(moments, 1)
    square = pair_mean(gradient, products.size)
    measured = [name for name in ("variance", "variance_critics") if name in every]
    plain = [TableEntry(name, every[name], interval(name, every[name])) for name in measured]
    # The ends of the square hold where it is estimated below 0, too.
    ends = interval("bias2", square)
    noise = float(gradient.left.sum() / products.size.sum() ** 2) - square.value  # tr Cov / N
    return [
        _of_square("mean_norm", square, ends, lambda u: np.sqrt(np.maximum(u, 0.0))),
        *plain,
        _of_square("cosine_self", square, ends, lambda u: _share(u, noise)),
    ]


def _of_square(
    quantity: str, square: Estimate, ends: Interval, function: Callable[[Array], Array]
) -> TableEntry:
    """A rising function of |E G|², its ends those of the square."""
    estimate = combine(function, square)
    low, high = (float(function(np.asarray(end))) for end in (ends.low, ends.high))
    return TableEntry(
        quantity, estimate, Interval(low, high, jackknife_se(estimate.left_out), ends.method)
    )


def _share(square: Array, noise: float) -> Array:
    """√(|μ|² / (|μ|² + tr Cov/N)): the cosine of the mean of N with what it estimates."""
    signal = np.maximum(square, 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(signal / (signal + noise)))


def agreement(products: Products, model: Cell, score: Cell) -> list[TableEntry]:
    """bias2, relative_bias2, excess over tolerance, cosine and log variance ratio of two cells."""
    both, mm, ss = (
        products.pair(model, score),
        products.pair(model, model),
        products.pair(score, score),
    )
    swapped = PairSums(both.own, both.right, both.left)
    gap = weighted([(1.0, mm), (-1.0, both), (-1.0, swapped), (1.0, ss)])
    moments = Moments(
        products.size, products.squares[model], mm, truth=ss, difference=gap, cross=both
    )
    every = estimates(moments, 1)
    bias2, reference = every["bias2"], pair_mean(ss, products.size)
    excess = combine(lambda b, t: b - TOLERANCE**2 * t, bias2, reference)
    relative = combine(lambda b, t: np.where(t > 0, b / t, np.nan), bias2, reference)
    zero = Estimate(0.0, np.zeros_like(excess.left_out))
    entries = [
        TableEntry("bias2", bias2, interval("bias2", bias2)),
        # A squared norm over one that is known: near 0 its upper end is that of a squared norm.
        TableEntry("relative_bias2", relative, interval("bias2", relative)),
        TableEntry("excess", excess, difference(excess, zero)),
        TableEntry("cosine", every["cosine"], interval("cosine", every["cosine"])),
    ]
    variances = [
        estimates(Moments(products.size, products.squares[cell], own), 1)["variance"]
        for cell, own in ((model, mm), (score, ss))
    ]
    span = log_ratio(*variances)
    if span is not None:  # both are known to be above 0
        ratio = combine(lambda a, b: a / b, *variances)
        ends = Interval(exp(span.low), exp(span.high), jackknife_se(ratio.left_out), span.method)
        entries.append(TableEntry("variance_ratio", ratio, ends))
    return entries
