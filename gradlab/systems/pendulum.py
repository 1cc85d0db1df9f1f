"""Gymnasium's Pendulum-v1 in torch: a rod on a hinge, swung up by a weak motor.

    state [θ, θ̇], θ = 0 upright, not wrapped;  action [u], a torque

    u ← clip(u, ±2 N m)
    θ̇' = clip(θ̇ + T (3g/(2l) sin θ + 3/(m l²) u), ±8 rad/s),   θ' = θ + T θ̇'
    r  = −(wrap(θ)² + 0.1 θ̇² + 0.001 u²)      of the state before the step

The chart is Gymnasium's inner state: minimal, and smooth but for the velocity's clip (flagged) and
the torque's. Gymnasium observes (cos θ, sin θ, θ̇) instead, whose radial direction is in no
transition, so that a model's Jacobians in it are partly arbitrary. The wrap of the reward has
derivative 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Certificate, Linearization, Transition, check_step, sample_normal

TORQUE_LIMIT = 2.0  # N m
SPEED_LIMIT = 8.0  # rad/s
TIMESTEP = 0.05  # s
_GRAVITY = 10.0  # m/s²
_WEIGHTS = (1.0, 0.1, 0.001)
# No difference stencil is wider: beyond this distance (rad/s) from the clip it cannot be met.
STENCIL = 1e-4


@dataclass(frozen=True)
class Pendulum:
    """The system above. mass in kg, length in m; Gymnasium's are 1 and 1."""

    state_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 1
    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True

    mass: float = 1.0
    length: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mass", "length"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}, expected a positive number")

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        theta, spin = state.unbind(1)
        torque = action[:, 0].clamp(-TORQUE_LIMIT, TORQUE_LIMIT)
        faster = self._faster(theta, spin, torque).clamp(-SPEED_LIMIT, SPEED_LIMIT)
        after = torch.stack([theta + faster * TIMESTEP, faster], 1)
        cost = wrap(theta) ** 2 + _WEIGHTS[1] * spin**2 + _WEIGHTS[2] * torque**2
        return Transition(after, -cost, torch.ones_like(cost, dtype=torch.bool))

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        check_step(self, state, action, noise)
        theta, spin = state.unbind(1)
        torque = action[:, 0].clamp(-TORQUE_LIMIT, TORQUE_LIMIT)
        faster = self._faster(theta, spin, torque)
        free = (faster.abs() <= SPEED_LIMIT).to(state)
        free_torque = (action[:, 0] == torque).to(state)
        pull, push = self._gains()
        spins = torch.stack([TIMESTEP * pull * theta.cos() * free, free], 1)
        turned = torch.stack([1 + TIMESTEP * spins[:, 0], TIMESTEP * free], 1)
        by_torque = TIMESTEP * push * free * free_torque
        certificate = Certificate.exact(state)
        return Linearization(
            A=torch.stack([turned, spins], 1),
            B=torch.stack([TIMESTEP * by_torque, by_torque], 1)[:, :, None],
            r_s=-2 * torch.stack([_WEIGHTS[0] * wrap(theta), _WEIGHTS[1] * spin], 1),
            r_a=(-2 * _WEIGHTS[2] * torque * free_torque)[:, None],
            certificate=Certificate(faster.abs() > SPEED_LIMIT - STENCIL, certificate.error),
        )

    sample_noise = sample_normal

    def _gains(self) -> tuple[float, float]:
        """Angular acceleration per sin θ and per torque."""
        return 3 * _GRAVITY / (2 * self.length), 3.0 / (self.mass * self.length**2)

    def _faster(self, theta: Tensor, spin: Tensor, torque: Tensor) -> Tensor:
        """θ̇' before its clip."""
        pull, push = self._gains()
        return spin + (pull * theta.sin() + push * torque) * TIMESTEP


def wrap(angle: Tensor) -> Tensor:
    """angle − 2πk in [−π, π); its derivative is 1."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
