"""Gymnasium's MuJoCo environments as Systems: stepped in batches, linearized as whole steps.

The state is (qpos without the root's translation, qvel) of `Chart`, velocities unclipped; the
next state is that of `env.step` after `set_state` with the root at 0, to the last bit. Jacobians
are certified central differences of all substeps at once (`differences`) on a model with a sharper
solver tolerance. The reward's follow from the rows of the rewarded position p,

    r_s = w (∂p/∂δ(q') A_δ − ∂p/∂δ(q)) T / dt,      r_a = w ∂p/∂δ(q') B_δ / dt − 2 c a;

the jump of the healthy reward at its range's end is not in them.

Reward and terminal set of each Gymnasium MuJoCo environment: one row each.

    r = w (p(q') − p(q)) / dt + h [healthy] − c |a|²,      terminated = not healthy

Frame skip, model, time step, integrator, control limits and reset noise are read from the
environment itself. The rewards are Gymnasium's own to the last bit, but for the two whose
Gymnasium reward is no function of (qpos, qvel, a):

    Ant       p is the torso's x. Gymnasium reads the body positions of the last substep's last
              evaluation, slightly before qpos; and it subtracts a cost of contact forces
              (5e-4 |cfrc_ext|², clipped at ±1 each), which is left out here.
    Humanoid  p is the centre of mass's x, at qpos instead of there; contact cost (5e-7, at most
              10) left out.

Over 1,000 random steps the forward rewards differ by at most 0.065 of 3.1 (Ant) and 0.0048 of 1.3
(Humanoid), and the contact costs left out are at most 0.0086 and, lying on the ground, 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.differences import CertifiedJacobian, certified_jacobian, relative
from gradlab.systems.physics import (
    SECONDS,
    Array,
    BatchedPhysics,
    Chart,
    as_arrays,
    certificate,
    to_array,
    warnings_caught,
    without_restart,
)
from gradlab.systems.system import (
    Linearization,
    Noise,
    Transition,
    sample_normal,
)

# (model, qpos [N, nq]) → p [N] and ∂p/∂(degree of freedom) [N, nv]
_Position = Callable[[mujoco.MjModel, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Range:
    """low < x < high for the columns first … last − 1 of (qpos, qvel); `closed`: ≤ instead of <."""

    first: int
    last: int | None
    low: float
    high: float
    closed: bool = False

    def holds(self, physical: Array) -> NDArray[np.bool_]:
        x = physical[:, self.first : self.last]
        before = np.less_equal if self.closed else np.less
        return np.asarray((before(self.low, x) & before(x, self.high)).all(1))


def _standing_still(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:
    """No position is rewarded."""
    return np.zeros(len(qpos)), np.zeros((len(qpos), model.nv))


def root_x(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:
    """The root's x, whose gradient is e_0."""
    gradient = np.zeros((len(qpos), model.nv))
    gradient[:, 0] = 1.0
    return qpos[:, 0], gradient


def mass_centre_x(model: mujoco.MjModel, qpos: Array) -> tuple[Array, Array]:
    """The x of the whole body's centre of mass."""
    data, jacobian = mujoco.MjData(model), np.zeros((3, model.nv))
    x, gradient = np.empty(len(qpos)), np.empty((len(qpos), model.nv))
    for i, q in enumerate(qpos):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSubtreeCom(model, data, jacobian, 0)
        x[i], gradient[i] = data.subtree_com[0, 0], jacobian[0]
    return x, gradient


@dataclass(frozen=True)
class Environment:
    """A row.

    Attributes:
        env_id: as Gymnasium registers it.
        root: leading translations of the root, which the state leaves out.
        position: p, whose velocity is rewarded.
        forward_weight, control_weight, healthy_reward: w, c, h.
        healthy: all of these hold, or the episode ends (where `terminates`).
        normal_reset: the reset's velocities are normal, with the uniform's bound as deviation.
        epsilon: step of the differences: contacts make larger ones worse, rounding smaller ones.
        velocity_clip: Gymnasium's observation clips velocities to ± this: the policy's view, which
            is neither in the state nor in its Jacobians.
        left_out: what of Gymnasium's reward is no function of (qpos, qvel, a).
    """

    env_id: str
    root: int
    position: _Position
    forward_weight: float
    control_weight: float
    healthy_reward: float
    healthy: tuple[Range, ...] = ()
    terminates: bool = True
    normal_reset: bool = False
    epsilon: float = 1e-7
    velocity_clip: float | None = None
    left_out: str = ""


