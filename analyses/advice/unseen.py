"""Twelve further worlds, none of which shaped the advice, each with a wrong model.

    smooth   arm, unicycle, beam, crane, satellite     another mass, inertia or friction
    noisy    tanks, rooms, harvest                     a drift that the model does not have
    jumps    kerb, glacier, dinghy, ledge              a cost, a friction, a thrust, a floor

Each is a step of so many seconds, written once for simulator and model: `real` has what the model
lacks. Policies of 2 × 32 units are 15, 60 or 200 updates of backpropagation through the simulator
old; critics are fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from analyses.advice.worlds import World
from gradlab.systems import from_function
from gradlab.tasks import Task

_Step = Callable[..., tuple[Tensor, Tensor]]
STAGES = (15, 60, 200)  # updates


def _task(
    name: str,
    step: Callable[[bool], _Step],
    centre: Sequence[float],
    spread: Sequence[float],
    actions: int,
    noise: int = 0,
    discount: float = 0.97,
) -> Task:
    """Starts are normal; the model is the step without what is `real`."""

    def starts(n: int, generator: torch.Generator) -> Tensor:
        draw = torch.randn(n, len(centre), generator=generator, dtype=torch.float64)
        return draw * draw.new_tensor(spread) + draw.new_tensor(centre)

    simulator, model = (
        from_function(step(real), len(centre), actions, noise) for real in (True, False)
    )
    return Task(name, simulator, model, starts, discount, 16)


def _row(*columns: Tensor) -> Tensor:
    return torch.stack(columns, 1)


def arm(real: bool) -> _Step:
    """Two links reach for a point; the model's outer link is a third lighter."""
    m1, m2, dt = 1.0, 1.0 if real else 0.67, 0.05

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        q1, q2, w1, w2 = s.unbind(1)
        torque = 6 * torch.tanh(a)
        c = torch.cos(q2)
        M11, M12, M22 = m1 / 3 + m2 * (4 / 3 + c), m2 * (1 / 3 + c / 2), m2 / 3
        h = m2 * torch.sin(q2) / 2
        f1 = torque[:, 0] + h * (2 * w1 * w2 + w2**2) - 4.9 * (m1 + 2 * m2) * torch.sin(q1)
        f1 = f1 - 4.9 * m2 * torch.sin(q1 + q2) - 0.3 * w1
        f2 = torque[:, 1] - h * w1**2 - 4.9 * m2 * torch.sin(q1 + q2) - 0.3 * w2
        det = M11 * M22 - M12**2
        w1 = w1 + dt * (M22 * f1 - M12 * f2) / det
        w2 = w2 + dt * (M11 * f2 - M12 * f1) / det
        q1, q2 = q1 + dt * w1, q2 + dt * w2
        x, y = torch.sin(q1) + torch.sin(q1 + q2), -torch.cos(q1) - torch.cos(q1 + q2)
        cost = (x - 1.0) ** 2 + (y + 0.8) ** 2 + 0.02 * (w1**2 + w2**2) + 0.01 * a.square().sum(1)
        return _row(q1, q2, w1, w2), -cost

    return step


def unicycle(real: bool) -> _Step:
    """A wheeled robot parks; it drags, and slips sideways in turns."""
    dt = 0.1

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, y, th, v, w = s.unbind(1)
        v = v + dt * (2 * torch.tanh(a[:, 0]) - (0.4 * v if real else 0.0))
        w = w + dt * (3 * torch.tanh(a[:, 1]) - w)
        th = th + dt * w
        slip = 0.25 * v * w if real else torch.zeros_like(v)
        x = x + dt * (v * torch.cos(th) - slip * torch.sin(th))
        y = y + dt * (v * torch.sin(th) + slip * torch.cos(th))
        cost = x**2 + y**2 + 0.1 * (v**2 + w**2) + 0.02 * a.square().sum(1)
        return _row(x, y, th, v, w), -cost

    return step


def beam(real: bool) -> _Step:
    """A ball on a beam that is to balance it; the model's beam has less inertia."""
    dt, inertia = 0.05, 1.0 if real else 0.7

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, v, th, w = s.unbind(1)
        v = v + dt * (0.71 * (x * w**2 - 9.81 * torch.sin(th)))
        w = w + dt * (8 * torch.tanh(a[:, 0]) - 2 * x * v * w - 0.5 * w) / (inertia + 0.2 * x**2)
        x, th = x + dt * v, th + dt * w
        cost = x**2 + 0.1 * v**2 + th**2 + 0.05 * w**2 + 0.02 * a[:, 0] ** 2
        return _row(x, v, th, w), -cost

    return step


