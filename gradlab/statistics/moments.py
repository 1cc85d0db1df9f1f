"""Every estimate as a function of inner products, with its leave-one-group-out values.

For per-sample vectors G_i (an estimator's gradients) and T_i (the truth's, on common starts and
noise), Y_i = G_i − T_i, and X_g the sum of X over group g,

    |E X|²   ←  U_X = (|Σ X|² − Σ_g |X_g|²) / (N² − Σ_g n_g²)         unbiased: pairs of groups only
    tr Cov X ←  mean |X_i|² − U_X                                      = tr S for groups of one

so neither needs a parameter-sized vector, and deleting a group changes only sums already at hand:
    U_X(−g) = (|S|² − 2 X_g·S + 2|X_g|² − Σ|X_g|²) / ((N − n_g)² − (Σ n² − n_g²)).

Of a stratified sample the X_g are exchangeable
groups (`Strata`), and means over its samples count each with its weight.

The cosine that one batch of gradients can be expected to have with the truth.

ĝ, the mean of N′ gradients, is μ plus noise of covariance Σ/N′. Along the truth t it is a ~
N(μ·t/|t|, tᵀΣt/|t|²N′); across it, its square is taken to be what is expected of it,

    rest = |μ|² − (μ·t)²/|t|² + (tr Σ − tᵀΣt/|t|²)/N′,        E cos = E[a / √(a² + rest)]

which is exact for one parameter and Gaussian noise and neglects, for more, the fluctuation of the
length across: of relative size √(2/effective rank). With 1/√x = 2/√π ∫_0^∞ exp(−s² x) ds and σ² the
variance of a, the expectation is one smooth integral,

    E cos = √(2/π) m/σ ∫_0^1 exp(−w² m²/2σ² − rest w²/(2σ² (1 − w²))) dw.

Stratified samples, as independent groups to which every plain formula applies.

A pilot of n′ starts is divided into strata with the shares W_h; n_h of the n′_h = W_h n′ starts of
a stratum are drawn without replacement and measured, N = Σ n_h, each with the weight
c_h = N W_h/n_h. With X_g = c_h z_g, X̄ = Σ X_g/N and S_h² the variance of z within a stratum,

    E z        ←  X̄ = Σ_h W_h z̄_h
    Var X̄     ←  Σ_h α_h S_h² + Σ_h W_h |z̄_h − X̄|²/(n′ − 1)                              (*)
    α_h        =  (W_h d_h (n′ W_h − 1) + W_h − 1/n′)/(n′ − 1),    d_h = 1/n_h − 1/n′_h

which is unbiased: the strata's own errors, and that of their shares, which are the pilot's (double
sampling: Cochran 1977, Sampling Techniques, 12.4; its (12.24) up to 1/n′). The groups

    X̃_g = X̄ + f_h (X_g − X_(h)/n_h) + E_h,     f_h² = N(N − 1) α_h/(c_h² (n_h − 1))
    E    = √(N(N − 1)/(n′ − 1)) D⁻¹ U [√W_h (z̄_h − X̄)]_h,   D = diag √n_h,   U √W = √(n/N)

(X_(h): sums over strata, U a reflection) have the same sum, and (*) is the plain variance of their
mean. So unbiased squares, the jackknife with what it leaves out, bootstraps over groups and inner
products of them are those of the strata; where a stratum with few starts carries the variance,
the kurtosis of X̃ says how few degrees of freedom there are. X̃ is linear in X, and 1 stays 1:
second moments Σ c |z|², with the weight once, are carried over likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.quantities import TABLE

_Array = NDArray[np.float64]
_FEWEST = 2  # starts of a stratum, which have a variance


@dataclass(frozen=True, eq=False)
class Strata:
    """Which stratum each of G groups belongs to.

    Attributes:
        label: [G], 0 … H − 1; times: [H], the weights c_h; pilot: n′.

    Raises:
        InputError: a stratum with fewer than two groups.
    """

    label: NDArray[np.int64]
    times: _Array
    pilot: int

    def __post_init__(self) -> None:
        if self.count.min() < _FEWEST:
            few = np.flatnonzero(self.count < _FEWEST).tolist()
            raise InputError(
                f"strata {few} of {len(self.times)} have fewer than {_FEWEST} starts: merge them "
                f"with their neighbours"
            )

    @cached_property
    def count(self) -> _Array:
        """n_h."""
        return np.bincount(self.label, minlength=len(self.times)).astype(np.float64)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """[G]: which of its stratum's groups each is, so that halves have half of every stratum."""
        rank = np.zeros(len(self.label), dtype=np.int64)
        for h in range(len(self.times)):
            here = self.label == h
            rank[here] = np.arange(here.sum())
        return rank

    @property
    def weight(self) -> _Array:
        """c of each group, [G]."""
        return self.times[self.label]

    @cached_property
    def stretch(self) -> _Array:
        """f_h."""
        c, n, N, pilot = self.times, self.count, len(self.label), self.pilot
        W = c * n / N
        d = np.maximum(1 / n - 1 / (W * pilot), 0.0)
        alpha = (W * d * (pilot * W - 1) + W - 1 / pilot) / (pilot - 1)
        return np.asarray(np.sqrt(N * (N - 1) * np.maximum(alpha, 0.0) / (n - 1)) / c)

    @cached_property
    def shift(self) -> _Array:
        """[H, H]: X̃_g − f_h X_g from the sums over all strata."""
        c, n, N = self.times, self.count, len(self.label)
        W = c * n / N
        w, u = np.sqrt(W / W.sum()), np.sqrt(n / N)
        v = w - u
        U = np.eye(len(n)) - 2 * np.outer(v, v) / max(v @ v, 1e-300)
        between = (np.diag(1 / (c * n)) - 1 / N) * w[:, None]
        scale = np.sqrt(N * (N - 1) / (self.pilot - 1) / n)
        return np.asarray(1 / N - np.diag(self.stretch / n) + scale[:, None] * (U @ between))

    def exchangeable(self, sums: _Array) -> _Array:
        """X̃ of X [G, …]; as it is where a number is lost, which then is lost in any case."""
        if not np.isfinite(sums).all():
            return sums
        flat = sums.reshape(len(sums), -1)
        strata = np.zeros((len(self.times), flat.shape[1]))
        np.add.at(strata, self.label, flat)
        exchanged = self.stretch[self.label, None] * flat + (self.shift @ strata)[self.label]
        return np.asarray(exchanged.reshape(sums.shape))

    def squared(self, sums: _Array) -> _Array:
        """Σ c |z|² of exchangeable groups, from X̃ = Σ c z of them, [G]."""
        strata = np.zeros(len(self.times))
        np.add.at(strata, self.label, sums)
        back = np.diag(self.stretch) + self.count[:, None] * self.shift
        X = sums - (self.shift @ np.linalg.solve(back, strata))[self.label]
        return self.exchangeable((X / self.stretch[self.label]) ** 2 / self.weight)

    def some(self, groups: NDArray[np.bool_]) -> Strata:
        """Of some of the groups, with the weights that they have."""
        return Strata(self.label[groups], self.times, self.pilot)


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
        shares: of coordinates whose signs are known to agree, or not known (`statistics.grams`).
        parts: what a cosine was made of, whose errors `intervals` needs one by one.
        mean: of which a squared norm is the square.
        stratified: are the groups those of strata?
    """

    value: float
    left_out: Array
    shares: Shares | None = None
    parts: CosineParts | None = None
    mean: SampleMean | None = None
    stratified: bool = False


@dataclass(frozen=True)
class Shares:
    """Of coordinates: signs known to agree, and signs that are not known."""

    agreeing: float
    unknown: float


@dataclass(frozen=True)
class SampleMean:
    """|X̄|², and the variance of X̄ along itself, X̄ · Cov(X̄) X̄ / |X̄|²."""

    square: float
    variance_along: float


@dataclass(frozen=True)
class CosineParts:
    """E G · E T, |E G|² and |E T|²."""

    cross: Estimate
    norm2: Estimate
    truth2: Estimate

    @property
    def length(self) -> Estimate:
        """|E G||E T|, NaN where a square is estimated below 0."""
        return combine(lambda u, t: np.sqrt(u) * np.sqrt(t), self.norm2, self.truth2)


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
        squares: Σ_{i∈g} |G_i|², of a stratified sample with the weight of g.
        gradient, truth, difference: pair sums of G with G, T with T, Y with Y.
        cross: pair sums of G with T.
        Without a truth these three are None.
        critics: pair sums of G_i(critic) − their mean over C critics, summed over the critics and
            divided by C − 1.
        signs: agreement of signs (`statistics.grams`); tails: index (`statistics.tails`).
        strata: of a stratified sample, whose pair sums are those of exchangeable groups.
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
    strata: Strata | None = None

    @property
    def counted(self) -> Array:
        """The squares of exchangeable groups."""
        return self.squares if self.strata is None else self.strata.exchangeable(self.squares)


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
        mean = SampleMean(float(square), float(np.float64(spread) / np.float64(square)))
    return replace(pair_mean(sums, size), mean=mean)


def second_moment(moments: Moments) -> Estimate:
    """E |G_i|²."""
    return sample_mean(moments.counted, moments.size)


def sample_mean(sums: Array, size: Array) -> Estimate:
    """The mean over samples from their sums over groups, [G]."""
    n, total = size.sum(), sums.sum()
    return Estimate(float(total / n), (total - sums) / (n - size))


def combine(function: Callable[..., Array], *parts: Estimate) -> Estimate:
    """A smooth function of estimates, with the function applied to each left-out value too."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = function(*(np.asarray(part.value) for part in parts))
        left_out = function(*(part.left_out for part in parts))
    stratified = any(part.stratified for part in parts)
    return Estimate(float(value), np.asarray(left_out, dtype=np.float64), stratified=stratified)


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
    if moments.strata is None:
        return result
    return {name: replace(estimate, stratified=True) for name, estimate in result.items()}


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
    parts = CosineParts(cross, norm2, truth2)
    cosine = replace(combine(lambda c, r: c / r, cross, parts.length), parts=parts)
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
        squares = p**2 if moments.strata is None else moments.strata.squared(p)
        parts = (size, size**2, squares, size * p, p)
        value = variance(*(part.sum() for part in parts))
        return Estimate(float(value), variance(*(part.sum() - part for part in parts)))
