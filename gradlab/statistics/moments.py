"""Every estimate as a function of inner products, with its leave-one-group-out values.

For per-sample vectors G_i (an estimator's gradients) and T_i (the truth's, on common starts and
noise), Y_i = G_i − T_i, and X_g the sum of X over group g,

    |E X|²   ←  U_X = (|Σ X|² − Σ_g |X_g|²) / (N² − Σ_g n_g²)         unbiased: pairs of groups only
    tr Cov X ←  mean |X_i|² − U_X                                      = tr S for groups of one

so neither needs a parameter-sized vector, and deleting a group changes only sums already at hand:
    U_X(−g) = (|S|² − 2 X_g·S + 2|X_g|² − Σ|X_g|²) / ((N − n_g)² − (Σ n² − n_g²)).

The cosine that one batch of gradients can be expected to have with the truth.

ĝ, the mean of N′ gradients, is μ plus noise of covariance Σ/N′. Along the truth t it is a ~
N(μ·t/|t|, tᵀΣt/|t|²N′); across it, its square is taken to be what is expected of it,

    rest = |μ|² − (μ·t)²/|t|² + (tr Σ − tᵀΣt/|t|²)/N′,        E cos = E[a / √(a² + rest)]

which is exact for one parameter and Gaussian noise and neglects, for more, the fluctuation of the
length across: of relative size √(2/effective rank). With 1/√x = 2/√π ∫_0^∞ exp(−s² x) ds and σ² the
variance of a, the expectation is one smooth integral,

    E cos = √(2/π) m/σ ∫_0^1 exp(−w² m²/2σ² − rest w²/(2σ² (1 − w²))) dw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.quantities import TABLE

_Array = NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
_REACH = 8.0  # standard deviations of a Gaussian beyond which nothing is left


def batch_cosine(
    cross: Array, truth2: Array, along: Array, norm2: Array, trace: Array, batch: int
) -> Array:
    """E cos from μ·t, |t|², tᵀΣt/|t|², |μ|² and tr Σ, of any one shape; NaN where |t|² ≤ 0."""
    mean = cross / np.sqrt(truth2)
    along = np.clip(along, 0.0, np.maximum(trace, 0.0))
    across = np.maximum(norm2 - mean**2, 0.0) + np.maximum(trace - along, 0.0) / batch
    spread = np.maximum(along / batch, 1e-12 * mean**2)
    return expected_cosine(mean, spread, across)


def expected_cosine(mean: Array, spread: Array, rest: Array) -> Array:
    """E[a / √(a² + rest)] for a ~ N(mean, spread), spread > 0."""
    sigma = np.sqrt(spread)
    m, b = mean / sigma, rest / spread
    end = np.minimum(1.0, _REACH / np.sqrt(m**2 + b + 1e-300))
    w = 0.5 * end[..., None] * (1 + NODES)
    exponent = (w * m[..., None]) ** 2 + b[..., None] * w**2 / (1 - w**2)
    integral = 0.5 * end * (np.exp(-exponent / 2) @ WEIGHTS)
    return np.asarray(np.sqrt(2 / np.pi) * m * integral)


Array = NDArray[np.float64]
QUANTITIES = tuple(quantity.name for quantity in TABLE)
WITHOUT_TRUTH = tuple(quantity.name for quantity in TABLE if quantity.needs == "nothing")


@dataclass(frozen=True)
class Estimate:
    """A value and the values with each group left out, [G].

    Attributes:
        shares: of coordinates: signs known to agree, and signs that are not known
            (`statistics.grams`).
        parts: E G · E T, |E G|² and |E T|² of a cosine, whose errors `intervals` needs one by one.
        mean: X̄ of which a squared norm is the square: |X̄|², and the variance of X̄ along itself,
            X̄ · Cov(X̄) X̄ / |X̄|².
    """

    value: float
    left_out: Array
    shares: tuple[float, float] | None = None
    parts: tuple[Estimate, Estimate, Estimate] | None = None
    mean: tuple[float, float] | None = None


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
        Without a truth these three are None.
        critics: pair sums of G_i(critic) − their mean over C critics, summed over the critics and
            divided by C − 1.
        signs: agreement of signs (`statistics.grams`); tails: index (`statistics.tails`).
    """

    size: Array
    squares: Array
    gradient: PairSums
    truth: PairSums | None = None
    difference: PairSums | None = None
    cross: PairSums | None = None
    critics: PairSums | None = None
    signs: Estimate | None = None
    tails: Estimate | None = None


def pair_mean(sums: PairSums, size: Array) -> Estimate:
    """E X · E Z without the bias of a plug-in: pairs of different groups, of `size` [G], only."""
    n, squares = size.sum(), size * size
    whole, own = sums.left.sum(), sums.own.sum()
    left_out = (whole - own - sums.left - sums.right + 2 * sums.own) / (
        (n - size) * (n - size) - (squares.sum() - squares)
    )
    return Estimate(float((whole - own) / (n * n - squares.sum())), left_out)


