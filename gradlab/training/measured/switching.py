"""The rule that replaces a mixture's weights: only where the samples show others better.

    D(w) = loss(w) − loss(w₀)       w₀ in force; loss: wᵀE w ("mse"), or −E ĝ·t / √E |ĝ|² ("gain")
    weights   ŵ = argmin loss replaces w₀ where D(ŵ) + c se < 0,
              c = √((K − 1)(G − 1)/(G − K + 1) F_{K−1, G−K+1}(1 − α))     (Scheffé, Hotelling)
    horizon   the one of least loss replaces w₀ where w₀ is not in the 95% set of the K and w₀

Groups are left out in turn, so that what w and w₀ share cancels; where every true D ≥ 0 either is
wrong in at most α = 5%, although ŵ is chosen on the same groups. Weights keep a floor, (1 − s) ŵ +
s/K, s the largest share up to α whose price is at most one standard error of loss(ŵ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.statistics.grams import ErrorMatrix, Grams, error_matrix
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.mixing import (
    gain_shares,
    levelled,
    regularised,
    simplex_weights,
    unlevelled,
)
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.selection import RankSet, smallest

ALPHA = 0.05
_HALVINGS = 60  # of the floor, until its price is small enough
By = Literal["mse", "gain"]


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

    def gain(self, weights: Array) -> Estimate:
        """E ĝ·t / √E |ĝ|² of one batch; not finite where |ĝ| is not distinguishable from 0."""
        z = np.append(weights, np.sum(weights))
        value = _rate(self.found.value, z)
        return Estimate(float(value), np.asarray(_rate(self.found.left_out, z)))

    def loss(self, weights: Array, by: By) -> Estimate:
        """What a better mixture has less of."""
        if by == "mse":
            return self.mse(weights)
        gain = self.gain(weights)
        return Estimate(-gain.value, -gain.left_out)


def _rate(F: Array, z: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((F[..., -1] @ z) / np.sqrt(F @ z @ z))


def errors(grams: Grams, batch: int) -> Errors:
    matrix = error_matrix(grams, batch)
    return Errors(matrix.value[:-1, :-1], matrix.left_out[:, :-1, :-1], matrix)


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a measurement proposes in the place of what is in force.

    Attributes:
        weights: [K].
        better: are they shown to be better?
        gain: loss in force − loss proposed; least: the smallest gain that the samples allow.
        kept: [K], the horizons that may have the least loss (95%).
    """

    weights: Array
    better: bool
    gain: float
    least: float
    kept: NDArray[np.bool_]


def propose_weights(measured: Errors, in_force: Array, by: By = "mse") -> Proposal:
    """The mixture of least loss, with its floor."""
    if by == "mse":
        E = regularised(measured.found.value, measured.found)[:-1, :-1]
        weights = floored(simplex_weights(E), measured, E)
    else:
        weights = _of_gain(measured)
    gain, least = _gain(measured, weights, in_force, by)
    ranks = _ranked(_singles(measured, by))
    kept = np.ones(len(weights), dtype=bool) if ranks is None else ranks.kept
    return Proposal(weights, least > 0, gain, least, kept)


def propose_horizon(measured: Errors, in_force: Array, by: By = "mse") -> Proposal:
    """The single estimator of least loss."""
    singles = _singles(measured, by)
    ranks, among = _ranked(singles), _ranked([*singles, measured.loss(in_force, by)])
    if ranks is None or among is None:
        K = len(singles)
        return Proposal(np.eye(K)[0], False, np.nan, np.nan, np.ones(K, dtype=bool))
    weights = np.eye(len(singles))[ranks.best]
    gain, least = _gain(measured, weights, in_force, by)
    better = not among.kept[-1] and not among.unknown[-1]
    return Proposal(weights, better, gain, least, ranks.kept)


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


def _of_gain(measured: Errors) -> Array:
    """The mixture of largest gain, with a floor likewise: by halving s, of gradients of one
    length."""
    level, factor = levelled(measured.found)
    F = regularised(level.value, level)
    shares = gain_shares(F)
    allowed = jackknife_se(measured.gain(unlevelled(shares, factor)).left_out)
    before = _rate(F, np.append(shares, 1.0))
    for halving in range(_HALVINGS):
        share = ALPHA / 2**halving
        kept = (1 - share) * shares + share / len(shares)
        if before - _rate(F, np.append(kept, 1.0)) <= allowed:
            return unlevelled(kept, factor)
    return unlevelled(shares, factor)


def _gain(measured: Errors, weights: Array, in_force: Array, by: By) -> tuple[float, float]:
    """The gain, and its limit by Scheffé's bound."""
    new, old = measured.loss(weights, by), measured.loss(in_force, by)
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
    return float(np.sqrt(ratio * scipy.stats.f.isf(ALPHA, directions, free)))


def _singles(measured: Errors, by: By) -> list[Estimate]:
    return [measured.loss(unit, by) for unit in np.eye(len(measured.value))]


def _ranked(candidates: list[Estimate]) -> RankSet | None:
    """None where the loss of no candidate is a number."""
    finite = [
        np.isfinite(candidate.value) and np.isfinite(candidate.left_out).all()
        for candidate in candidates
    ]
    return smallest(candidates) if any(finite) else None
