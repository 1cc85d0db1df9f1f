"""A ball that two forces push over waves of ground: stiff penalty contact with friction, unit mass.

    state [x, y, ẋ, ẏ],   action [force along x, force along y] in N,   dt = 0.02 s, semi-implicit

    gap  φ = (y − h(x)) n_y,  h = w sin x,  n = (−h', 1) / √(1 + h'²),  t = (n_y, −n_x)
    N    = k depth(φ) max(1 − c v·n, 0)          (Hunt and Crossley 1975)
    v'   = v + dt (g + a + N n − μ N grip(v·t) t),   x' = x + dt v'
    r    = −(x − 1)² − 0.1 (y − 0.5)² − 0.01 |a|²   of the state before the step

Each part of the force is a function, so that a test can exchange one for a faulty one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.systems import System, from_function
from gradlab.tasks import Task

TIMESTEP = 0.02  # s
GRAVITY = 9.81  # m/s²
Elementwise = Callable[[Tensor], Tensor]


def depth(gap: Tensor) -> Tensor:
    return (-gap).clamp(min=0)


def grip(slip: Tensor) -> Tensor:
    """Coulomb's friction, regularised below 0.3 m/s."""
    return (slip / 0.3).clamp(-1, 1)


@dataclass(frozen=True)
class Ball:
    """The parts above, and k (N/m), c (s/m), μ, w (m).

    `normal_force` sees k depth · max(1 − c v_n, 0) and the approach speed −v_n; `normal_slope` sees
    h'(x) where it turns the contact's normal.
    """

    stiffness: float = 400.0
    damping: float = 0.3
    friction: float = 0.5
    waves: float = 0.2
    substeps: int = 1
    depth: Elementwise = depth
    grip: Elementwise = grip
    normal_slope: Elementwise = torch.clone
    normal_force: Callable[[Tensor, Tensor], Tensor] = lambda force, approach: force

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x, y = state[:, 0], state[:, 1]
        reward = -((x - 1) ** 2) - 0.1 * (y - 0.5) ** 2 - 0.01 * action.square().sum(1)
        after, dt = state, TIMESTEP / self.substeps
        for _ in range(self.substeps):
            speed = after[:, 2:] + dt * (self.force(after) + action)
            after = torch.cat([after[:, :2] + dt * speed, speed], 1)
        return after, reward

    def force(self, state: Tensor) -> Tensor:
        """Gravity and contact, [N, 2]."""
        x, y, speed = state[:, 0], state[:, 1], state[:, 2:]
        slope = self.normal_slope(self.waves * x.cos())
        up = 1 / (1 + slope.square()).sqrt()
        normal = torch.stack([-slope * up, up], 1)
        tangent = torch.stack([up, slope * up], 1)
        approach = -(speed * normal).sum(1)
        pressed = self.depth((y - self.waves * x.sin()) * up)
        push = self.stiffness * pressed * (1 + self.damping * approach).clamp(min=0)
        push = self.normal_force(push, approach)
        drag = self.friction * push * self.grip((speed * tangent).sum(1))
        weight = torch.stack([torch.zeros_like(x), torch.full_like(x, -GRAVITY)], 1)
        return weight + push[:, None] * normal - drag[:, None] * tangent

    def system(self) -> System:
        return from_function(self.step, state_dim=4, action_dim=2)


def starts(n: int, generator: torch.Generator) -> Tensor:
    """x ~ U(−3, 3), from 2 cm in the ground to 30 cm above it, velocities N(0, 0.5)."""
    place, height = torch.rand(2, n, generator=generator, dtype=torch.float64)
    speed = 0.5 * torch.randn(2, n, generator=generator, dtype=torch.float64)
    x = 6 * place - 3
    return torch.stack([x, 0.2 * x.sin() - 0.02 + 0.32 * height, speed[0], speed[1]], 1)


def ball_task(ball: Ball | None = None) -> Task:
    system = (Ball() if ball is None else ball).system()
    names = ("x [m]", "y [m]", "ẋ [m/s]", "ẏ [m/s]")
    return Task("ball", system, None, starts, 0.98, 20, names, ("along x [N]", "along y [N]"))