_INFINITE = float("inf")

ENVIRONMENTS = {
    row.env_id: row
    for row in (
        Environment(
            "InvertedPendulum-v5", 0, _standing_still, 0.0, 0.0, 1.0,
            healthy=(Range(1, 2, -0.2, 0.2, closed=True),),
            epsilon=1e-6,
        ),
        Environment(
            "Hopper-v5", 1, root_x, 1.0, 1e-3, 1.0,
            healthy=(
                Range(2, None, -100.0, 100.0),
                Range(1, 2, 0.7, _INFINITE),
                Range(2, 3, -0.2, 0.2),
            ),
            velocity_clip=10.0,
        ),
        Environment(
            "Walker2d-v5", 1, root_x, 1.0, 1e-3, 1.0,
            healthy=(Range(1, 2, 0.8, 2.0), Range(2, 3, -1.0, 1.0)),
            velocity_clip=10.0,
        ),
        Environment("HalfCheetah-v5", 1, root_x, 1.0, 0.1, 0.0, normal_reset=True),
        Environment(
            "Ant-v5", 2, root_x, 1.0, 0.5, 1.0,
            healthy=(Range(2, 3, 0.2, 1.0, closed=True),),
            normal_reset=True,
            left_out="the cost of contact forces; the velocity differs by up to 0.065 of 3.1",
        ),
        Environment(
            "Humanoid-v5", 2, mass_centre_x, 1.25, 0.1, 5.0,
            healthy=(Range(2, 3, 1.0, 2.0),),
            left_out="the cost of contact forces; the velocity differs by up to 0.0048 of 1.3",
        ),
    )
}  # fmt: skip


_SMALLEST_NORM = 1e-3  # of a quaternion that still says how a body is turned


@dataclass(frozen=True, eq=False)
class _GymnasiumModel:
    """Physics, chart of the state, and the reset around (qpos, qvel) with its noise's scale."""

    physics: BatchedPhysics
    chart: Chart
    limits: _JointLimits
    qpos: Array
    qvel: Array
    reset_scale: float


@dataclass(frozen=True, eq=False)
class _JointLimits:
    """Limits of the slides and hinges that have them: columns of qpos, lowest and highest [L]."""

    names: tuple[str, ...]
    columns: NDArray[np.int64]
    low: Array
    high: Array

    @staticmethod
    def of(model: mujoco.MjModel) -> _JointLimits:
        straight = [int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)]
        limited = [
            j for j in range(model.njnt) if model.jnt_limited[j] and model.jnt_type[j] in straight
        ]
        names = tuple(str(model.joint(j).name) for j in limited)
        low, high = model.jnt_range[limited].reshape(-1, 2).T
        return _JointLimits(names, model.jnt_qposadr[limited].astype(np.int64), low, high)

    def excess(self, qpos: Array) -> Array:
        """How far each joint is beyond its limits, [N, L]; at most 0 inside."""
        q = qpos[:, self.columns]
        return np.maximum(self.low - q, q - self.high)

    def far(self, qpos: Array) -> NDArray[np.bool_]:
        """Beyond by more than the whole range, [N, L]: no simulation comes there by itself."""
        return self.excess(qpos) > self.high - self.low


