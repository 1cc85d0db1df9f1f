"""Certified Jacobians of a batched map that cannot be differentiated otherwise.

    J e_i ≈ (f(z + ε e_i) - f(z - ε e_i)) / 2ε,      z = (s, a),   all perturbed rows in one batch

Where a contact or a limit switches inside the stencil, the difference is smooth-looking and wrong.
One extra pair along a random direction d at ε/10 tells: flag where |J d - D_d| > 3e-3 max|J|,
retry the flagged states at ε/10, keep the flag where that fails too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BatchedStep = Callable[[Array, Array], Array]

TOLERANCE = 3e-3
# Its own stream, and one direction for all states: values depend neither on the user's random
# state nor on the batch a state is in.
DIRECTION_SEED = 20210611


@dataclass(frozen=True)
class CertifiedJacobian:
    """A [N, ds, ds], B [N, ds, da], flags [N], and relative errors [N] of A and B.

    The errors are the certificate's whole residual relative to the block's largest entry, so they
    bound the truncation and rounding that the direction saw from above, not from below.
    """

    A: Array
    B: Array
    flags: NDArray[np.bool_]
    error_A: Array
    error_B: Array


def certified_jacobian(
    step: BatchedStep, state: Array, action: Array, low: Array, high: Array, epsilon: float
) -> CertifiedJacobian:
    """Jacobians of `step(state [M, ds], action [M, da]) -> [M, ds]`, whose rows are independent.

    Args:
        step: clips the action to [low, high] [da]. On a limit the inside one-sided derivative is
            returned (uncertified: the direction leaves that action out), beyond it 0.
        epsilon: step of the central differences.
    """
    first = _differences(step, state, action, low, high, epsilon)
    retry = np.flatnonzero(first.flags)
    if len(retry) == 0:
        return first
    again = _differences(step, state[retry], action[retry], low, high, epsilon / 10)
    better = ~again.flags
    rows = retry[better]

    def merged(name: str) -> Any:
        values = getattr(first, name).copy()
        values[rows] = getattr(again, name)[better]
        return values

    return CertifiedJacobian(*(merged(field.name) for field in fields(first)))


def _differences(
    step: BatchedStep, state: Array, action: Array, low: Array, high: Array, epsilon: float
) -> CertifiedJacobian:
    ds, z = state.shape[1], np.concatenate([state, action], 1)
    floor = np.concatenate([np.full(ds, -np.inf), low])
    ceiling = np.concatenate([np.full(ds, np.inf), high])
    inside = (z - epsilon >= floor) & (z + epsilon <= ceiling)
    direction = _direction(z.shape[1]) * inside

    ahead = _stencil(z, epsilon, direction).clip(floor, ceiling)
    behind = _stencil(z, -epsilon, direction).clip(floor, ceiling)
    rows = np.concatenate([ahead, behind]).reshape(-1, z.shape[1])
    after = step(rows[:, :ds], rows[:, ds:]).reshape(2, *ahead.shape[:2], ds)
    change = after[0] - after[1]

    # The distance really stepped: rounded, halved on a limit, and endless (derivative 0) beyond.
    stepped = np.diagonal(ahead - behind, axis1=0, axis2=2)
    stepped = np.where((z >= floor) & (z <= ceiling), stepped, np.inf)
    J = np.moveaxis(change[:-1], 0, 2) / stepped[:, None, :]
    along = change[-1] / (0.2 * epsilon)
    return _certify(J, along, direction, ds)


def _stencil(z: Array, epsilon: float, direction: Array) -> Array:
    """z + ε e_i for every coordinate i, then z + ε/10 d. [ds + da + 1, N, ds + da]."""
    n, width = z.shape
    axes = np.broadcast_to(np.eye(width)[:, None], (width, n, width))
    points: Array = z + np.concatenate([epsilon * axes, 0.1 * epsilon * direction[None]])
    return points


def _certify(J: Array, along: Array, direction: Array, ds: int) -> CertifiedJacobian:
    residual = np.abs(np.einsum("nij,nj->ni", J, direction) - along).max(1)
    A, B = J[:, :, :ds].copy(), J[:, :, ds:].copy()
    # Written so that a NaN is flagged.
    flags = ~(residual <= TOLERANCE * np.abs(J).max((1, 2)))
    tiny = np.finfo(np.float64).tiny
    largest_A = np.maximum(np.abs(A).max((1, 2)), tiny)
    largest_B = np.abs(B).max((1, 2))
    # B = 0 beyond the limits is exact.
    error_B = np.where(largest_B > 0, residual / np.maximum(largest_B, tiny), 0.0)
    return CertifiedJacobian(A, B, flags, residual / largest_A, error_B)


def _direction(width: int) -> Array:
    direction = np.random.default_rng(DIRECTION_SEED).standard_normal(width)
    return direction / np.linalg.norm(direction)
