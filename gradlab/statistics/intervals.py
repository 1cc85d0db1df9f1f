"""95% intervals from leave-one-group-out values.

    se² = (G − 1)/G Σ_g (θ_(−g) − θ̄)²                     the jackknife over groups
    t   = (θ̂ − θ)/se is normal only up to its skewness a = γ/√G, γ that of the pseudo-values;
    g(t) = ((1 + a t/3)³ − 1)/a + a/6 is, one order further      (Hall 1992, J. R. Stat. Soc. B 54)

so the ends are θ̂ − t se at g(t) = ± Student's quantile, with the degrees of freedom that the
kurtosis of the pseudo-values leaves to se. Each quantity has the scale on which that
covers best (`reports/coverage`):
    bias2, variance_critics   noncentral χ² of the squared mean (`squared_means`)
    mean_norm                 the root of a squared norm's, on the scale of the norm (see below)
    variance                  as it is          mse, relative_mse, snr   in the square root
    gain, cosine              1 − |cosine| as a squared norm, which it is near 0 (see below)
    cosine_batch              that, or the probit of (1 + cosine)/2, whichever reaches further: in
                              one dimension it is the share of batches that point the right way
    sign_agreement            signs that are known to agree, and those that may
    tail_index                normal in the logarithm

A squared norm b² = |E Y|² estimated by U is quadratic where b is small: there U hardly knows its
own spread. bias2 is made of the normal mean that it is the square of (`squared_means`). Elsewhere
the root serves, which is linear: with s/√G the error of Ȳ along itself, b̂ = m solves
m² = U + s²/G and s = sd(ψ)/2m; the upper end is (m + t s/√G)².

A cosine ĉ = a/r, r = |E G||E T|, is a ratio. Its inner products are unbiased, ĉ is not: the
jackknife takes out of 1 − |ĉ| what is of the order 1/G. And tested against c its error is that of
(a − c r)/r, not of a/r (Fieller 1954, J. R. Stat. Soc. B 16), which falls with 1 − |ĉ|: where
gradients are products of states it is too small by half where it is smallest. So each end is made
again with the error that holds where it was made first, if that is larger; what it adds to s is of
lengths, in proportion to the gap m₁² there:
    s² = (se(ĉ)²/m² + max(se(c)² − se(ĉ)², 0)/m₁²)/4
Tested against 0 it is a alone, and lengths that are not distinguishable from zero leave its sign
known: where the interval holds 0 and that of a does not, it ends at the least a over the largest r
instead.

Never the percentile bootstrap with duplicates: it covers a squared bias in 38 cases of 100.

Ends of b² = |E Y|², the square of a mean that is all but normal.

With v the variance of Ȳ along itself, and τ = |Ȳ|² − U that in all directions, as if Ȳ varied as
much in each of τ/v dimensions,

    |Ȳ|²/v  ~  χ²(τ/v, b²/v)        noncentral, b²/v by which |Ȳ|²/v has the level of either end

which holds down to b = 0, where the jackknife of U, a degenerate U-statistic, has twice its
variance, and no scale makes U symmetric. There the upper end cannot miss: 97.5% is
covered. v is estimated with the products of each Y_g with itself, Ȳ · Ĉov(Ȳ) Ȳ / |Ȳ|², and without
them, se(U)²/4|Ȳ|²; they differ where Y is skewed, and the upper end takes the larger one. A sample
whose |Ȳ|² is smaller than a mean of 0 would have it does not show that b is 0: the upper end is at
least that at the 16% quantile (power-constrained: Cowan, Cranmer, Gross & Vitells 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.statistics.moments import Array, Estimate, length
from gradlab.statistics.quantities import QUANTITIES

NORMAL_FROM, NORMAL_BEYOND = 1e4, 5.0  # χ² and quantiles from which its root is as good
_UNUSUAL = 0.16  # share of samples in which |Ȳ|² is taken for larger than it is


def noncentral_ends(
    value: float, mean: tuple[float, float] | None, se: float, quantiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Both ends of b²; None where the mean is not known (files do not hold it) or has no error.

    Args:
        value: U; se: its jackknife's; quantiles: of the studentised estimate, below and above.
    """
    if mean is None:
        return None
    square, along = mean
    whole = square - value
    numbers = whole, se, square, along
    if not (np.isfinite(numbers).all() and min(numbers) > 0):
        return None
    below, above = quantiles
    # No direction varies more than all of them do.
    v = min(along, whole)
    larger = min(max(along, se**2 / (4 * square)), whole)
    low = v * noncentrality(square / v, whole / v, above)
    dimensions = whole / larger
    least = 2 * float(scipy.special.gammaincinv(dimensions / 2, _UNUSUAL))
    return low, larger * noncentrality(max(square / larger, least), dimensions, below)


