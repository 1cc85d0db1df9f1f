"""The one coordinate of a MuJoCo task, and its maps to physics and tangent space.

    state    s = (qpos without the root's translation, qvel), quaternions as they stand in qpos
    physics  x = (qpos, qvel), root translation 0
    tangent  δ = (dqpos, dqvel), one entry per degree of freedom; rotations as in `mj_integratePos`

Policies, critics and learned models read a quaternion's four numbers. A step
normalises them before and after, so it is a map of all of them, f(s) = f(s / norms), and its
derivative in that coordinate is exact for every ds, on the sphere or off it:

    A = E(s') A_δ T(s),    E = ∂s/∂δ (quaternion: ½ q ⊗),    T = ∂δ/∂s (2 q* ⊗ / |q|², 0 along q),

so that K = ∂π/∂s and the critic's gradients chain with it. T E = 1; E T projects on the sphere.

Unit quaternions (w, x, y, z) as MuJoCo turns them: q ⊗ exp(δ), δ in the body's own frame.

exp(δ) = (cos |δ|/2, sin |δ|/2 · δ/|δ|),    log its inverse,    ∂(q ⊗ exp δ)/∂δ at 0 = E(q)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from numpy.typing import NDArray


def _product(p: _Array, q: _Array) -> _Array:
    """p ⊗ q, [..., 4]."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    w, x, y, z = np.moveaxis(q, -1, 0)
    parts = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return np.stack(parts, -1)


def _turned(q: _Array, rotation: _Array) -> _Array:
    """q ⊗ exp(δ): [..., 4] turned by rotation vectors [..., 3], of the same norm as q."""
    angle = np.linalg.norm(rotation, axis=-1, keepdims=True)
    # np.sinc is sin(πx)/(πx), 1 at 0.
    half = 0.5 * np.sinc(angle / (2 * np.pi)) * rotation
    return _product(q, np.concatenate([np.cos(angle / 2), half], -1))


def _between(end: _Array, begin: _Array) -> _Array:
    """log(begin* ⊗ end), the rotation vector from one to the other, [..., 3] (mju_subQuat)."""
    apart = _product(begin * np.array([1.0, -1.0, -1.0, -1.0]), end)
    scalar, vector = apart[..., :1], apart[..., 1:]
    size = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(size, scalar)
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    slope = np.divide(angle, size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(slope * vector)


def _lift(q: _Array) -> _Array:
    """E(q) [..., 4, 3] of unit quaternions: how q moves per unit of δ. 4 Eᵀ E = 1."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = ((-x, -y, -z), (w, -z, y), (z, w, -x), (-y, x, w))
    return 0.5 * np.stack([np.stack(row, -1) for row in rows], -2)


def _drop(q: _Array) -> _Array:
    """4 E(q/|q|)ᵀ/|q| [..., 3, 4]: the δ of a move of q; 0 along q itself."""
    size = np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(4 * np.swapaxes(_lift(q / size), -1, -2) / size[..., None])


_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chart:
    """Coordinates of a model whose first `root` degrees of freedom are horizontal translations.

    Attributes:
        root: translations that the state leaves out: the physics do not depend on them.
        turns: first qpos column and first degree of freedom of each quaternion.
    """

    nq: int
    nv: int
    root: int
    turns: tuple[tuple[int, int], ...]

    @staticmethod
    def of(model: mujoco.MjModel, root: int) -> Chart:
        """The chart of a model: free joints are three translations and a quaternion."""
        turns = []
        for j in range(model.njnt):
            column, dof = int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE:
                turns.append((column + 3, dof + 3))
            elif model.jnt_type[j] == mujoco.mjtJoint.mjJNT_BALL:
                turns.append((column, dof))
        return Chart(model.nq, model.nv, root, tuple(turns))

    @property
    def state_dim(self) -> int:
        return self.nq - self.root + self.nv

    @property
    def tangent_dim(self) -> int:
        """Moves of the state: the root's translation is left out here, too."""
        return 2 * self.nv - self.root

    def physical(self, state: _Array) -> _Array:
        """x [N, nq + nv] of states [N, ds]."""
        return np.concatenate([np.zeros((len(state), self.root)), state], 1)

    def displaced(self, physical: _Array, tangent: _Array) -> _Array:
        """x ⊕ δ for δ [..., N, tangent_dim]."""
        moved = np.broadcast_to(physical, (*tangent.shape[:-1], self.nq + self.nv)).copy()
        columns, moves = self._straight
        moved[..., columns] += tangent[..., moves]
        for column, dof in self.turns:
            turn = slice(column, column + 4)
            by = tangent[..., dof - self.root : dof - self.root + 3]
            moved[..., turn] = _turned(moved[..., turn], by)
        return moved

    def between(self, end: _Array, begin: _Array) -> _Array:
        """end ⊖ begin [..., 2 nv], as `mj_differentiatePos`; the root's translation comes first."""
        apart = np.empty((*end.shape[:-1], 2 * self.nv))
        columns, moves = self._straight
        apart[..., : self.root] = end[..., : self.root] - begin[..., : self.root]
        apart[..., moves + self.root] = end[..., columns] - begin[..., columns]
        for column, dof in self.turns:
            turn = slice(column, column + 4)
            apart[..., dof : dof + 3] = _between(end[..., turn], begin[..., turn])
        return apart

    def lift(self, physical: _Array) -> _Array:
        """E(x) = ∂s/∂δ, [N, ds, tangent_dim]."""
        E = np.zeros((len(physical), self.state_dim, self.tangent_dim))
        columns, moves = self._straight
        E[:, columns - self.root, moves] = 1.0
        for column, dof in self.turns:
            q = physical[:, column : column + 4]
            unit = q / np.linalg.norm(q, axis=1, keepdims=True)
            E[:, *self._block(column, dof)] = _lift(unit)
        return E

    def drop(self, physical: _Array) -> _Array:
        """T(x) = ∂δ/∂s, [N, tangent_dim, ds]."""
        T = np.zeros((len(physical), self.tangent_dim, self.state_dim))
        columns, moves = self._straight
        T[:, moves, columns - self.root] = 1.0
        for column, dof in self.turns:
            rows = self._block(column, dof)[::-1]
            T[:, *rows] = _drop(physical[:, column : column + 4])
        return T

    def _block(self, column: int, dof: int) -> tuple[slice, slice]:
        """Where a quaternion stands in the state and in its moves."""
        s, d = column - self.root, dof - self.root
        return slice(s, s + 4), slice(d, d + 3)

    @cached_property
    def _straight(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Columns of x that move along straight lines, and their entries of δ (no root in it)."""
        columns, dofs = set(range(self.nq)), set(range(self.nv))
        for column, dof in self.turns:
            columns -= set(range(column, column + 4))
            dofs -= set(range(dof, dof + 3))
        q, v = sorted(columns)[self.root :], sorted(dofs)[self.root :]
        speeds = range(self.nv)
        return (
            np.array([*q, *(self.nq + i for i in speeds)]),
            np.array([*v, *(self.nv + i for i in speeds)]) - self.root,
        )