@dataclass(frozen=True)
class MujocoEnvironment:
    """One row of `ENVIRONMENTS`, or a row of the user's."""

    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = False

    environment: Environment

    @property
    def state_dim(self) -> int:
        return self.chart.state_dim

    @property
    def action_dim(self) -> int:
        return int(self.physics.model.nu)

    @cached_property
    def built(self) -> _GymnasiumModel:
        env_id = self.environment.env_id
        with warnings_caught:
            try:
                environment: Any = gymnasium.make(env_id).unwrapped
            except gymnasium.error.Error as error:
                raise InputError(f"Gymnasium cannot make {env_id!r}: {error}") from None
        for name in ("model", "frame_skip", "init_qpos", "init_qvel", "_reset_noise_scale"):
            if not hasattr(environment, name):
                raise InputError(f"{env_id} has no {name}: name a Gymnasium MuJoCo environment")
        model = without_restart(environment.model)
        hidden = {
            "actuator activations": model.na,
            "motion-capture bodies": model.nmocap,
            "plugin states": model.npluginstate,
            "user data": model.nuserdata,
            "delayed controls or sensors": model.nhistory,
        }
        unsettable = [f"{count} {name}" for name, count in hidden.items() if count]
        if unsettable:
            hold = ", ".join(unsettable)
            raise InputError(f"{env_id}: beside positions and velocities, its state holds {hold}")
        return _GymnasiumModel(
            physics=BatchedPhysics(model, environment.frame_skip),
            chart=Chart.of(model, self.environment.root),
            limits=_JointLimits.of(model),
            qpos=environment.init_qpos.copy(),
            qvel=environment.init_qvel.copy(),
            reset_scale=float(environment._reset_noise_scale),
        )

    @property
    def physics(self) -> BatchedPhysics:
        return self.built.physics

    @property
    def chart(self) -> Chart:
        return self.built.chart

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return float(self.physics.model.opt.timestep * self.physics.frame_skip)

    @property
    def linearization_price(self) -> float:
        """Seconds of one core that the Jacobians of one state take, by operation count.

        A count, no clock: what is measured may depend on it, and must not depend on the machine.
        Within a third of the time of all six environments on one core of 2023.
        """
        stencil = 2 * (self.chart.tangent_dim + self.action_dim + 1)
        return SECONDS * stencil * self.physics.evaluations * self.chart.nv

    @cached_property
    def _precise(self) -> BatchedPhysics:
        return self.physics.precise()

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        """One environment step. A diverging row is NaN where it left the numbers, and not alive.

        Raises:
            InputError: not finite, no rotation in a quaternion, or beyond a joint's limits by more
                than its whole range; slightly beyond is normal, as limits are soft.
        """
        before, control = self._checked(state, action, noise)
        after = self.physics.step(before, control)
        diverged = ~(np.abs(after) <= mujoco.mjMAXVAL)
        limits = self.built.limits
        diverged[:, limits.columns] |= limits.far(after)
        after[diverged] = np.nan
        lost = ~np.isfinite(after).all(1)
        healthy = self._healthy(after) & ~lost
        reward = self._reward(before, control, after, healthy)
        reward[lost] = np.nan
        alive = healthy if self.environment.terminates else ~lost
        return Transition(
            torch.as_tensor(after[:, self.chart.root :]).to(state),
            torch.as_tensor(reward).to(state),
            torch.as_tensor(alive).to(state.device),
        )

    def alive(self, state: Tensor) -> Tensor:
        """bool [N]: is a state outside the terminal set? What `step` says of the state it makes."""
        physical = self.chart.physical(state.detach().cpu().double().numpy())
        holds = self._healthy if self.environment.terminates else lambda x: np.isfinite(x).all(1)
        return torch.as_tensor(holds(physical)).to(state.device)

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        """Certified differences in the state's own coordinate, at smaller steps where flagged.

        On a control limit the action's derivative is the inside one-sided one, beyond it 0; the
        control cost keeps its own.
        """
        before, control = self._checked(state, action, noise)
        differences, root = self._differences(before, control), self.chart.root
        # The next state matters where E or the rewarded position's gradient depend on it.
        constant = not self.chart.turns and self.environment.position in (_standing_still, root_x)
        after = before if constant else self._precise.step(before, control)
        E, T = self.chart.lift(after), self.chart.drop(before)
        r_d, by_a, residual = self._reward_gradients(before, control, after, differences)
        by_s = (r_d[:, None] @ T)[:, 0]
        blocks = (E @ differences.A[:, root:] @ T, E @ differences.B[:, root:], by_s, by_a)
        A, B, r_s, r_a = (torch.as_tensor(block).to(state) for block in blocks)
        errors = relative(residual, by_s), relative(residual, by_a)
        return Linearization(A, B, r_s, r_a, certificate(differences, state, *errors))

    def beyond_limits(self, state: Tensor) -> Tensor:
        """Is a joint beyond its (soft) limits? [N] bool."""
        beyond = self.built.limits.excess(self.chart.physical(to_array(state))) > 0
        return torch.as_tensor(beyond.any(1)).to(state.device)

    def contacts(self, state: Tensor) -> Tensor:
        """Whether any two bodies touch, or a body the ground? [N] bool."""
        touching = self.physics.contacts(self.chart.physical(to_array(state)))
        return torch.as_tensor(touching).to(state.device)

    sample_noise = sample_normal

    def sample_starts(self, n: int, generator: torch.Generator) -> Tensor:
        """Gymnasium's reset law, float64 [n, ds]. Its quaternions are not normalised."""
        built, chart = self.built, self.chart
        draw = torch.randn if self.environment.normal_reset else _uniform
        parts = [
            law(n, width, generator=generator, dtype=torch.float64)
            for law, width in ((_uniform, chart.nq), (draw, chart.nv))
        ]
        noise = torch.cat(parts, dim=1)
        still = torch.from_numpy(np.concatenate([built.qpos, built.qvel]))
        return (still + built.reset_scale * noise)[:, chart.root :]

    def _checked(self, state: Tensor, action: Tensor, noise: Noise) -> tuple[Array, Array]:
        """(qpos, qvel) and controls, as MuJoCo takes them."""
        given, control = as_arrays(self, state, action, noise)
        before, limits = self.chart.physical(given), self.built.limits
        far = np.argwhere(limits.far(before))
        if len(far):
            row, k = far[0]
            value, low, high = before[row, limits.columns[k]], limits.low[k], limits.high[k]
            raise InputError(
                f"state row {row}: {limits.names[k]} is {value:.4g}, beyond its limits "
                f"{low:.4g} … {high:.4g} by more than their distance"
            )
        for column, _ in self.chart.turns:
            norm = np.linalg.norm(before[:, column : column + 4], axis=1)
            short = np.flatnonzero(norm < _SMALLEST_NORM)
            if len(short):
                row, first = short[0], column - self.chart.root
                raise InputError(
                    f"state row {row}: the quaternion in columns {first} … {first + 3} has norm "
                    f"{norm[row]:.2g}, expected 1"
                )
        return before, control

    def _healthy(self, physical: Array) -> NDArray[np.bool_]:
        holds = [interval.holds(physical) for interval in self.environment.healthy]
        return np.asarray(np.logical_and.reduce([np.isfinite(physical).all(1), *holds]))

    def _reward(
        self, before: Array, control: Array, after: Array, healthy: NDArray[np.bool_]
    ) -> Array:
        row, model = self.environment, self.physics.model
        begin, end = (row.position(model, x[:, : self.chart.nq])[0] for x in (before, after))
        velocity = (end - begin) / self.dt
        cost = row.control_weight * np.sum(np.square(control), 1)
        reward: Array = row.forward_weight * velocity + healthy * row.healthy_reward - cost
        return reward

    def _reward_gradients(
        self, before: Array, control: Array, after: Array, certified: CertifiedJacobian
    ) -> tuple[Array, Array, Array]:
        """∂r/∂δ [N, tangent_dim], ∂r/∂a [N, da] and the certificate's residual of r, [N]."""
        row, model, nv = self.environment, self.physics.model, self.chart.nv
        begin, end = (row.position(model, x[:, : self.chart.nq])[1] for x in (before, after))
        rate = row.forward_weight / self.dt
        r_d = rate * (end[:, None] @ certified.A[:, :nv])[:, 0]
        r_d[:, : nv - self.chart.root] -= rate * begin[:, self.chart.root :]
        r_a = rate * (end[:, None] @ certified.B[:, :nv])[:, 0] - 2 * row.control_weight * control
        return r_d, r_a, abs(rate) * (np.abs(end) * certified.residual[:, :nv]).sum(1)

    def _differences(self, before: Array, control: Array) -> CertifiedJacobian:
        low, high = self.physics.control_range
        return certified_jacobian(
            self._precise.step, before, control, low, high, self.environment.epsilon, self.chart
        )


def _uniform(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return 2 * torch.rand(*shape, generator=generator, dtype=dtype) - 1
