"""Agreement of two mean gradients about the sign of each parameter's step.

    share = ½ + ½ Σ_p a_p b_p / Σ_p |a_p b_p|,     a = 2 Φ(z) − 1

with z the mean of a coordinate over its standard error, of the estimator (a) and of the truth (b):
soft signs, so that a coordinate counts by how well both signs are known; with hard signs those that
noise decides would pull the share to ½. With enough samples it is the plain share of equal signs.

The interval makes no use of that average. A sign is known where |z| exceeds a quantile at which all
signs of both means together are right in 95% (Bonferroni); a coordinate with an unknown one may
agree or not. So it runs from the share that is known to agree, by the share that is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from gradlab.statistics.intervals import student
from gradlab.statistics.moments import Array, Estimate, Shares

WRONG = 0.05  # probability that any sign of the two means is taken for known and is wrong


@dataclass(frozen=True)
class SoftSigns:
    """Signs of C coordinates of a mean, [C], and with each group left out, [G, C].

    Attributes:
        known: [C], ±1 where the sign is known, else 0.
    """

    value: Array
    left_out: Array
    known: Array


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
        reach = student(max(float(groups) - 1, 1.0), 1 - WRONG / (2 * sums.shape[1]))
        known = np.where(error > 0, np.sign(total) * (np.abs(total) > reach * error), certain)
    return SoftSigns(value, left_out, known)


def sign_agreement(estimator: SoftSigns, truth: SoftSigns) -> Estimate:
    """Share of coordinates whose signs agree, and what is known of it; NaN where nothing varies."""

    def share(a: Array, b: Array) -> Array:
        with np.errstate(invalid="ignore"):
            product = a * b
            return np.asarray(0.5 + 0.5 * product.sum(axis=-1) / np.abs(product).sum(axis=-1))

    value = share(estimator.value, truth.value)
    agree = estimator.known * truth.known
    signs = Shares(float((agree > 0).mean()), float((agree == 0).mean()))
    return Estimate(float(value), share(estimator.left_out, truth.left_out), shares=signs)
