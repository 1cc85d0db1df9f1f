"""Certified Jacobians of a batched map that cannot be differentiated otherwise.

    J e_i ≈ (f(z + ε e_i) - f(z - ε e_i)) / 2ε,      z = (s, a),   all perturbed rows in one batch

Where a contact or a limit switches inside the stencil, the difference is smooth-looking and wrong.
One extra pair along a random direction d at ε/10 detects it: a sample is flagged where
|J d - D_d| > 3e-3 max|J|. Flagged samples are differenced again at ε/10, ε/100 and ε/1000, which
reach less of a switch. A sample that is flagged at every step keeps its flag and the Jacobian of
the first step, in which a jump weighs least (jump/2ε). States on curved spaces (quaternions) move
along tangents: z + ε e_i and the difference are then those of a `_Displacements`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_BatchedStep = Callable[[_Array, _Array], _Array]

_TOLERANCE = 3e-3
# Of ε. Rounding makes an error of 1e-7 at MuJoCo's ε/100, 1e-6 at ε/1000; smaller steps drown.
_RETRIES = (0.1, 0.01, 0.001)
MOST_ROWS = 8192  # perturbed rows held at once
# Its own stream, and one direction for all states: values depend neither on the user's random
# state nor on the batch a state is in.
_DIRECTION_SEED = 20210611


class _Displacements(Protocol):
    """How states move: s ⊕ δ, and what lies between two states, s' ⊖ s.

    `tangent_dim` is the width of δ; `between` may be wider, with its last entries in δ's order.
    """

    @property
    def tangent_dim(self) -> int: ...

    def displaced(self, state: _Array, tangent: _Array) -> _Array: ...

    def between(self, end: _Array, begin: _Array) -> _Array: ...


@dataclass(frozen=True)
class _Flat:
    """Plain vectors."""

    tangent_dim: int

    def displaced(self, state: _Array, tangent: _Array) -> _Array:
        return state + tangent

    def between(self, end: _Array, begin: _Array) -> _Array:
        return end - begin


@dataclass(frozen=True)
class _LimitedStep:
    """A step that clips its action to [low, high] [da], and how its states move."""

    step: _BatchedStep
    low: _Array
    high: _Array
    moves: _Displacements

    def changes(
        self, state: _Array, action: _Array, shift: _Array
    ) -> tuple[_Array, list[_Array], list[_Array]]:
        """f(z ⊕ shift) ⊖ f(z ⊕ −shift), and the states and actions of both ends."""
        width = self.moves.tangent_dim
        states = [self.moves.displaced(state, sign * shift[..., :width]) for sign in (1, -1)]
        ends = [action + sign * shift[..., width:] for sign in (1, -1)]
        actions = [end.clip(self.low, self.high) for end in ends]
        rows = [np.stack(pair).reshape(-1, pair[0].shape[-1]) for pair in (states, actions)]
        after = self.step(*rows).reshape(2, *states[0].shape)
        return self.moves.between(after[0], after[1]), states, actions

    def directions(self, action: _Array, epsilon: float) -> _Array:
        """d of each sample, [N, dt + da], without the actions whose stencil leaves the limits."""
        width = self.moves.tangent_dim
        inside = (action - epsilon >= self.low) & (action + epsilon <= self.high)
        drawn = np.random.default_rng(_DIRECTION_SEED).standard_normal(width + action.shape[1])
        direction = np.tile(drawn / np.linalg.norm(drawn), (len(action), 1))
        direction[:, width:] *= inside
        return direction


@dataclass(frozen=True)
class CertifiedJacobian:
    """A [N, out, dt] and B [N, out, da] of N samples, with their certificate.

    Attributes:
        flags: [N], True where the test failed at every step.
        residual: |J d - D_d| of every output, [N, out].
        step: ε of each sample, [N].
    """

    A: _Array
    B: _Array
    flags: NDArray[np.bool_]
    residual: _Array
    step: _Array

    @property
    def error_A(self) -> _Array:
        """Relative to the block's largest entry, [N]: the whole residual, so that truncation and
        rounding are bounded from above, as far as the direction saw them."""
        return relative(self.residual.max(1), self.A)

    @property
    def error_B(self) -> _Array:
        """The same for B; 0 where B = 0 beyond the limits, which is exact."""
        return relative(self.residual.max(1), self.B)


def relative(residual: _Array, block: _Array) -> _Array:
    """residual [N] over the largest entry of block [N, …]; 0 where the block is 0."""
    largest = np.abs(block).max(axis=tuple(range(1, block.ndim)), initial=0.0)
    tiny = np.finfo(np.float64).tiny
    return np.where(largest == 0, 0.0, residual / np.maximum(largest, tiny))


def certified_jacobian(
    step: _BatchedStep,
    state: _Array,
    action: _Array,
    low: _Array,
    high: _Array,
    epsilon: float,
    moves: _Displacements | None = None,
) -> CertifiedJacobian:
    """Jacobians of `step(state [M, ds], action [M, da]) -> [M, ds]`, whose rows are independent.

    Args:
        step: clips the action to [low, high] [da]. On a limit the inside one-sided derivative is
            returned (uncertified: the direction leaves that action out), beyond it 0.
        epsilon: step of the central differences.
        moves: of the state; None: plain vectors, where dt = out = ds.
    """
    moves = _Flat(state.shape[1]) if moves is None else moves
    of = _LimitedStep(step, low, high, moves)
    samples = max(1, MOST_ROWS // (2 * (moves.tangent_dim + action.shape[1] + 1)))
    parts = [
        _retried(of, state[i : i + samples], action[i : i + samples], epsilon)
        for i in range(0, len(state), samples) or range(1)
    ]
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(CertifiedJacobian)]
    return CertifiedJacobian(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
    )


def _retried(of: _LimitedStep, state: _Array, action: _Array, epsilon: float) -> CertifiedJacobian:
    certified = _differences(of, state, action, epsilon)
    for smaller in _RETRIES:
        retry = np.flatnonzero(certified.flags)
        if len(retry) == 0:
            break
        again = _differences(of, state[retry], action[retry], smaller * epsilon)
        better = ~again.flags
        for field in fields(certified):
            getattr(certified, field.name)[retry[better]] = getattr(again, field.name)[better]
    return certified


def _differences(
    of: _LimitedStep, state: _Array, action: _Array, epsilon: float
) -> CertifiedJacobian:
    width, direction = of.moves.tangent_dim, of.directions(action, epsilon)
    # ε e_i for every coordinate i, then ε/10 d of each sample, [width + da + 1, N, width + da].
    n, every = direction.shape
    axes = np.broadcast_to(np.eye(every)[:, None], (every, n, every))
    shift = np.concatenate([epsilon * axes, 0.1 * epsilon * direction[None]])
    change, states, actions = of.changes(state, action, shift)

    # The distance really stepped: rounded, halved on a limit, and endless (derivative 0) beyond.
    by_state = _diagonal(of.moves.between(states[0][:width], states[1][:width])[..., -width:])
    within = (action >= of.low) & (action <= of.high)
    by_action = np.where(within, _diagonal(actions[0][width:-1] - actions[1][width:-1]), np.inf)
    stepped = np.concatenate([by_state, by_action], axis=1)
    with np.errstate(invalid="ignore"):  # of steps that left the finite numbers
        J = np.ascontiguousarray(np.moveaxis(change[:-1], 0, 2) / stepped[:, None, :])
    return _certify(J, change[-1] / (0.2 * epsilon), direction, width, epsilon)


def _diagonal(apart: _Array) -> _Array:
    """Coordinate i of point i, [width, N, width] → [N, width]."""
    return np.diagonal(apart, axis1=0, axis2=2)


def _certify(
    J: _Array, along: _Array, direction: _Array, width: int, epsilon: float
) -> CertifiedJacobian:
    residual = np.abs((J * direction[:, None, :]).sum(2) - along)
    # Written so that a NaN is flagged.
    flags = ~(residual.max(1) <= _TOLERANCE * np.abs(J).max((1, 2)))
    A, B = J[:, :, :width].copy(), J[:, :, width:].copy()
    return CertifiedJacobian(A, B, flags, residual, np.full(len(J), epsilon))
