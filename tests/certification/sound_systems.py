"""More than two hundred systems whose derivatives are right, to measure false alarms.

gradlab's own tasks and priors, random linear-quadratic systems in hostile units, random networks
with smooth and kinked activations, contact with and without jumps, clips, dead zones, stiff and
chaotic steps, and steps that compute in single precision throughout.

Torch steps written by hand whose derivatives are right, and hard to certify.

Jumps and kinks, clips, dead zones, tables, windows; stiff, chaotic and implicit steps; odd units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from gradlab import tasks
from gradlab.systems import CartPoleModel, VehicleModel, from_function
from gradlab.tasks import Task
from tests.certification.steps import BALL_TIMESTEP as TIMESTEP
from tests.certification.steps import Ball, Step, ball_task, function_task, normal_starts


def _bounce(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A ball whose velocity jumps by restitution: between jumps the derivative is right."""
    y, speed = s[:, 0], s[:, 1] + TIMESTEP * (a[:, 0] - 9.81)
    below = y + TIMESTEP * speed
    hit = (below < 0) & (speed < 0)
    after = torch.stack(
        [torch.where(hit, -0.8 * below, below), torch.where(hit, -0.8 * speed, speed)], 1
    )
    return after, -((after[:, 0] - 1) ** 2)


def _stiff(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Implicit Euler of a 1e6-stiff spring between two masses."""
    k, dt = 1e6, 1e-2
    grid = torch.tensor([[1 + k * dt**2, -k * dt**2], [-k * dt**2, 1 + k * dt**2]], dtype=s.dtype)
    pushed = s[:, 2:] + dt * a
    pull = dt * k * (s[:, :2].flip(1) - s[:, :2])
    speed = torch.linalg.solve(grid, (pushed + pull)[..., None])[..., 0]
    after = torch.cat([s[:, :2] + dt * speed, speed], 1)
    return after, -s.square().sum(1)


def _clipped(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    speed = (s[:, 1:] + 0.2 * a.clamp(-0.5, 0.5)).clamp(-1, 1)
    return torch.cat([(s[:, :1] + 0.2 * speed).clamp(-2, 2), speed], 1), -s.square().sum(1)


def _dead_zone(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * s + nn.functional.hardshrink(a, 0.3), -s.abs().sum(1)


def _stick(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Coulomb friction that holds: speeds below what it can brake become 0."""
    pushed = s[:, 1:] + 0.1 * a
    speed = pushed.sign() * (pushed.abs() - 0.05).clamp(min=0)
    return torch.cat([s[:, :1] + 0.1 * speed, speed], 1), -s.square().sum(1)


def _rounded(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A sensor that counts whole ticks of 1/64: its derivative is 0 almost everywhere."""
    after = 0.9 * s + 0.3 * torch.tanh(a)
    return after, -((s * 64).round() / 64).square().sum(1)


def tiny(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """States near 1e-8, actions near 1."""
    return 1e-8 * (torch.sin(1e8 * s) + torch.tanh(a)), -(1e6 * s).square().sum(1)


def _huge(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 1e9 * torch.tanh(s) + 1e3 * a, 1e12 * torch.cos(s).sum(1)


def _logistic(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Chaos: 3.9 x (1 − x), twelve times a step."""
    x = torch.sigmoid(s)
    for _ in range(12):
        x = 3.9 * x * (1 - x)
    return torch.logit(0.01 + 0.98 * x) + 0.1 * a, -s.square().sum(1)


def _wrapped(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    angle = s[:, :1] + 0.3 * s[:, 1:]
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    speed = 0.95 * s[:, 1:] + 0.4 * torch.sin(3 * s[:, :1]) + a
    return torch.cat([wrapped, speed], 1), torch.cos(s[:, 0]) - 0.1 * s[:, 1] ** 2


def _sticky_max(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.maximum(0.8 * s + a, torch.minimum(s, a + 0.5)), -s.norm(dim=1)


def _gated(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A controller that switches between two dynamics."""
    on = s[:, :1] > 0.2
    return torch.where(on, 0.5 * s - a, torch.sin(2 * s) + a), -s.square().sum(1)


def _steep(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A softened contact, steeper than any difference can see from afar."""
    return s + 0.1 * torch.tanh(1e3 * (s - a)), -nn.functional.softplus(50 * s).sum(1) / 50


def _exponential(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - torch.exp(-2 * s.abs()) + a, -torch.expm1(s.abs()).sum(1)


def _solved(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """x' = s + 0.3 tanh(x' + a) by Newton's method to 1e-9 over the batch, derivative implicit."""
    with torch.no_grad():
        x = s.clone()
        for _ in range(50):
            slope = 1 - 0.3 / torch.cosh(x + a).square()
            change = (s + 0.3 * torch.tanh(x + a) - x) / slope
            x = x + 0.7 * change
            if bool(change.abs().max() < 1e-9):
                break
        slope = 1 - 0.3 / torch.cosh(x + a).square()
    residual = s + 0.3 * torch.tanh(x + a) - x
    after = x + (residual - residual.detach()) / slope
    return after, -after.square().sum(1)


def _heights(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Terrain from a table, interpolated linearly every 5 cm."""
    grid = s[:, 0] / 0.05
    cell = grid.floor()
    left, right = torch.sin(7 * 0.05 * cell), torch.sin(7 * 0.05 * (cell + 1))
    height = left + (grid - cell) * (right - left)
    speed = s[:, 1] + 0.1 * (a[:, 0] - height)
    return torch.stack([s[:, 0] + 0.1 * speed, speed], 1), -height.square()


def _unrewarded(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A parameter is a coordinate that never changes; every reward is 1."""
    return torch.stack([s[:, 0].cos() * s[:, 1] + a[:, 0], s[:, 1]], 1), torch.ones_like(s[:, 0])


def far(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in a national grid, where the origin is a thousand kilometres away."""
    x = s[:, :1] - 1e6
    return torch.cat([1e6 + torch.sin(2 * x) + s[:, 1:], 0.9 * s[:, 1:] + a], 1), -(x[:, 0] ** 2)


def _bistable(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Two hundred small steps of a double well."""
    x = s
    for _ in range(200):
        x = x + 0.02 * (x - x**3 + 0.2 * a)
    return x, -(x - 1).square().sum(1)


def _sorted(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return s.sort(1).values * 0.9 + 0.1 * a.cumsum(1), s.median(1).values


def _pulses(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A reward in a narrow window, and a short-range force."""
    force = torch.exp(-((s / 0.02) ** 2))
    return s + 0.1 * a - 0.05 * s * force, torch.exp(-((s - 1) / 0.01).square()).sum(1)


def _quaternion(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """A turned and renormalised unit quaternion."""
    w, x, y, z = s.unbind(1)
    p, q, r = 0.1 * a.unbind(1)[0], 0.1 * a.unbind(1)[1], 0.1 * a.unbind(1)[2]
    turned = [w - x * p - y * q - z * r, x + w * p + y * r - z * q]
    turned += [y + w * q + z * p - x * r, z + w * r + x * q - y * p]
    after = torch.stack(turned, 1)
    return after / after.norm(dim=1, keepdim=True), after[:, 0]


HAND_MADE: dict[str, tuple[Step, int, int]] = {
    "restitution": (_bounce, 2, 1),
    "stiff spring": (_stiff, 4, 2),
    "clips": (_clipped, 2, 1),
    "dead zone": (_dead_zone, 2, 2),
    "sticking friction": (_stick, 2, 1),
    "rounded sensor": (_rounded, 2, 2),
    "huge units": (_huge, 2, 2),
    "chaos": (_logistic, 2, 2),
    "wrapped angle": (_wrapped, 2, 1),
    "maximum and minimum": (_sticky_max, 3, 3),
    "switched dynamics": (_gated, 2, 2),
    "steep tanh": (_steep, 2, 2),
    "exponential": (_exponential, 2, 2),
    "implicit step": (_solved, 3, 3),
    "table of heights": (_heights, 2, 1),
    "unrewarded parameter": (_unrewarded, 2, 1),
    "double well": (_bistable, 2, 2),
    "sorted": (_sorted, 4, 4),
    "pulses": (_pulses, 2, 2),
    "quaternion": (_quaternion, 4, 3),
}


LINEAR, NETWORKS, BALLS = 60, 64, 44
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.Tanh, nn.SiLU, nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Softplus, nn.GELU, nn.Hardtanh,
)  # fmt: skip


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradlab_tasks() -> Iterator[tuple[str, Task]]:
    """In torch; MuJoCo's are in `mujoco_tasks`."""
    path, pole = tasks.path_tracking, tasks.inverted_pendulum
    yield "path tracking", path()
    yield "path tracking, published code", path("code")
    yield "pendulum", tasks.pendulum()
    yield "pendulum on the circle", tasks.pendulum(coordinates="circle")
    yield "long heavy pendulum", replace(tasks.pendulum(), simulator=tasks.pendulum(3, 2).prior)
    yield "cart-pole swing-up", tasks.cart_pole_swing_up()
    yield "double integrator", tasks.double_integrator()
    yield "linear-quadratic", tasks.linear_quadratic()
    yield "vehicle prior", replace(path(), simulator=VehicleModel(), prior=None)
    for reward in ("pre_step", "post_step"):
        yield f"cart-pole, {reward}", pole("analytic", reward=reward)
        yield (
            f"cart-pole prior, {reward}",
            replace(pole("analytic"), simulator=CartPoleModel(reward), prior=None),
        )


def mujoco_tasks() -> Iterator[tuple[str, Task]]:
    yield "MuJoCo pendulum", tasks.inverted_pendulum()
    for name in ("InvertedPendulum-v5", "Hopper-v5"):
        yield name, tasks.mujoco(name)


def linear(seed: int) -> Task:
    """Random A, B, Q, R; every third in units from 1e-4 to 1e4, every fifth with an action that
    does nothing, every seventh with a reward that no state enters."""
    generator = _generator(seed)
    ds, da = 1 + seed % 8, 1 + seed % 3
    A = _normal(generator, ds, ds) * (0.3 + seed % 4) / math.sqrt(ds)
    B, Q, R = (_normal(generator, *shape) for shape in ((ds, da), (ds, ds), (da, da)))
    if seed % 3 == 0:
        unit = 10.0 ** (8 * torch.rand(ds, generator=generator, dtype=torch.float64) - 4)
        A, B = unit[:, None] * A / unit, unit[:, None] * B
    if seed % 5 == 0:
        B[:, 0] = 0.0
    if seed % 7 == 0:
        Q = torch.zeros_like(Q)
    return tasks.linear_quadratic(A=A, B=B, Q=Q @ Q.T, R=R @ R.T)


def _layers(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Module:
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1]).double().requires_grad_(False)


def _cost(after: Tensor, s: Tensor, a: Tensor) -> Tensor:
    return -after.square().sum(1) - 0.1 * a.square().sum(1)


def _absolute_cost(after: Tensor, s: Tensor, a: Tensor) -> Tensor:
    return -s.abs().sum(1) - a.abs().sum(1)


def _largest(after: Tensor, s: Tensor, a: Tensor) -> Tensor:
    return -s.abs().amax(1) - 0.1 * a.square().sum(1)


def _at_the_goal(after: Tensor, s: Tensor, a: Tensor) -> Tensor:
    return torch.exp(-after.square().sum(1))


COSTS = (_cost, _absolute_cost, _largest, _at_the_goal)


def net(seed: int) -> Task:
    """s' = s + c net(s, a), one to three hidden layers, c up to 3: a few are chaotic."""
    ds, da = 1 + seed % 6, 1 + seed % 2
    hidden = (8 + 8 * (seed % 4),) * (1 + seed // 8 % 3)
    layers = _layers((ds + da, *hidden, ds), ACTIVATIONS[seed % len(ACTIVATIONS)], seed)
    gain, cost = (0.1, 0.3, 1.0, 3.0)[seed // 16], COSTS[seed // 4 % 4]

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after = s + gain * layers.to(s.dtype)(torch.cat([s, a], 1))
        return after, cost(after, s, a)

    return function_task(step, ds, da)


def ball(seed: int) -> Task:
    """Soft and hard ground, flat and wavy, slippery and sticky, in one to four substeps."""
    return ball_task(
        Ball(
            stiffness=(50.0, 400.0, 2000.0, 10000.0)[seed % 4],
            damping=0.1 * (seed % 5),
            friction=(0.0, 0.5, 2.0)[seed % 3],
            waves=(0.0, 0.1, 0.3)[seed // 3 % 3],
            substeps=(2, 1, 4, 8)[seed % 4],
        )
    )


def noisy(seed: int) -> Task:
    """State-dependent noise, additive and not."""
    mean = net(seed).simulator

    def step(s: Tensor, a: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        out = mean.step(s, a + 0.1 * noise[:, :1])
        return out.state + 0.1 * s.cos() * noise[:, 1:], out.reward

    ds, da = mean.state_dim, mean.action_dim
    return replace(function_task(step, ds, da, 1 + ds), starts=normal_starts(ds))


def in_single_precision(task: Task) -> Task:
    """The same, computed in float32 whatever it is called with: as most engines do."""
    exact = task.simulator

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = exact.step(s.float(), a.float())
        return out.state.to(s.dtype), out.reward.to(s.dtype)

    return replace(
        task, simulator=from_function(step, exact.state_dim, exact.action_dim), prior=None
    )


def elsewhere() -> Iterator[tuple[str, Task]]:
    """States that are not near 1."""
    for name, step, size, centre in (("tiny units", tiny, 1e-8, 0.0), ("far", far, 1.0, 1e6)):
        task = function_task(step, 2, 1 if step is far else 2)
        offset = torch.tensor([centre, 0.0], dtype=torch.float64)

        def starts(
            n: int, generator: torch.Generator, size: float = size, offset: Tensor = offset
        ) -> Tensor:
            return offset + size * _normal(generator, n, 2)

        yield name, replace(task, starts=starts)


def computed_in_single_precision() -> Iterator[tuple[str, Task]]:
    """In double precision, before `in_single_precision`."""
    for seed in (0, 1, 11, 25):
        yield f"network {seed}", net(seed)
    for seed in (0, 5, 10):
        yield f"ball {seed}", ball(seed)
    yield "pendulum", tasks.pendulum()
    yield "path tracking", tasks.path_tracking()


def sound_tasks() -> Iterator[tuple[str, Task]]:
    """All but MuJoCo's."""
    yield from gradlab_tasks()
    yield from ((f"linear {seed}", linear(seed)) for seed in range(LINEAR))
    for seed in range(NETWORKS):
        yield f"network {seed}, {ACTIVATIONS[seed % len(ACTIVATIONS)].__name__}", net(seed)
    yield from ((f"ball {seed}", ball(seed)) for seed in range(BALLS))
    yield from ((name, function_task(*row)) for name, row in HAND_MADE.items())
    yield from elsewhere()
    yield from ((f"noisy {seed}", noisy(seed)) for seed in (0, 3, 9, 17))
    for name, task in computed_in_single_precision():
        yield f"{name} in float32", in_single_precision(task)
