"""MuJoCo's physics for many rows at once: (qpos, qvel, ctrl) in, (qpos, qvel) after a step out.

Every call starts as Gymnasium does after `reset` and `set_state` (time and solver warm start 0),
and its rows are then those of `env.step`, to the last bit. A simulation that diverges ends in NaN,
where Gymnasium's would silently restart; MuJoCo's warnings about it are caught, so that neither
stderr nor a log file in the working folder fills with them.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError

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
        """The next [M, nq + nv] of [M, nq + nv] and [M, nu] that pass `check_physical`."""
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
        n, nq = len(state), self.model.nq
        batch = self._filled(state, control)
        failed = _failures(lambda ids: batch.step(ids=ids, nstep=self.frame_skip), n)
        after[:, :nq], after[:, nq:] = batch.qpos[:n], batch.qvel[:n]
        after[failed] = np.nan

    def _filled(self, state: Array, control: Array) -> mujoco.batch.Batch:
        n, nq = len(state), self.model.nq
        batch = self._batch_for(n)
        batch.time[:n] = 0
        batch.qacc_warmstart[:n] = 0
        batch.qpos[:n] = state[:, :nq]
        batch.qvel[:n] = state[:, nq:]
        batch.ctrl[:n] = control
        return batch

    def _batch_for(self, rows: int) -> mujoco.batch.Batch:
        # Older versions have no batches; other engines' systems are used beside them.
        from mujoco.batch import Batch

        if self._batch is None or self._batch.nsim < rows:
            capacity = min(MOST_ROWS, 1 << (rows - 1).bit_length())
            self._batch = Batch(self.model, capacity, nthread=thread_count())
        return self._batch


def _failures(call: Callable[[NDArray[np.int64]], None], n: int) -> list[int]:
    """Rows of the first n that MuJoCo refused: they were left alone."""
    from mujoco.batch import SimulationError  # here: see `_batch_for`

    try:
        call(np.arange(n))
    except SimulationError as error:
        return list(error.ids)
    return []


def thread_count() -> int:
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


def check_physical(state: Array, control: Array) -> None:
    """Refuse what MuJoCo would replace by zeros.

    Raises:
        InputError: names the argument, its row and its dimension.
    """
    for name, value in (("state", state), ("action", control)):
        bad = np.argwhere(~(np.abs(value) <= mujoco.mjMAXVAL))
        if len(bad):
            row, column = bad[0]
            got, want = f"{value[row, column]:g}", f"a finite number up to {mujoco.mjMAXVAL:g}"
            raise InputError(f"{name} row {row}: dimension {column} is {got}, expected {want}")