def squared_norm(sums: PairSums, size: Array) -> Estimate:
    """|E X|², with what its interval needs to know of the sample's mean."""
    n, groups = size.sum(), (size > 0).sum()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        along = sums.left / n  # X_g · X̄
        square = along.sum() / n
        away = along - size * square
        spread = (away**2).sum() / n**2 * groups / (groups - 1)
        mean = float(square), float(np.float64(spread) / np.float64(square))
    return replace(pair_mean(sums, size), mean=mean)


def second_moment(moments: Moments) -> Estimate:
    """E |G_i|²."""
    return sample_mean(moments.squares, moments.size)


def sample_mean(sums: Array, size: Array) -> Estimate:
    """The mean over samples from their sums over groups, [G]."""
    n, total = size.sum(), sums.sum()
    return Estimate(float(total / n), (total - sums) / (n - size))


def combine(function: Callable[..., Array], *parts: Estimate) -> Estimate:
    """A smooth function of estimates, with the function applied to each left-out value too."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = function(*(np.asarray(part.value) for part in parts))
        left_out = function(*(part.left_out for part in parts))
    return Estimate(float(value), np.asarray(left_out, dtype=np.float64))


def length(norm2: Estimate, truth2: Estimate) -> Estimate:
    """|E G||E T|, NaN where a square is estimated below 0."""
    return combine(lambda u, t: np.sqrt(u) * np.sqrt(t), norm2, truth2)


def estimates(moments: Moments, batch: int) -> Mapping[str, Estimate]:
    """All quantities of one estimator at one horizon.

    Args:
        batch: N′ of the mean squared error, bias² + tr Cov / N′, and of `cosine_batch`.

    Returns:
        mean_norm, variance, snr, and where they were measured variance_critics and tail_index;
        with a truth also bias2, mse, gain, cosine, cosine_batch, sign_agreement and relative_mse,
        the error over that of a zero gradient, |E T|². bias2 and variance_critics may be negative
        and cosine and gain may exceed 1: they are noise-corrected and unclipped. gain is the cosine
        with the truth and has its meaning only where the truth is the gradient of the return.
    """
    norm2 = pair_mean(moments.gradient, moments.size)
    variance = combine(lambda m, u: m - u, second_moment(moments), norm2)
    # Values left out keep their sign below 0, else no spread would be seen there.
    root = combine(lambda u: np.sign(u) * np.sqrt(np.abs(u)), norm2)
    result = {
        "mean_norm": Estimate(max(root.value, 0.0), root.left_out),
        "variance": variance,
        "snr": combine(lambda u, v: u / v, norm2, variance),
    }
    if moments.critics is not None:
        result["variance_critics"] = squared_norm(moments.critics, moments.size)
    if moments.tails is not None:
        result["tail_index"] = moments.tails
    truth, cross, difference = moments.truth, moments.cross, moments.difference
    if truth is not None and cross is not None and difference is not None:
        if moments.signs is not None:
            result["sign_agreement"] = moments.signs
        result |= _against_truth(moments, truth, cross, difference, norm2, variance, batch)
    return result


def _against_truth(
    moments: Moments,
    truth: PairSums,
    crossed: PairSums,
    difference: PairSums,
    norm2: Estimate,
    variance: Estimate,
    batch: int,
) -> dict[str, Estimate]:
    truth2, cross = pair_mean(truth, moments.size), pair_mean(crossed, moments.size)
    bias2 = squared_norm(difference, moments.size)
    mse = combine(lambda b, v: b + v / batch, bias2, variance)
    along = _variance_along(moments, crossed, truth)
    ratio = combine(lambda c, r: c / r, cross, length(norm2, truth2))
    cosine = replace(ratio, parts=(cross, norm2, truth2))
    return {
        "bias2": bias2,
        "mse": mse,
        "relative_mse": combine(lambda e, t: np.where(t > 0, e / t, np.nan), mse, truth2),
        "gain": cosine,
        "cosine": cosine,
        "cosine_batch": combine(
            lambda c, t, a, u, v: batch_cosine(c, t, a, u, v, batch),
            cross, truth2, along, norm2, variance,
        ),
    }  # fmt: skip


def _variance_along(moments: Moments, crossed: PairSums, truth: PairSums) -> Estimate:
    """Variance per sample of G along the mean truth, from the projections G_g · Σ T."""
    size, p, norm2 = moments.size, crossed.left, truth.left.sum()

    def variance(n: Array, n2: Array, pp: Array, np_: Array, total: Array) -> Array:
        mean = total / n
        return np.asarray((pp - 2 * mean * np_ + mean**2 * n2) / ((n - n2 / n) * norm2))

    # Exploding chains overflow to values that are reported as lost.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        parts = (size, size**2, p**2, size * p, p)
        value = variance(*(part.sum() for part in parts))
        return Estimate(float(value), variance(*(part.sum() - part for part in parts)))
