"""Do other weights of a mixture replace those in force? Only where the samples show them better.

    D(w) = MSE(w) − MSE(w₀) = wᵀE w − w₀ᵀE w₀         w₀ in force, E of `grams`, without bias

on one and the same groups, each left out in turn, so that what w and w₀ have in common cancels.

    weights   ŵ = argmin wᵀE w replaces w₀ where D(ŵ) + c se < 0, c Scheffé's bound
    horizon   the one of least MSE replaces w₀ where w₀ is not in the 95% set of the K and w₀

Where every true D ≥ 0 either happens in at most α = 5% of measurements, although ŵ is chosen on the
groups that judge it. D is linear where errors are equal: then no direction ŵ − w₀ among K − 1 of
them has a statistic beyond c = √((K − 1)(G − 1)/(G − K + 1) F_{K−1, G−K+1}(1 − α)), Hotelling's. A
curved D adds to D(ŵ) what its direction gains, and is further on the safe side.

Weights keep a floor, (1 − s) ŵ + s/K: s is the largest share up to α, the rate at which a
measurement may be wrong, whose price is at most one standard error of MSE(ŵ). So no estimator is
given up on one measurement, and one that explodes is not kept at any price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gradlab.statistics.grams import ErrorMatrix, Grams, error_matrix
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.mixing import regularised, simplex_weights
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.selection import smallest

ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Errors:
    """E [K, K] at a batch size, and without each group [G, K, K]; `found` is F, of which it is a
    part."""

    value: Array
    left_out: Array
    found: ErrorMatrix

    def mse(self, weights: Array) -> Estimate:
        """wᵀE w of weights that sum to 1."""
        w = np.asarray(weights, dtype=np.float64)
        return Estimate(float(w @ self.value @ w), (self.left_out @ w) @ w)


def errors(grams: Grams, batch: int) -> Errors:
    found = error_matrix(grams, batch)
    return Errors(found.value[:-1, :-1], found.left_out[:, :-1, :-1], found)


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a measurement proposes in the place of what is in force.

    Attributes:
        weights: [K].
        better: are they shown to be better?
        gain: MSE in force − MSE proposed; least: the smallest gain that the samples allow.
        kept: [K], the horizons that may have the least MSE (95%).
    """

    weights: Array
    better: bool
    gain: float
    least: float
    kept: NDArray[np.bool_]


def propose_weights(measured: Errors, in_force: Array) -> Proposal:
    """The mixture of least MSE, with its floor."""
    E = regularised(measured.found.value, measured.found)[:-1, :-1]
    weights = floored(simplex_weights(E), measured, E)
    gain, least = _gain(measured, weights, in_force)
    return Proposal(weights, least > 0, gain, least, smallest(_singles(measured)).kept)


def propose_horizon(measured: Errors, in_force: Array) -> Proposal:
    """The single estimator of least MSE."""
    singles = _singles(measured)
    ranks = smallest([*singles, measured.mse(in_force)])
    weights = np.eye(len(singles))[int(np.argmin([each.value for each in singles]))]
    gain, least = _gain(measured, weights, in_force)
    return Proposal(weights, not ranks.kept[-1], gain, least, smallest(singles).kept)


def floored(weights: Array, measured: Errors, E: Array) -> Array:
    """(1 − s) w + s/K, with s as above; E [K, K] positive semi-definite."""
    K = len(weights)
    v = 1 / K - weights
    allowed = jackknife_se(measured.mse(weights).left_out)
    along, across = max(float(v @ E @ weights), 0.0), max(float(v @ E @ v), 0.0)
    # s² across + 2 s along = allowed, solved without cancellation
    root = along + np.sqrt(along**2 + across * allowed)
    share = min(allowed / root, ALPHA) if root > 0 else ALPHA
    return np.asarray(weights + share * v)


def _gain(measured: Errors, weights: Array, in_force: Array) -> tuple[float, float]:
    """The gain, and its limit by Scheffé's bound."""
    new, old = measured.mse(weights), measured.mse(in_force)
    gain, groups = old.value - new.value, len(old.left_out)
    return gain, gain - _scheffe(len(weights) - 1, groups) * jackknife_se(
        old.left_out - new.left_out
    )


def _scheffe(directions: int, groups: int) -> float:
    """c: with 95%, no mean of G groups along any direction is beyond c of its standard errors."""
    free = groups - directions
    if free < 1:
        return float(np.inf)
    ratio = directions * (groups - 1) / free
    return float(np.sqrt(ratio * stats.f.isf(ALPHA, directions, free)))


def _singles(measured: Errors) -> list[Estimate]:
    return [measured.mse(each) for each in np.eye(len(measured.value))]
