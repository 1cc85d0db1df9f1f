"""Weights of K estimators: of least mean squared error, and of the best direction.

    mixture     argmin wᵀE w                           over w ≥ 0, Σ w = 1
    direction   argmin (w, σ − 1)ᵀ F (w, σ − 1)        over w ≥ 0, with σ = Σ w and F as in `grams`

The second is the best mixture and its scale at once; there the zero gradient competes, and much of
what mixing seems to gain is that shrinkage. Minimised over the scale alone the error is
|t|² − (E g·t)²/E |g|², so that the same w, up to scale, has the largest expected cosine of one
batch (its length taken in the mean square): what counts where the optimiser, as Adam, drops the
scale.

Of plain weights, whose scale does not count, the largest gain of one batch is

    gain        argmax b·w / √(wᵀ V w)                  over w ≥ 0, Σ w = 1
                b_k = ⟨E g_k, t⟩,  V_kl = ⟨E g_k, E g_l⟩ + tr Cov(g_k, g_l)/N′

that is w ∝ V⁻¹b where no weight is bounded, and without noise the same w as by direction where a
mixture points along the truth at all. Where none does the ratio has its maximum at a single
estimator: it is quasi-convex there.

F is estimated without bias but indefinite, and minimising it as it is chases its noise. It is
projected to the nearest positive semi-definite matrix, half of the noise that was taken out is put
back, and E gets a ridge; all with each estimator in units of its own error, so that one that
explodes does not drown the others (with a ridge of 0.1 tr(E)/K for everybody it does).

Weights of the horizons of a mixed policy gradient, by the papers' rules.

    w_i = softmax(1 / e_i)                                                   (MPG eq. 10, App. C-A)
    e_i = λ^i            for λ ≤ 1,     (2 − λ)^(max 𝕀 − i)  for λ > 1
    MPG:    λ rises linearly from 1 − η to 1 + η in T iterations and stays
    MPG-J:  e_i = λ^i, then λ^(max 𝕀 − i); λ rises from 1 − η to 1 and falls back  (eq. 10, 11)

A rule is a frozen value; called with an iteration and the horizons it gives weights that sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.statistics.grams import (
    ErrorMatrix,
    Grams,
    error_matrix,
    projected,
    units,
)
from gradlab.statistics.intervals import bootstrap_counts
from gradlab.statistics.moments import Array

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MpgWeights:
    """The rule of MPG, and, with the iterations of the whole run as its ramp, that of MPG-J.

    Attributes:
        eta: η in (0, 1); ramp: T, in iterations.
    """

    eta: float = 0.1
    ramp: int = 9000

    def __call__(self, iteration: int, horizons: Sequence[int]) -> _Floats:
        rise = 2 * self.eta * iteration / self.ramp
        base = min(1 - self.eta + rise, 1 + self.eta)
        longest, steps = max(horizons), np.array(horizons, dtype=np.float64)
        errors = base**steps if base <= 1 else (2 - base) ** (longest - steps)
        return _softmax(1 / errors)


def _softmax(values: _Floats) -> _Floats:
    # Shifted by the largest, since 1 / e reaches 1e8 where 2 − λ nears 0.
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


_RIDGE = 0.1  # of each estimator's own error
_NOISE = 0.5  # of the noise that F was corrected for
_REPLICATES = 499
_NONE = 1e-9  # of the truth's length: a mixture below is what rounding leaves of none
_UNIQUE = 1e-5  # of that caution, in the replicates behind an interval


def regularised(F: Array, matrix: ErrorMatrix, caution: float = 1.0) -> Array:
    """F (that of `matrix` or a replicate of it) with what keeps weights from chasing its noise.

    Args:
        caution: how much of that; more than 0 makes weights unique.
    """
    ridge = np.append(np.full(len(F) - 1, _RIDGE), 0.0)
    added = _NOISE * matrix.noise + np.diag(ridge * matrix.scale**2)
    return projected(F, matrix.scale) + caution * added


def simplex_weights(E: Array) -> Array:
    """argmin wᵀE w over w ≥ 0, Σ w = 1, for positive definite E [K, K].

    For two w_2 = clip((E_11 − E_12)/(E_11 + E_22 − 2 E_12), 0, 1). For more, the minimiser is along
    v = argmin ½ vᵀE v − Σ v over v ≥ 0, that is of |Lᵀv − L⁻¹1|² with E = L Lᵀ, which Lawson &
    Hanson's active sets find exactly.
    """
    if len(E) == 2:
        second = (E[0, 0] - E[0, 1]) / (E[0, 0] + E[1, 1] - 2 * E[0, 1])
        w = min(max(float(second), 0.0), 1.0)
        return np.array([1 - w, w])
    unit = np.sqrt(np.diagonal(E))
    L = np.linalg.cholesky(E / (unit[:, None] * unit))
    v = scipy.optimize.nnls(L.T, np.linalg.solve(L, 1 / unit))[0] / unit
    return np.asarray(v / v.sum())


def scaled_weights(F: Array) -> Array:
    """argmin over w ≥ 0 of the MSE of Σ w_k g_k, [K]; all 0 where none points along the truth.

    With F = RᵀR the error is |R (w, Σ w − 1)|²: least squares without squaring a condition number.
    """
    unit = np.sqrt(np.maximum(np.diagonal(F), 0.0))
    unit = np.where(unit > 0, unit, 1.0)
    values, vectors = np.linalg.eigh(F / (unit[:, None] * unit))
    R = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * unit
    A, b = R[:, :-1] + R[:, -1:], R[:, -1]
    length = np.linalg.norm(A, axis=0)
    length = np.where(length > 0, length, 1.0)
    size = np.linalg.norm(b)
    return (
        np.asarray(scipy.optimize.nnls(A / length, b / size)[0] * size / length)
        if size > 0
        else 0 * length
    )


def gain_shares(F: Array) -> Array:
    """argmax b·w / √(wᵀ V w) over w ≥ 0, Σ w = 1, for positive semi-definite F: [K]."""
    v = scaled_weights(F)
    if v.any() and _points_along(F, v):
        return np.asarray(v / v.sum())
    one = np.eye(len(F) - 1)
    return np.asarray(one[int(np.argmax([_rate(F, weights) for weights in one]))])


def _points_along(F: Array, w: Array) -> bool:
    """Is Σ w_k g_k more than what rounding leaves of no gradient at all?"""
    return _along(F, w)[0] > _NONE**2 * float(F[-1, -1])


def _rate(F: Array, w: Array) -> float:
    """What a step of unit length along Σ w_k g_k gains, to first order."""
    both, along = _along(F, w)
    return along / float(np.sqrt(both)) if both > 0 else 0.0


def optimal_scale(F: Array, w: Array) -> float:
    """s ≥ 0 of least MSE of s · Σ w_k g_k: E g·t / E |g|², below 1 for an unbiased g."""
    both, along = _along(F, w)
    return max(float(along / both), 0.0) if both > 0 else 0.0


def _along(F: Array, w: Array) -> tuple[float, float]:
    """E |Σ w g|² and E Σ w g · t."""
    z = np.append(w, w.sum())
    return float(z @ F @ z), float(z @ F[:, -1])


@dataclass(frozen=True)
class Weights:
    """Weights [K] that sum to 1 and what to multiply the mixture by, each with a 95% interval.

    Attributes:
        share: the weights; all 0 where no mixture points along the truth.
        scale: 1 for a plain mixture.
    """

    share: Array
    low: Array
    high: Array
    scale: float
    scale_low: float
    scale_high: float


Criterion = Literal["gain", "mse", "direction"]
_Fit = Callable[[Array, float], Array]  # F, caution → shares and scale, [K + 1]


def mixture_weights(grams: Grams, batch: int, by: Criterion) -> Weights:
    """Weights of K estimators, and percentiles over a bootstrap of F: F + mean_g (ω_g − 1) ψ_g.

    Replicates are fitted without caution, which pulls them all to the same side: with it intervals
    would be 40% narrower and cover in 7 cases of 10 where batches are 16 times the sample.

    Args:
        batch: N′.
        by: "mse": the convex mixture of least mean squared error, for plain gradient steps;
            "gain": that of the largest gain of one batch's step, whatever its length;
            "direction": w ≥ 0 of the largest expected cosine of one batch, and its scale of least
            MSE.
    """
    matrix = error_matrix(grams, batch)
    fit = _FITS[by](matrix)
    value = fit(matrix.value, 1.0)
    G = len(matrix.left_out)
    psi = (G - 1) * (matrix.left_out.mean(axis=0) - matrix.left_out)
    shift = (bootstrap_counts(G)[:_REPLICATES] - 1.0) @ psi.reshape(G, -1) / G
    draws = matrix.value + shift.reshape(-1, *matrix.value.shape)
    ends = np.quantile([fit(F, _UNIQUE) for F in draws], [0.025, 0.975], axis=0)
    low, high = np.minimum(ends[0], value), np.maximum(ends[1], value)
    return Weights(
        value[:-1], low[:-1], high[:-1], float(value[-1]), float(low[-1]), float(high[-1])
    )


def fitted_shares(grams: Grams, batch: int, by: Criterion) -> Array:
    """The weights of `mixture_weights`, [K], without their intervals."""
    matrix = error_matrix(grams, batch)
    return _FITS[by](matrix)(matrix.value, 1.0)[:-1]


def _mixture(matrix: ErrorMatrix) -> _Fit:
    def fit(F: Array, caution: float) -> Array:
        return np.append(simplex_weights(regularised(F, matrix, caution)[:-1, :-1]), 1.0)

    return fit


def _direction(matrix: ErrorMatrix) -> _Fit:
    """A ridge would shrink the scale, so it decides on shares only."""

    def fit(F: Array, caution: float) -> Array:
        cautious = regularised(F, matrix, caution)
        v = scaled_weights(cautious)
        if not _points_along(cautious, v):
            return np.zeros(len(F))
        share = v / v.sum()
        return np.append(share, optimal_scale(projected(F, matrix.scale), share))

    return fit


def _gain(matrix: ErrorMatrix) -> _Fit:
    level, factor = levelled(matrix)

    def fit(F: Array, caution: float) -> Array:
        shares = gain_shares(regularised(_scaled(F, factor), level, caution))
        return np.append(unlevelled(shares, factor), 1.0)

    return fit


_FITS: Mapping[Criterion, Callable[[ErrorMatrix], _Fit]] = {
    "gain": _gain,
    "mse": _mixture,
    "direction": _direction,
}


def levelled(matrix: ErrorMatrix) -> tuple[ErrorMatrix, Array]:
    """Errors of estimators brought to the length of the truth, c_k g_k, and c [K].

    So caution is in units of their directions' errors: gains do not depend on lengths, and neither
    must their weights.
    """
    K = len(matrix.value) - 1
    whole = matrix.value + matrix.noise
    size2 = np.array([_along(whole, unit)[0] for unit in np.eye(K)])
    truth2, measured = float(whole[-1, -1]), size2 > 0
    factor = np.sqrt(truth2 / np.where(measured, size2, 1.0)) if truth2 > 0 else np.ones(K)
    factor = np.where(measured, factor, 1.0)
    noise, value = _scaled(matrix.noise, factor), _scaled(matrix.value, factor)
    scale = units(np.diagonal(value + noise))
    left_out = _scaled(matrix.left_out, factor)
    return ErrorMatrix(value, left_out, projected(noise, scale), scale), factor


def _scaled(F: Array, factor: Array) -> Array:
    """F [..., K + 1, K + 1] of c_k g_k from that of g_k: c y + (c − 1) t are their errors."""
    L = np.diag(np.append(factor, 1.0))
    L[:-1, -1] = factor - 1
    return np.asarray(L @ F @ L.T)


def unlevelled(shares: Array, factor: Array) -> Array:
    """Weights of g_k from those of c_k g_k, to a sum of 1."""
    w = shares * factor
    return np.asarray(w / w.sum())