def crane(real: bool) -> _Step:
    """A trolley moves a hanging load; the model's rope is longer, and it has no friction."""
    dt, rope, friction = 0.1, 1.0 if real else 1.3, 0.4 if real else 0.0

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, v, th, w = s.unbind(1)
        push = 3 * torch.tanh(a[:, 0]) - friction * v
        w = w - dt * (9.81 * torch.sin(th) + push * torch.cos(th) + 0.05 * w) / rope
        v = v + dt * push
        x, th = x + dt * v, th + dt * w
        cost = (x + rope * torch.sin(th)) ** 2 + 0.1 * v**2 + th**2 + 0.02 * a[:, 0] ** 2
        return _row(x, v, th, w), -cost

    return step


def satellite(real: bool) -> _Step:
    """A rigid body turns to rest, small angles; the model takes it for a ball."""
    dt, (i1, i2, i3) = 0.1, (1.0, 1.6, 0.6) if real else (1.0, 1.0, 1.0)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        angle, w = s[:, :3], s[:, 3:]
        torque = torch.tanh(a)
        turned = _row(
            (torque[:, 0] - (i3 - i2) * w[:, 1] * w[:, 2]) / i1,
            (torque[:, 1] - (i1 - i3) * w[:, 2] * w[:, 0]) / i2,
            (torque[:, 2] - (i2 - i1) * w[:, 0] * w[:, 1]) / i3,
        )
        w = w + dt * turned
        angle = angle + dt * w + 0.5 * dt * torch.linalg.cross(angle, w)
        cost = angle.square().sum(1) + 0.2 * w.square().sum(1) + 0.02 * a.square().sum(1)
        return torch.cat([angle, w], 1), -cost

    return step


def tanks(real: bool) -> _Step:
    """Two tanks in a row with a noisy inflow; the model's outflow is linear."""
    dt = 0.2

    def out(h: Tensor) -> Tensor:
        return 0.5 * (h.abs() + 0.01).sqrt() * h.sign() if real else 0.35 * h

    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        h1, h2 = s.unbind(1)
        pump = 0.5 + 0.5 * torch.tanh(a[:, 0])
        h1 = h1 + dt * (pump - out(h1)) + 0.03 * xi[:, 0]
        h2 = h2 + dt * (out(h1) - out(h2)) + 0.03 * xi[:, 1]
        return _row(h1, h2), -((h2 - 1.0) ** 2) - 0.2 * (h1 - 1.0) ** 2 - 0.05 * a[:, 0] ** 2

    return step


def rooms(real: bool) -> _Step:
    """Three rooms are heated; the weather is noisy, and the model's walls are tight."""
    dt, leak = 0.25, 0.3 if real else 0.12

    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        warm, outside = s[:, :3], s[:, 3]
        heat = 1.5 * torch.tanh(a)
        between = warm.roll(1, 1) + warm.roll(-1, 1) - 2 * warm
        drift = -leak * (warm - outside[:, None]) + 0.2 * between + heat
        warm = warm + dt * drift + 0.05 * xi[:, :3]
        outside = outside + dt * (-0.1 * (outside + 2.0)) + 0.1 * xi[:, 3]
        cost = torch.nn.functional.softplus(4 * (warm.abs() - 0.3)).sum(1) / 4
        return torch.cat([warm, outside[:, None]], 1), -cost - 0.1 * a.square().sum(1)

    return step


def harvest(real: bool) -> _Step:
    """Fish and their predator, in logarithms; the model's predator eats less. Rewards are gains."""
    dt, eats = 0.1, 1.0 if real else 0.75

    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        x, y = s.unbind(1)
        effort = torch.sigmoid(a[:, 0])
        prey, predator = x.clamp(max=3).exp(), y.clamp(max=3).exp()
        x = x + dt * (1.0 - 0.3 * prey - eats * predator / (1 + prey) - effort) + 0.05 * xi[:, 0]
        y = y + dt * (0.8 * prey / (1 + prey) - 0.5) + 0.05 * xi[:, 1]
        return _row(x.clamp(-4, 3), y.clamp(-4, 3)), effort * prey - 0.3 * effort**2

    return step


def kerb(real: bool) -> _Step:
    """A cart on a road of 1.2 m: beyond its kerbs every step costs 2, which no model knows."""
    dt = 0.1

    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        y, v, psi = s.unbind(1)
        psi = psi + dt * (1.5 * torch.tanh(a[:, 0]) - 0.2 * psi) + 0.03 * xi[:, 0]
        v = v + dt * (5 * torch.sin(psi) - v)
        y = y + dt * v
        cost = 0.3 * (y - 0.4) ** 2 + 0.1 * v**2 + psi**2 + 0.05 * a[:, 0] ** 2
        return _row(y, v, psi), -cost - (2.0 * (y.abs() > 0.6) if real else 0.0)

    return step


