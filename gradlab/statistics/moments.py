"""Every estimate as a function of inner products, with its leave-one-group-out values.

For per-sample vectors G_i (an estimator's gradients) and T_i (the truth's, on common starts and
noise), Y_i = G_i − T_i, and X_g the sum of X over group g,

    |E X|²   ←  U_X = (|Σ X|² − Σ_g |X_g|²) / (N² − Σ_g n_g²)         unbiased: pairs of groups only
    tr Cov X ←  mean |X_i|² − U_X                                      = tr S for groups of one

so neither needs a parameter-sized vector, and deleting a group changes only sums already at hand:
    U_X(−g) = (|S|² − 2 X_g·S + 2|X_g|² − Σ|X_g|²) / ((N − n_g)² − (Σ n² − n_g²)).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
QUANTITIES = ("mean_norm", "variance", "bias2", "mse", "relative_mse", "cosine", "snr")
WITHOUT_TRUTH = ("mean_norm", "variance", "snr")


@dataclass(frozen=True)
class PairSums:
    """Inner products of group sums X_g, Z_g, each array [G] (or [K, G] for K pairs at once).

    Attributes:
        own: X_g · Z_g.
        left: X_g · Σ Z.
        right: Z_g · Σ X.
    """

    own: Array
    left: Array
    right: Array


@dataclass(frozen=True)
class Moments:
    """What the statistics of one estimator at one horizon need, [G] each.

    Attributes:
        size: samples in each group.
        squares: Σ_{i∈g} |G_i|².
        gradient, truth, difference: pair sums of G with G, T with T, Y with Y.
        cross: pair sums of G with T.
        Without a truth the last three are None.
    """

    size: Array
    squares: Array
    gradient: PairSums
    truth: PairSums | None = None
    difference: PairSums | None = None
    cross: PairSums | None = None


@dataclass(frozen=True)
class Estimate:
    """A value and the values with each group left out, [G]."""

    value: float
    left_out: Array


def pair_mean(sums: PairSums, size: Array) -> Estimate:
    """E X · E Z without the bias of a plug-in: pairs of different groups only."""
    n, n2 = size.sum(), (size**2).sum()
    whole, own = sums.left.sum(), sums.own.sum()
    left_out = (whole - own - sums.left - sums.right + 2 * sums.own) / (
        (n - size) ** 2 - (n2 - size**2)
    )
    return Estimate(float((whole - own) / (n**2 - n2)), left_out)


def second_moment(moments: Moments) -> Estimate:
    """E |G_i|²."""
    n, total = moments.size.sum(), moments.squares.sum()
    return Estimate(float(total / n), (total - moments.squares) / (n - moments.size))


def combine(function: Callable[..., Array], *parts: Estimate) -> Estimate:
    """A smooth function of estimates, with the function applied to each left-out value too."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = function(*(np.asarray(part.value) for part in parts))
        left_out = function(*(part.left_out for part in parts))
    return Estimate(float(value), np.asarray(left_out, dtype=np.float64))


def estimates(moments: Moments, batch: int) -> Mapping[str, Estimate]:
    """All quantities of one estimator at one horizon.

    Args:
        batch: N′ of the mean squared error, bias² + tr Cov / N′.

    Returns:
        mean_norm, variance, snr; with a truth also bias2, mse, cosine and relative_mse, the error
        over that of a zero gradient, |E T|². bias2 may be negative and cosine may exceed 1: both
        are noise-corrected and unclipped.
    """
    norm2 = pair_mean(moments.gradient, moments.size)
    variance = combine(lambda m, u: m - u, second_moment(moments), norm2)
    result = {
        "mean_norm": combine(lambda u: np.sqrt(np.maximum(u, 0.0)), norm2),
        "variance": variance,
        "snr": combine(lambda u, v: u / v, norm2, variance),
    }
    if moments.truth is None or moments.difference is None or moments.cross is None:
        return result
    bias2 = pair_mean(moments.difference, moments.size)
    truth2 = pair_mean(moments.truth, moments.size)
    cross = pair_mean(moments.cross, moments.size)
    mse = combine(lambda b, v: b + v / batch, bias2, variance)
    return result | {
        "bias2": bias2,
        "mse": mse,
        "relative_mse": combine(lambda e, t: np.where(t > 0, e / t, np.nan), mse, truth2),
        "cosine": combine(lambda c, u, t: c / (np.sqrt(u) * np.sqrt(t)), cross, norm2, truth2),
    }
