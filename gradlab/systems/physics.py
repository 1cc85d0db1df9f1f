"""MuJoCo's physics for many rows at once: (qpos, qvel, ctrl) in, (qpos, qvel) after a step out.

Every call starts as Gymnasium does after `reset` and `set_state` (time and solver warm start 0),
and its rows are then those of `env.step`, to the last bit. A simulation that diverges ends in NaN,
where Gymnasium's would silently restart; MuJoCo's warnings about it are caught, so that neither
stderr nor a log file in the working folder fills with them.

The one coordinate of a MuJoCo task, and its maps to physics and tangent space.

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

import copy
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.differences import CertifiedJacobian
from gradlab.systems.system import Certificate, Noise, System, check_step

if TYPE_CHECKING:
    import mujoco.batch


Array = NDArray[np.float64]

MOST_ROWS = 8192
SECONDS = 6.5e-7  # of one core, per evaluation of the dynamics and degree of freedom
_TORCH_DEFAULT = torch.get_num_threads()  # before anybody asks for another count
# At the default 1e-8 the constraint solver stops early enough to give, for some states, a smooth
# but wrong Jacobian; 1e-12 costs nothing measurable.
LINEARIZE_TOLERANCE = 1e-12


class _CaughtWarnings:
    """A context without MuJoCo's warnings: a row that diverged is NaN, which says the same.

    The handler belongs to the whole process: the last context to end restores the former one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._former: object = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._former = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(lambda message: None)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                mujoco.set_mju_user_warning(self._former)


warnings_caught = _CaughtWarnings()


class BatchedPhysics:
    """`frame_skip` substeps of one model for any number of rows.

    Holds one MuJoCo batch, grown to the largest call and at most `MOST_ROWS` rows; more rows go
    through it in chunks, and no row depends on its neighbours.
    """

    def __init__(self, model: mujoco.MjModel, frame_skip: int) -> None:
        self.model = model
        self.frame_skip = frame_skip
        self._batch: mujoco.batch.Batch | None = None
        # A batch must not be used by two threads at once.
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[BatchedPhysics], tuple[mujoco.MjModel, int]]:
        # Copies and other processes start with a batch and a lock of their own.
        return BatchedPhysics, (self.model, self.frame_skip)

    def precise(self) -> BatchedPhysics:
        """The same with a solver tolerance fit for differences."""
        model = copy.deepcopy(self.model)
        model.opt.tolerance = LINEARIZE_TOLERANCE
        return BatchedPhysics(model, self.frame_skip)

    @property
    def evaluations(self) -> int:
        """Of the forward dynamics, per step."""
        runge_kutta = self.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        return self.frame_skip * (4 if runge_kutta else 1)

    @property
    def control_range(self) -> tuple[Array, Array]:
        """Lowest and highest control [nu]; infinite where the model sets no limit."""
        limited = self.model.actuator_ctrllimited.astype(bool)
        low, high = self.model.actuator_ctrlrange.T
        return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)

    def step(self, state: Array, control: Array) -> Array:
        """The next [M, nq + nv] of [M, nq + nv] and [M, nu] as `as_arrays` gives them."""
        after = np.empty_like(state)
        with self._lock, warnings_caught:
            for first in range(0, len(state), MOST_ROWS):
                rows = slice(first, first + MOST_ROWS)
                self._step_rows(state[rows], control[rows], after[rows])
        return after

    def contacts(self, state: Array) -> NDArray[np.bool_]:
        """Whether any two geometries touch at [M, nq + nv], [M]."""
        data = mujoco.MjData(self.model)
        touching = np.zeros(len(state), dtype=bool)
        with warnings_caught:
            for k, row in enumerate(state):
                data.qpos[:] = row[: self.model.nq]
                mujoco.mj_kinematics(self.model, data)
                mujoco.mj_comPos(self.model, data)
                mujoco.mj_collision(self.model, data)
                touching[k] = data.ncon > 0
        return touching

    def _step_rows(self, state: Array, control: Array, after: Array) -> None:
        # Here: older versions have no batches; other engines' systems are used beside them.
        from mujoco.batch import Batch, SimulationError

        n, nq, failed = len(state), self.model.nq, list[int]()
        if self._batch is None or self._batch.nsim < n:
            capacity = min(MOST_ROWS, 1 << (n - 1).bit_length())
            self._batch = Batch(self.model, capacity, nthread=_thread_count())
        batch = self._batch
        batch.time[:n] = 0
        batch.qacc_warmstart[:n] = 0
        batch.qpos[:n], batch.qvel[:n] = state[:, :nq], state[:, nq:]
        batch.ctrl[:n] = control
        try:
            batch.step(ids=np.arange(n), nstep=self.frame_skip)
        except SimulationError as error:  # of rows that MuJoCo refused, and left alone
            failed = list(error.ids)
        after[:, :nq], after[:, nq:] = batch.qpos[:n], batch.qvel[:n]
        after[failed] = np.nan