def noncentrality(x: float, dimensions: float, quantile: float) -> float:
    """λ for which χ²(dimensions, λ) ≤ x as often as a normal number is below its quantile.

    0 where it is less often so for every λ.
    """
    if x < NORMAL_FROM and abs(quantile) < NORMAL_BEYOND:
        level = float(scipy.special.ndtr(quantile))
        if not scipy.special.gammainc(dimensions / 2, x / 2) > level:
            return 0.0
        return float(scipy.special.chndtrinc(x, dimensions, level))
    # √(χ² − (d − 1)/2) is all but normal: mean √(λ + (d − 1)/2), variance 1.
    half = (dimensions - 1) / 2
    root = max(x - half, 0.0) ** 0.5 - quantile
    return float(root**2 - half) if root > half**0.5 else 0.0


Z = 1.959963984540054
_REPLICATES = 1999
LEVEL = 0.975  # of each end
_CERTAIN = 1 - 1e-15  # the largest cosine with a finite probit


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    se: float
    method: str


def jackknife_se(left_out: Array) -> float:
    """Standard error from values with each group left out, [G]."""
    g = len(left_out)
    return float(np.sqrt((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum()))


def pseudo_values(estimate: Estimate) -> Array:
    """θ + (G − 1)(θ̄ − θ_(−g)): behave like G independent draws whose mean is the estimate."""
    g = len(estimate.left_out)
    centred = estimate.left_out.mean() - estimate.left_out
    return np.asarray(estimate.value + (g - 1) * centred, dtype=np.float64)


def interval(quantity: str, estimate: Estimate, level: float = LEVEL) -> Interval:
    """The interval of one quantity, 95% unless another level of each end is given."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if not np.isfinite(estimate.value) or not np.isfinite(estimate.left_out).all():
            # All that the quantity can be; of a cosine, what its sign allows.
            low, high = QUANTITIES[quantity].range
            if not np.isfinite((low, high)).all():
                low = high = np.nan
            low, high = _signed(estimate.parts, low, high, level)
            return Interval(low, high, np.nan, "undefined: lost in noise")
        se = jackknife_se(estimate.left_out)
        if not np.isfinite(se):
            return Interval(np.nan, np.nan, np.nan, "undefined: overflows")
        return METHODS[QUANTITIES[quantity].interval](estimate, se, level)


def skewness_corrected(estimate: Estimate, level: float = LEVEL) -> tuple[float, float]:
    """The ends on the scale of the estimate itself, each of them at this level."""
    se, (below, above) = jackknife_se(estimate.left_out), _t_quantiles(estimate.left_out, level)
    return estimate.value - above * se, estimate.value - below * se


def _t_quantiles(left_out: Array, level: float = LEVEL) -> tuple[float, float]:
    """Quantiles of (θ̂ − θ)/se, 2.5% and 97.5%, given what the pseudo-values say of both."""
    groups = len(left_out)
    psi = left_out.mean() - left_out
    z = student(freedom(left_out), level)
    scale = float(np.abs(psi).max())
    if not (np.isfinite(scale) and scale > 0):
        return -z, z
    psi = psi / scale
    a = float((psi**3).mean() / (psi**2).mean() ** 1.5) / groups**0.5
    return _inverse(a, -z), _inverse(a, z)


def freedom(left_out: Array) -> float:
    """Degrees of freedom of se², as the kurtosis κ of the G pseudo-values has them.

    Var s² = σ⁴ (κ − 1)/G, and Student's quantile belongs to 2σ⁴/ν (Satterthwaite 1946, Biometrics
    Bull. 2): ν = 2G/(κ − 1), at most G − 1. The heavier the tails, the less se is known.
    """
    groups = len(left_out)
    psi = left_out - left_out.mean()
    scale = float(np.abs(psi).max())
    if not (np.isfinite(scale) and scale > 0):
        return groups - 1.0
    squares = (psi / scale) ** 2
    kurtosis = float((squares**2).mean() / squares.mean() ** 2)
    return min(groups - 1.0, 2 * groups / max(kurtosis - 1, 1e-12))


def _inverse(a: float, z: float) -> float:
    """t with g(t) = z."""
    return z if abs(a) < 1e-6 else 3 / a * (float(np.cbrt(1 + a * (z - a / 6))) - 1)


def student(freedom: float, level: float = LEVEL) -> float:
    """Student's quantile."""
    return float(scipy.special.stdtrit(freedom, level))