def glacier(real: bool) -> _Step:
    """A sled on ice that sticks below a push; the model has smooth friction."""
    dt = 0.1

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, v = s.unbind(1)
        push = 2 * torch.tanh(a[:, 0])
        if real:
            moved = v + dt * (push - 0.6 * v.sign())
            sticks = ((v * moved) <= 0) & (push.abs() < 0.8)
            v = torch.where(sticks, torch.zeros_like(v), moved)
        else:
            v = v + dt * (push - 0.6 * torch.tanh(2 * v))
        x = x + dt * v
        return _row(x, v), -((x - 1.0) ** 2) - 0.1 * v**2 - 0.05 * a[:, 0] ** 2

    return step


def dinghy(real: bool) -> _Step:
    """A boat sails upwind; within 40° of the wind its sail is empty, at once, which no model knows.
    Rewards are metres to windward."""
    dt = 0.2

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        y, th, v, w = s.unbind(1)
        w = w + dt * (2 * torch.tanh(a[:, 0]) - 1.5 * w)
        th = th + dt * w
        angle = th.abs()
        thrust = 1.5 * torch.sin(angle.clamp(0, 2.5)) + 0.3
        thrust = torch.where(angle < 0.7, torch.zeros_like(v), thrust) if real else thrust
        v = v + dt * (thrust - 0.6 * v - 0.2 * v * v.abs())
        made = v * torch.cos(th)
        y = y + dt * made
        return _row(y, th, v, w), made - 0.05 * w**2 - 0.02 * a[:, 0] ** 2

    return step


def ledge(real: bool) -> _Step:
    """A hovering disc above a table whose edge lies at x = .8: beyond it nothing carries it."""
    dt = 0.1

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, z, v, w = s.unbind(1)
        lift = torch.where(x > 0.8, 0.2, 1.0) if real else torch.ones_like(x)
        v = v + dt * (2 * torch.tanh(a[:, 0]) - 0.3 * v)
        w = w + dt * (lift * (1 + torch.tanh(a[:, 1])) - 1.0 - 0.8 * w)
        x, z = x + dt * v, z + dt * w
        cost = (x - 0.7) ** 2 + (z - 1.0) ** 2 + 0.1 * (v**2 + w**2) + 0.02 * a.square().sum(1)
        return _row(x, z, v, w), -cost

    return step


def _world(kind: str, step: Callable[[bool], _Step], *about: object) -> World:
    make = partial(_task, step.__name__, step, *about)  # type: ignore[arg-type]
    return World(
        kind, lambda seed: make(), STAGES, starts=128, judges=1024, steps=200, batch=64,
        rivals=(0, 1, 4, 16), seeds=(31, 32, 33),
    )  # fmt: skip


UNSEEN = {
    "arm": _world("smooth", arm, (0.0, 0.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.5), 2),
    "unicycle": _world("smooth", unicycle, (-1.0, 0.5, 0.0, 0.0, 0.0), (0.4,) * 5, 2),
    "beam": _world("smooth", beam, (0.0,) * 4, (0.3, 0.2, 0.1, 0.1), 1),
    "crane": _world("smooth", crane, (-1.5, 0.0, 0.0, 0.0), (0.5, 0.2, 0.2, 0.2), 1),
    "satellite": _world("smooth", satellite, (0.0,) * 6, (0.6,) * 6, 3),
    "tanks": _world("noisy", tanks, (0.5, 0.5), (0.2, 0.2), 1, 2),
    "rooms": _world("noisy", rooms, (0.0, 0.0, 0.0, -2.0), (1.0, 1.0, 1.0, 1.0), 3, 4),
    "harvest": _world("noisy", harvest, (0.0, -0.5), (0.4, 0.4), 1, 2),
    "kerb": _world("jumps", kerb, (0.0, 0.0, 0.0), (0.3, 0.2, 0.1), 1, 1),
    "glacier": _world("jumps", glacier, (0.0, 0.0), (0.5, 0.5), 1),
    "dinghy": _world("jumps", dinghy, (0.0, 0.8, 0.5, 0.0), (0.5, 0.4, 0.2, 0.2), 1),
    "ledge": _world("jumps", ledge, (0.0, 1.0, 0.0, 0.0), (0.3, 0.3, 0.2, 0.2), 2),
}
