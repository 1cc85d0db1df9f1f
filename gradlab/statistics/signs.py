"""Agreement of two mean gradients about the sign of each parameter's step.

    share = ½ + ½ Σ_p a_p b_p / Σ_p |a_p b_p|,     a = 2 Φ(z) − 1

with z the mean of a coordinate over its standard error, of the estimator (a) and of the truth (b):
soft signs, so that a coordinate counts by how well both signs are known and one that is lost in
noise does not count; with hard signs it would pull the share to ½, and the jackknife, which needs a
smooth function, would not hold. With enough samples it is the plain share v of equal signs. Until
then the u = 1 − mean |a b| that is not known may be right or wrong: the interval of the share of
all coordinates runs from (1 − u) v to (1 − u) v + u, each less or plus its sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from gradlab.statistics.moments import Array, Estimate


@dataclass(frozen=True)
class SoftSigns:
    """Signs of C coordinates of a mean, [C], and with each group left out, [G, C]."""

    value: Array
    left_out: Array


def soft_signs(sums: Array, size: Array) -> SoftSigns:
    """Soft signs of the mean.

    Args:
        sums: [G, C], sums of the samples of each group; size: [G], how many they are.
    """
    groups = np.count_nonzero(size)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = sums.sum(axis=0)
        spread = sums - size[:, None] * (total / size.sum())
        error = np.sqrt((spread**2).sum(axis=0) * groups / max(groups - 1, 1))
        scale = np.where(error > 0, np.sqrt(0.5) / error, 0.0)
        certain = np.where(error > 0, 0.0, np.sign(total))
        value = scipy.special.erf(scale * total) + certain
        left_out = scipy.special.erf(scale * (total - sums)) + certain
    return SoftSigns(value, left_out)


def sign_agreement(estimator: SoftSigns, truth: SoftSigns) -> Estimate:
    """Share of coordinates whose signs agree, its slack the unknown; NaN where none is known."""

    def share(a: Array, b: Array) -> Array:
        with np.errstate(invalid="ignore"):
            product = a * b
            return np.asarray(0.5 + 0.5 * product.sum(axis=-1) / np.abs(product).sum(axis=-1))

    value = share(estimator.value, truth.value)
    unknown = 1 - float(np.abs(estimator.value * truth.value).mean())
    return Estimate(float(value), share(estimator.left_out, truth.left_out), unknown)
