"""More than two hundred systems whose derivatives are right, to measure false alarms.

gradlab's own tasks and priors, random linear-quadratic systems in hostile units, random networks
with smooth and kinked activations, contact with and without jumps, clips, dead zones, stiff and
chaotic steps, and steps that compute in single precision throughout.
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
from tests.certification.contact import Ball, ball_task
from tests.certification.smooth_steps import function_task, normal_starts
from tests.certification.sound_steps import HAND_MADE, far, tiny

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