def _squared_norm(estimate: Estimate, se: float, level: float) -> Interval:
    quantiles = _t_quantiles(estimate.left_out, level)
    ends = noncentral_ends(estimate.value, estimate.mean, se, quantiles)
    if ends is not None:
        return Interval(*ends, se, "noncentral χ² of the squared mean, with skewness")
    low, high = _squared_ends(estimate, se, level)
    return Interval(low, high, se, "U-statistic, jackknife with skewness")


def _squared_ends(estimate: Estimate, se: float, level: float) -> tuple[float, float]:
    """Lower end on the raw scale, upper end on the scale of the norm; both from 0."""
    low, raw = skewness_corrected(estimate, level)
    below, _ = _t_quantiles(estimate.left_out, level)
    m2 = (estimate.value + np.hypot(estimate.value, se)) / 2
    if not m2 > 0:
        return max(low, 0.0), max(raw, 0.0)
    m = m2**0.5
    return max(low, 0.0), max(m - below * se / (2 * m), 0.0) ** 2


def _norm(estimate: Estimate, se: float, level: float) -> Interval:
    square = Estimate(estimate.value**2, estimate.left_out * np.abs(estimate.left_out))
    low, high = _squared_ends(square, jackknife_se(square.left_out), level)
    return Interval(low**0.5, high**0.5, se, "jackknife with skewness, of the square")


def _variance(estimate: Estimate, se: float, level: float) -> Interval:
    low, high = skewness_corrected(estimate, level)
    return Interval(max(low, 0.0), max(high, 0.0), se, "jackknife with skewness")


def _root(estimate: Estimate, se: float, level: float) -> Interval:
    if estimate.value <= 0 or (estimate.left_out <= 0).any():
        return _variance(estimate, se, level)
    low, high = skewness_corrected(
        Estimate(estimate.value**0.5, np.asarray(np.sqrt(estimate.left_out))), level
    )
    method = "jackknife with skewness, of the root"
    return Interval(max(low, 0.0) ** 2, max(high, 0.0) ** 2, se, method)


def _cosine(estimate: Estimate, se: float, level: float) -> Interval:
    """By 1 − |cosine|, near 0 a squared norm like any other: the part across the truth."""
    side = 1.0 if estimate.value >= 0 else -1.0
    gap = Estimate(1 - side * estimate.value, 1 - side * estimate.left_out, parts=estimate.parts)
    near, far = (_squared_ends if gap.parts is None else _ratio_ends)(gap, se, level)
    low, high = np.clip(sorted((side * (1 - far), side * (1 - near))), -1.0, 1.0)
    low, high = _signed(estimate.parts, float(low), float(high), level)
    return Interval(low, high, se, "jackknife with skewness, of 1 − |cosine|")


