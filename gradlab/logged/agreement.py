"""What inner products say: noise of each gradient, and whether two of them are one.

    ρ² = |E M − E S|² / |E S|²          M the model's gradient, S the score's, of the same windows

    agree      the upper end of |E M − E S|² − TOLERANCE² |E S|² is below 0: they differ by less
               than half of the reference, so that the angle between them is at most 30°
    disagree   the lower end of |E M − E S|² is above 0, and they are not known to agree
    undecided  neither: the sentence says how many trajectories would tell

Every number is a U-statistic over pairs of trajectories, with the jackknife's interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from gradlab.logged.gradients import Cell, Products, weighted
from gradlab.logged.reading import TOLERANCE
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.intervals import Interval, interval, jackknife_se, skewness_corrected
from gradlab.statistics.moments import (
    Estimate,
    Moments,
    PairSums,
    combine,
    estimates,
    pair_mean,
)


@dataclass(frozen=True)
class Number:
    """One number with its interval, as a row of the table."""

    quantity: str
    estimate: Estimate
    interval: Interval


def noise_of(found: Products, cell: Cell, others: tuple[Cell, ...] = ()) -> list[Number]:
    """mean_norm, variance, snr, `cosine_self`; variance_critics where there are others.

    Args:
        others: the same gradient with other critics.
    """
    critics = _across(found, (cell, *others)) if others else None
    gradient = found.pair(cell, cell)
    moments = Moments(found.size, found.squares[cell], gradient, critics=critics)
    every = estimates(moments, 1)
    numbers = [Number(name, each, interval(name, each)) for name, each in every.items()]
    return [*numbers, _cosine_self(found, cell)]


def _cosine_self(found: Products, cell: Cell) -> Number:
    """√(|μ|² / E |mean|²): of the mean of these windows with what it estimates; 0 where |μ|² is
    estimated below 0."""
    sums, size = found.pair(cell, cell), found.size
    n, total = size.sum(), sums.left.sum()
    energy = Estimate(float(total / n**2), (total - 2 * sums.left + sums.own) / (n - size) ** 2)
    signal = pair_mean(sums, size)
    share = combine(lambda u, e: np.sqrt(np.maximum(u, 0.0) / e), signal, energy)
    low, high = np.clip(skewness_corrected(share), 0.0, 1.0)
    spread = Interval(float(low), float(high), jackknife_se(share.left_out), "jackknife")
    return Number("cosine_self", share, spread)


def agreement(found: Products, model: Cell, score: Cell) -> list[Number]:
    """bias2, relative_bias2, excess over tolerance, cosine and log variance ratio of two cells."""
    both, mm, ss = found.pair(model, score), found.pair(model, model), found.pair(score, score)
    swapped = PairSums(both.own, both.right, both.left)
    gap = weighted([(1.0, mm), (-1.0, both), (-1.0, swapped), (1.0, ss)])
    moments = Moments(found.size, found.squares[model], mm, truth=ss, difference=gap, cross=both)
    every = estimates(moments, 1)
    bias2, reference = every["bias2"], pair_mean(ss, found.size)
    excess = combine(lambda b, t: b - TOLERANCE**2 * t, bias2, reference)
    relative = combine(lambda b, t: np.where(t > 0, b / t, np.nan), bias2, reference)
    zero = Estimate(0.0, np.zeros_like(excess.left_out))
    return [
        Number("bias2", bias2, interval("bias2", bias2)),
        Number("relative_bias2", relative, interval("relative_mse", relative)),
        Number("excess", excess, difference(excess, zero)),
        Number("cosine", every["cosine"], interval("cosine", every["cosine"])),
        *_variance_ratio(found, model, score),
    ]


def _variance_ratio(found: Products, model: Cell, score: Cell) -> list[Number]:
    """Of the model's gradient over the score's, where both are known to be above 0."""
    both = [
        estimates(Moments(found.size, found.squares[cell], found.pair(cell, cell)), 1)["variance"]
        for cell in (model, score)
    ]
    span = log_ratio(*both)
    if span is None:
        return []
    ratio = combine(lambda a, b: a / b, *both)
    ends = Interval(exp(span.low), exp(span.high), jackknife_se(ratio.left_out), span.method)
    return [Number("variance_ratio", ratio, ends)]


def _across(found: Products, cells: tuple[Cell, ...]) -> PairSums:
    """Σ_c |X_c − X̄|² / (C − 1), from inner products: Σ_c ⟨c, c⟩ − Σ_cd ⟨c, d⟩ / C."""
    count = len(cells)
    terms = [(1.0, found.pair(c, c)) for c in cells]
    terms += [(-1.0 / count, found.pair(c, d)) for c in cells for d in cells]
    return weighted([(w / (count - 1), sums) for w, sums in terms])
