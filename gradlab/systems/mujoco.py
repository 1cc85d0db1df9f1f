"""MuJoCo environments as Systems: stepped in batches, linearized by certified differences.

`BatchedPhysics` is the physics alone: (qpos, qvel, ctrl) rows in, rows after `frame_skip` substeps
out. A task adds its reward and terminal set to it, as `MujocoPendulum` does for Gymnasium's
InvertedPendulum-v5. Every call starts as Gymnasium does after `reset` and `set_state` (time and
solver warm start 0), and its next state is then that of `env.step`, to the last bit.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import gymnasium
import mujoco
import mujoco.batch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.cartpole import (
    SIMULATOR_WEIGHTS,
    CartPoleParameters,
    PendulumReward,
    Timing,
    alive,
    check_timing,
)
from gradlab.systems.differences import CertifiedJacobian, certified_jacobian
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Transition,
    check_step,
    standard_normal,
)

Array = NDArray[np.float64]
Slider = Literal["stock", "wide"]
SLIDERS = ("stock", "wide")

FRAME_SKIP = 2
EPSILON = 1e-6
MOST_ROWS = 8192
# At the default 1e-8 the constraint solver stops early enough to give, for some states, a smooth
# but wrong Jacobian; 1e-12 costs nothing measurable.
LINEARIZE_TOLERANCE = 1e-12


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

    @property
    def control_range(self) -> tuple[Array, Array]:
        """Lowest and highest control [nu]; infinite where the model sets no limit."""
        limited = self.model.actuator_ctrllimited.astype(bool)
        low, high = self.model.actuator_ctrlrange.T
        return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)

    def step(self, state: Array, control: Array) -> Array:
        """The next [M, nq + nv] of [M, nq + nv] and [M, nu] that pass `check_physical`."""
        with self._lock:
            pieces = range(0, len(state), MOST_ROWS)
            after = [
                self._step_rows(state[i : i + MOST_ROWS], control[i : i + MOST_ROWS])
                for i in pieces
            ]
        return np.concatenate(after) if after else state.copy()

    def _step_rows(self, state: Array, control: Array) -> Array:
        n, nq = len(state), self.model.nq
        batch = self._batch_for(n)
        batch.time[:n] = 0
        batch.qacc_warmstart[:n] = 0
        batch.qpos[:n] = state[:, :nq]
        batch.qvel[:n] = state[:, nq:]
        batch.ctrl[:n] = control
        batch.step(ids=np.arange(n), nstep=self.frame_skip)
        return np.concatenate([batch.qpos[:n], batch.qvel[:n]], 1)

    def _batch_for(self, rows: int) -> mujoco.batch.Batch:
        if self._batch is None or self._batch.nsim < rows:
            capacity = min(MOST_ROWS, 1 << (rows - 1).bit_length())
            threads = torch.get_num_threads()
            self._batch = mujoco.batch.Batch(self.model, capacity, nthread=threads)
        return self._batch


@dataclass(frozen=True)
class MujocoPendulum:
    """Gymnasium's InvertedPendulum-v5 with the reward and terminal set of MPG.

    state [x, θ, ẋ, θ̇], action [a] with force 100 a, clipped to ±3 by the actuator.

    Attributes:
        slider: "stock" stops the cart at ±1 m; "wide" has no stop, as in the papers' experiments.
        reward: eq. 18 on the state before the step, or (published code) after it.
    """

    slider: Slider = "stock"
    reward: Timing = "pre_step"

    def __post_init__(self) -> None:
        check_timing(self.reward)
        _check_slider(self.slider)

    @property
    def state_dim(self) -> int:
        return 4

    @property
    def action_dim(self) -> int:
        return 1

    @property
    def noise_dim(self) -> int:
        return 0

    @property
    def differentiable(self) -> bool:
        return False

    @cached_property
    def physics(self) -> BatchedPhysics:
        return BatchedPhysics(pendulum_model(self.slider), FRAME_SKIP)

    @cached_property
    def _precise_physics(self) -> BatchedPhysics:
        model = pendulum_model(self.slider)
        model.opt.tolerance = LINEARIZE_TOLERANCE
        return BatchedPhysics(model, FRAME_SKIP)

    @property
    def _reward(self) -> PendulumReward:
        return PendulumReward(SIMULATOR_WEIGHTS, self.reward)

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        before, control = to_array(state), to_array(action)
        check_physical(before, control)
        after = torch.as_tensor(self.physics.step(before, control)).to(state)
        return Transition(after, self._reward.value(state, after), alive(after))

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        """Central differences of the whole step at ε = 1e-6, retried at 1e-7 where flagged.

        On ±3 the action's derivative is the inside one-sided one, beyond it 0.
        """
        check_step(self, state, action, noise)
        before, control = to_array(state), to_array(action)
        check_physical(before, control)
        physics = self._precise_physics
        low, high = physics.control_range
        jacobian = certified_jacobian(physics.step, before, control, low, high, EPSILON)
        A, B = torch.as_tensor(jacobian.A).to(state), torch.as_tensor(jacobian.B).to(state)
        after = state
        if self.reward == "post_step":
            after = torch.as_tensor(self.physics.step(before, control)).to(state)
        r_s, r_a = self._reward.gradients(state, after, A, B)
        return Linearization(A, B, r_s, r_a, self._certificate(jacobian, state))

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return standard_normal(n, 0, generator, dtype)

    def _certificate(self, jacobian: CertifiedJacobian, state: Tensor) -> Certificate:
        error_A = torch.as_tensor(jacobian.error_A).to(state)
        error_B = torch.as_tensor(jacobian.error_B).to(state)
        error = {"A": error_A, "B": error_B, "r_s": error_A, "r_a": error_B}
        if self.reward == "pre_step":
            # A closed form of the state alone.
            exact = Certificate.exact(state).error
            error = {"A": error_A, "B": error_B, "r_s": exact["r_s"], "r_a": exact["r_a"]}
        flags = torch.as_tensor(jacobian.flags).to(state.device)
        return Certificate(flags, error, EPSILON)


def to_array(value: Tensor) -> Array:
    """Float64 on the CPU, whatever the input was."""
    return value.detach().to("cpu", torch.float64).numpy()


def check_physical(state: Array, control: Array) -> None:
    """Refuse what MuJoCo would replace by zeros, flooding stderr and leaving a log file behind."""
    for name, value in (("state", state), ("action", control)):
        bad = np.flatnonzero(~(np.abs(value) <= mujoco.mjMAXVAL).all(1))
        if len(bad):
            row = bad[0]
            want = f"finite numbers up to {mujoco.mjMAXVAL:g}"
            raise InputError(f"{name} row {row} is {value[row]}, expected {want}")


def pendulum_model(slider: Slider) -> mujoco.MjModel:
    """Gymnasium's compiled model; "wide" lifts the slider's limit.

    A diverging step yields NaN, where Gymnasium's would silently restart upright.
    """
    _check_slider(slider)
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "inverted_pendulum.xml"))
    if slider == "wide":
        spec.joint("slider").limited = mujoco.mjtLimited.mjLIMITED_FALSE
    model = spec.compile()
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def pendulum_parameters() -> CartPoleParameters:
    """What MuJoCo compiled, for the analytic twin."""
    model = pendulum_model("wide")
    cart, pole = model.body("cart").id, model.body("pole").id
    across, _, along = model.body_ipos[pole]
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, model.body_iquat[pole])
    hinge_axis = axes.reshape(3, 3)[1]
    damping = model.dof_damping
    if damping[0] != damping[1] or model.dof_armature.any():
        raise InputError("the pendulum's XML is not Gymnasium's: two dampings, or an armature")
    return CartPoleParameters(
        cart_mass=float(model.body_mass[cart]),
        pole_mass=float(model.body_mass[pole]),
        half_length=float(np.hypot(across, along)),
        inertia=float(hinge_axis**2 @ model.body_inertia[pole]),
        gravity=float(-model.opt.gravity[2]),
        gear=float(model.actuator_gear[0, 0]),
        damping=float(damping[0]),
        offset=float(np.arctan2(across, along)),
        timestep=float(model.opt.timestep),
        substeps=FRAME_SKIP,
    )


def _check_slider(slider: str) -> None:
    if slider not in SLIDERS:
        raise InputError(f"slider is {slider!r}, expected one of {list(SLIDERS)}")