def _batch_direction(estimate: Estimate, se: float, level: float) -> Interval:
    """The wider of two scales at either end: neither is straight in all dimensions."""
    near = _cosine(estimate, se, level)
    low, high = skewness_corrected(
        Estimate(float(_probit(estimate.value)), _probit(estimate.left_out)), level
    )
    ends = 2 * scipy.special.ndtr([low, high]) - 1
    method = f"{near.method}, or of its probit"
    return Interval(min(near.low, ends[0]), max(near.high, ends[1]), se, method)


def _probit(cosine: float | Array) -> Array:
    """Φ⁻¹((1 + cosine)/2), finite for ±1."""
    return np.asarray(scipy.special.ndtri((1 + np.clip(cosine, -_CERTAIN, _CERTAIN)) / 2))


def _signed(
    parts: tuple[Estimate, Estimate, Estimate] | None, low: float, high: float, level: float
) -> tuple[float, float]:
    """The interval without the side of 0 on which E G · E T is known not to lie."""
    if parts is None or not low <= 0 <= high:
        return low, high
    least, most = skewness_corrected(parts[0], level)
    squares = (_squared_ends(square, jackknife_se(square.left_out), level) for square in parts[1:])
    longest = float(np.sqrt(np.prod([end for _, end in squares])))
    if not longest > 0:
        return low, high
    if least > 0:
        return min(least / longest, high), high
    return (low, max(most / longest, low)) if most < 0 else (low, high)


def _ratio_ends(raw: Estimate, se: float, level: float) -> tuple[float, float]:
    """Ends of 1 − |cosine|, without its bias and with the errors that it has at either end."""
    groups = len(raw.left_out)
    gap = replace(raw, value=groups * raw.value - (groups - 1) * float(raw.left_out.mean()))
    near, far = _squared_ends(gap, se, level)
    m2 = (gap.value + np.hypot(gap.value, se)) / 2
    if not m2 > 0:
        return near, far
    at_near, at_far = _tested_at(gap, near), _tested_at(gap, far)
    below, above = _t_quantiles(gap.left_out, level)[0], _t_quantiles(at_near, level)[1]
    lengths = max(jackknife_se(at_far) ** 2 - se**2, 0.0)
    s = (se**2 / m2 + lengths / max(far, m2)) ** 0.5 / 2
    return (
        max(gap.value - above * max(jackknife_se(at_near), se), 0.0),
        max(m2**0.5 - below * s, 0.0) ** 2,
    )


def _tested_at(gap: Estimate, there: float) -> Array:
    """Left-out values of (c r − a)/r at c = 1 − `there`."""
    assert gap.parts is not None
    r = length(*gap.parts[1:])
    return np.asarray((gap.left_out - there) * r.left_out / r.value)


def _share(estimate: Estimate, se: float, level: float) -> Interval:
    """From what is known to be so, by what is not known; no sampling error is left in either."""
    assert estimate.shares is not None
    low, unknown = estimate.shares
    return Interval(low, low + unknown, se, f"signs of {unknown:.0%} are not known")


def _logarithm(estimate: Estimate, se: float, level: float) -> Interval:
    if estimate.value <= 0 or (estimate.left_out <= 0).any():
        return _variance(estimate, se, level)
    factor = float(np.exp(scipy.special.ndtri(level) * jackknife_se(np.log(estimate.left_out))))
    low, high = estimate.value / factor, estimate.value * factor
    return Interval(low, high, se, "jackknife of the logarithm")


METHODS: Mapping[str, Callable[[Estimate, float, float], Interval]] = {
    "squared norm": _squared_norm,
    "norm": _norm,
    "plain": _variance,
    "root": _root,
    "direction": _cosine,
    "batch direction": _batch_direction,
    "share": _share,
    "logarithm": _logarithm,
}


@lru_cache(maxsize=4)
def bootstrap_counts(groups: int) -> NDArray[np.float64]:
    """How often each group is drawn, [_REPLICATES, groups]; the same draws for every quantity."""
    generator = np.random.default_rng([20_240_501, groups])
    even = np.full(groups, 1.0 / groups)
    return generator.multinomial(groups, even, size=_REPLICATES).astype(np.float64)
