"""Reward and terminal set of each Gymnasium MuJoCo environment: one row each.

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

import mujoco
import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
# (model, qpos [N, nq]) → p [N] and ∂p/∂(degree of freedom) [N, nv]
_Position = Callable[[mujoco.MjModel, _Array], tuple[_Array, _Array]]


@dataclass(frozen=True)
class Range:
    """low < x < high for the columns first … last − 1 of (qpos, qvel); `closed`: ≤ instead of <."""

    first: int
    last: int | None
    low: float
    high: float
    closed: bool = False

    def holds(self, physical: _Array) -> NDArray[np.bool_]:
        x = physical[:, self.first : self.last]
        if self.closed:
            return np.asarray(((self.low <= x) & (x <= self.high)).all(1))
        return np.asarray(((self.low < x) & (x < self.high)).all(1))


def standing_still(model: mujoco.MjModel, qpos: _Array) -> tuple[_Array, _Array]:
    """No position is rewarded."""
    return np.zeros(len(qpos)), np.zeros((len(qpos), model.nv))


def root_x(model: mujoco.MjModel, qpos: _Array) -> tuple[_Array, _Array]:
    """The root's x, whose gradient is e_0."""
    gradient = np.zeros((len(qpos), model.nv))
    gradient[:, 0] = 1.0
    return qpos[:, 0], gradient


def mass_centre_x(model: mujoco.MjModel, qpos: _Array) -> tuple[_Array, _Array]:
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
            "InvertedPendulum-v5", 0, standing_still, 0.0, 0.0, 1.0,
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
            left_out=(
                "the cost of contact forces; the torso's velocity is that of qpos, where Gymnasium "
                "reads positions slightly before it (up to 0.065 of 3.1)"
            ),
        ),
        Environment(
            "Humanoid-v5", 2, mass_centre_x, 1.25, 0.1, 5.0,
            healthy=(Range(2, 3, 1.0, 2.0),),
            left_out=(
                "the cost of contact forces (up to 10, lying on the ground); the centre of mass's "
                "velocity is that of qpos, where Gymnasium reads positions slightly before it "
                "(up to 0.0048 of 1.3)"
            ),
        ),
    )
}  # fmt: skip