def _thread_count() -> int:
    """Threads of a batch: every core that this process may use. Torch counts physical ones, of
    which simulations, bound by latency, leave half idle; a count that somebody chose is kept."""
    torch_count = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or torch_count != _TORCH_DEFAULT:
        return torch_count
    return max(len(os.sched_getaffinity(0)), torch_count)


def without_restart(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model, set not to reset a diverging simulation to its initial state."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def to_array(value: Tensor) -> Array:
    """Float64 on the CPU, whatever the input was."""
    return value.detach().to("cpu", torch.float64).numpy()


def as_arrays(system: System, state: Tensor, action: Tensor, noise: Noise) -> tuple[Array, Array]:
    """States and controls of a step, without what MuJoCo would replace by zeros.

    Raises:
        InputError: names the argument, its row and its dimension.
    """
    check_step(system, state, action, noise)
    arrays = to_array(state), to_array(action)
    for name, value in zip(("state", "action"), arrays, strict=True):
        bad = np.argwhere(~(np.abs(value) <= mujoco.mjMAXVAL))
        if len(bad):
            row, column = bad[0]
            got, want = f"{value[row, column]:g}", f"a finite number up to {mujoco.mjMAXVAL:g}"
            raise InputError(f"{name} row {row}: dimension {column} is {got}, expected {want}")
    return arrays


def certificate(found: CertifiedJacobian, like: Tensor, r_s: Array, r_a: Array) -> Certificate:
    """Of differences, with the relative errors of r_s and r_a."""
    error = {"A": found.error_A, "B": found.error_B, "r_s": r_s, "r_a": r_a}
    return Certificate(
        torch.as_tensor(found.flags).to(like.device),
        {name: torch.as_tensor(value).to(like) for name, value in error.items()},
        torch.as_tensor(found.step).to(like),
    )


def _product(p: Array, q: Array) -> Array:
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


def _turned(q: Array, rotation: Array) -> Array:
    """q ⊗ exp(δ): [..., 4] turned by rotation vectors [..., 3], of the same norm as q."""
    angle = np.linalg.norm(rotation, axis=-1, keepdims=True)
    # np.sinc is sin(πx)/(πx), 1 at 0.
    half = 0.5 * np.sinc(angle / (2 * np.pi)) * rotation
    return _product(q, np.concatenate([np.cos(angle / 2), half], -1))


def _between(end: Array, begin: Array) -> Array:
    """log(begin* ⊗ end), the rotation vector from one to the other, [..., 3] (mju_subQuat)."""
    apart = _product(begin * np.array([1.0, -1.0, -1.0, -1.0]), end)
    scalar, vector = apart[..., :1], apart[..., 1:]
    size = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(size, scalar)
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    slope = np.divide(angle, size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(slope * vector)


def _lift(q: Array) -> Array:
    """E(q) [..., 4, 3] of unit quaternions: how q moves per unit of δ. 4 Eᵀ E = 1."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = ((-x, -y, -z), (w, -z, y), (z, w, -x), (-y, x, w))
    return 0.5 * np.stack([np.stack(row, -1) for row in rows], -2)


def _drop(q: Array) -> Array:
    """4 E(q/|q|)ᵀ/|q| [..., 3, 4]: the δ of a move of q; 0 along q itself."""
    size = np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(4 * np.swapaxes(_lift(q / size), -1, -2) / size[..., None])


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

    def physical(self, state: Array) -> Array:
        """x [N, nq + nv] of states [N, ds]."""
        return np.concatenate([np.zeros((len(state), self.root)), state], 1)

    def displaced(self, physical: Array, tangent: Array) -> Array:
        """x ⊕ δ for δ [..., N, tangent_dim]."""
        moved = np.broadcast_to(physical, (*tangent.shape[:-1], self.nq + self.nv)).copy()
        columns, moves = self._straight
        moved[..., columns] += tangent[..., moves]
        for column, dof in self.turns:
            turn = slice(column, column + 4)
            by = tangent[..., dof - self.root : dof - self.root + 3]
            moved[..., turn] = _turned(moved[..., turn], by)
        return moved

    def between(self, end: Array, begin: Array) -> Array:
        """end ⊖ begin [..., 2 nv], as `mj_differentiatePos`; the root's translation comes first."""
        apart = np.empty((*end.shape[:-1], 2 * self.nv))
        columns, moves = self._straight
        apart[..., : self.root] = end[..., : self.root] - begin[..., : self.root]
        apart[..., moves + self.root] = end[..., columns] - begin[..., columns]
        for column, dof in self.turns:
            turn = slice(column, column + 4)
            apart[..., dof : dof + 3] = _between(end[..., turn], begin[..., turn])
        return apart

    def lift(self, physical: Array) -> Array:
        """E(x) = ∂s/∂δ, [N, ds, tangent_dim]."""
        E = np.zeros((len(physical), self.state_dim, self.tangent_dim))
        columns, moves = self._straight
        E[:, columns - self.root, moves] = 1.0
        for column, dof in self.turns:
            q = physical[:, column : column + 4]
            unit = q / np.linalg.norm(q, axis=1, keepdims=True)
            E[:, *self._block(column, dof)] = _lift(unit)
        return E

    def drop(self, physical: Array) -> Array:
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
