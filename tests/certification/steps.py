"""Torch steps and their tasks: a pendulum whose parts a test can exchange, and a network.

The pendulum is `gradlab.systems.Pendulum`, with one function for each of its nonlinearities.

A ball that two forces push over waves of ground: stiff penalty contact with friction, unit mass.

    state [x, y, ẋ, ẏ],   action [force along x, force along y] in N,   dt = 0.02 s, semi-implicit

    gap  φ = (y − h(x)) n_y,  h = w sin x,  n = (−h', 1) / √(1 + h'²),  t = (n_y, −n_x)
    N    = k depth(φ) max(1 − c v·n, 0)          (Hunt and Crossley 1975)
    v'   = v + dt (g + a + N n − μ N grip(v·t) t),   x' = x + dt v'
    r    = −(x − 1)² − 0.1 (y − 0.5)² − 0.01 |a|²   of the state before the step

Each part of the force is a function, so that a test can exchange one for a faulty one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from gradlab import tasks
from gradlab.systems import System, VehicleModel, from_function
from gradlab.systems.closed_form import SPEED_LIMIT, TIMESTEP, TORQUE_LIMIT, wrap
from gradlab.tasks import Task

Elementwise = Callable[[Tensor], Tensor]
Step = Callable[..., tuple[Tensor, Tensor]]


def clip_torque(torque: Tensor) -> Tensor:
    return torque.clamp(-TORQUE_LIMIT, TORQUE_LIMIT)


def clip_speed(speed: Tensor) -> Tensor:
    return speed.clamp(-SPEED_LIMIT, SPEED_LIMIT)


def semi_implicit(theta: Tensor, before: Tensor, after: Tensor) -> Tensor:
    return theta + TIMESTEP * after


@dataclass(frozen=True)
class PendulumParts:
    """`advance` sees θ, the speed before and the speed after."""

    gravity: Elementwise = torch.sin
    clip_torque: Elementwise = clip_torque
    clip_speed: Elementwise = clip_speed
    wrap: Elementwise = wrap
    rewarded_speed: Elementwise = torch.clone
    advance: Callable[[Tensor, Tensor, Tensor], Tensor] = semi_implicit

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        theta, spin = state.unbind(1)
        torque = self.clip_torque(action[:, 0])
        faster = self.clip_speed(spin + TIMESTEP * (15 * self.gravity(theta) + 3 * torque))
        cost = (
            self.wrap(theta) ** 2 + 0.1 * self.rewarded_speed(spin) ** 2 + 0.001 * torque.square()
        )
        return torch.stack([self.advance(theta, spin, faster), faster], 1), -cost


def pendulum_task(**parts: Callable[..., Tensor]) -> Task:
    step = PendulumParts(**parts).step
    return replace(tasks.pendulum(), simulator=from_function(step, 2, 1))


def car_task() -> Task:
    """Path tracking on the prior model: one cheap step of six states and two actions."""
    task = tasks.path_tracking()
    return replace(task, simulator=VehicleModel(), prior=None)


def normal_starts(width: int) -> Callable[[int, torch.Generator], Tensor]:
    def starts(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, width, generator=generator, dtype=torch.float64)

    return starts


def function_task(step: Step, ds: int, da: int, noise_dim: int = 0) -> Task:
    """A torch step with standard normal starts."""
    system = from_function(step, ds, da, noise_dim)
    return Task("function", system, None, normal_starts(ds), 0.98, 20)


def network(ds: int, da: int, width: int = 16, activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    """s, a → Δs with seeded weights; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width + ds)
        layers = nn.Linear(ds + da, width), activation(), nn.Linear(width, ds)
    return nn.Sequential(*layers).double().requires_grad_(False)


def network_step(net: nn.Module) -> Step:
    """s' = s + 0.3 net(s, a), r = −|s|² − 0.1 |a|²."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        change = net.to(s.dtype)(torch.cat([s, a], 1))
        return s + 0.3 * change, -s.square().sum(1) - 0.1 * a.square().sum(1)

    return step


BALL_TIMESTEP = 0.02  # s
GRAVITY = 9.81  # m/s²


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
        after, dt = state, BALL_TIMESTEP / self.substeps
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


def found(certificate):
    """A row per finding: it, its block, stratum and source, and its entries."""
    entries = certificate.table("entries")
    rows = []
    for k, finding in enumerate(certificate.findings):
        mine = list(entries[entries["finding"] == k].itertuples())
        at = {name: getattr(mine[0], name) for name in ("block", "stratum", "source")}
        names = dict(code=finding.code, decision=finding.decision, value=finding.value)
        rows.append(
            SimpleNamespace(finding=finding, entries=mine, said=finding.said, **names, **at)
        )
    return rows


def wrong(certificate):
    """Those that fail it."""
    return [each for each in found(certificate) if each.decision == "fail"]


def codes(certificate):
    return {each.code for each in certificate.findings}
