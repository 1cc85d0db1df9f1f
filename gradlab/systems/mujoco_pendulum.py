"""MPG's inverted pendulum: Gymnasium's, with the reward and terminal set of the paper.

Its next state is that of `env.step`, to the last bit; Jacobians are certified differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.closed_form import (
    SIMULATOR_WEIGHTS,
    CartPoleParameters,
    PendulumReward,
    Timing,
    alive,
)
from gradlab.systems.differences import certified_jacobian
from gradlab.systems.physics import BatchedPhysics, as_arrays, certificate, without_restart
from gradlab.systems.system import (
    Linearization,
    Noise,
    Transition,
    sample_normal,
)

Slider = Literal["stock", "wide"]

_FRAME_SKIP = 2
_EPSILON = 1e-6


@dataclass(frozen=True)
class MujocoPendulum:
    """Gymnasium's InvertedPendulum-v5 with the reward and terminal set of MPG.

    state [x, θ, ẋ, θ̇], action [a] with force 100 a, clipped to ±3 by the actuator.

    Attributes:
        slider: "stock" stops the cart at ±1 m; "wide" has no stop, as in the papers' experiments.
        reward: eq. 18 on the state before the step, or (published code) after it.
    """

    state_dim: ClassVar[int] = 4
    action_dim: ClassVar[int] = 1
    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = False

    slider: Slider = "stock"
    reward: Timing = "pre_step"

    def __post_init__(self) -> None:
        validation.word("reward", self.reward, get_args(Timing))
        validation.word("slider", self.slider, get_args(Slider))

    @cached_property
    def physics(self) -> BatchedPhysics:
        return BatchedPhysics(_pendulum_model(self.slider), _FRAME_SKIP)

    @cached_property
    def _precise_physics(self) -> BatchedPhysics:
        return self.physics.precise()

    @property
    def _reward(self) -> PendulumReward:
        return PendulumReward(SIMULATOR_WEIGHTS, self.reward)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        after = self.physics.step(*as_arrays(self, state, action, noise))
        reached = torch.as_tensor(after).to(state)
        return Transition(reached, self._reward.value(state, reached), alive(reached))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        """Central differences of the whole step at ε = 1e-6, at smaller ones where flagged.

        On ±3 the action's derivative is the inside one-sided one, beyond it 0.
        """
        before, control = as_arrays(self, state, action, noise)
        physics = self._precise_physics
        low, high = physics.control_range
        found = certified_jacobian(physics.step, before, control, low, high, _EPSILON)
        A, B = torch.as_tensor(found.A).to(state), torch.as_tensor(found.B).to(state)
        after, errors = state, (found.error_A, found.error_B)
        if self.reward == "post_step":
            after = torch.as_tensor(self.physics.step(before, control)).to(state)
        else:  # a closed form of the state alone
            errors = (np.full(len(state), torch.finfo(state.dtype).eps),) * 2
        r_s, r_a = self._reward.gradients(state, after, A, B)
        return Linearization(A, B, r_s, r_a, certificate(found, state, *errors))

    sample_noise = sample_normal


def _pendulum_model(slider: Slider) -> mujoco.MjModel:
    """Gymnasium's compiled model; "wide" lifts the slider's limit.

    A diverging step yields NaN, where Gymnasium's would silently restart upright.
    """
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "inverted_pendulum.xml"))
    if slider == "wide":
        spec.joint("slider").limited = mujoco.mjtLimited.mjLIMITED_FALSE
    return without_restart(spec.compile())


def pendulum_parameters() -> CartPoleParameters:
    """What MuJoCo compiled, for the analytic twin."""
    model = _pendulum_model("wide")
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
        substeps=_FRAME_SKIP,
    )
