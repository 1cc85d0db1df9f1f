"""Mistakes in what automatic differentiation takes through smooth steps and clips."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradlab import tasks
from gradlab.systems import CartPoleSimulator, System, from_function
from gradlab.systems.mujoco_pendulum import pendulum_parameters
from gradlab.systems.pendulum import TIMESTEP, TORQUE_LIMIT
from gradlab.tasks import Task
from tests.certification.faults.fault import WRONG, Fault, with_derivative_of
from tests.certification.smooth_steps import (
    Step,
    car_task,
    clip_torque,
    function_task,
    network,
    network_step,
    pendulum_task,
)


def _around(system: System, step: Step) -> System:
    return from_function(step, system.state_dim, system.action_dim)


def _detached_action() -> Task:
    task = car_task()
    car = task.simulator

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = car.step(s, a.detach())
        return out.state, out.reward

    return replace(task, simulator=_around(car, step))


def _steer_in_degrees() -> Task:
    """Actions in degrees; the factor π/180 is in the forward step alone."""
    task = car_task()
    car, per_degree = task.simulator, torch.tensor([math.pi / 180, 1.0], dtype=torch.float64)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = car.step(s, with_derivative_of(a * per_degree.to(a), a))
        return out.state, out.reward

    return replace(task, simulator=_around(car, step), action_limit=(24.0, 3.0))


def _missing_substep() -> Task:
    """The derivative of two substeps of three."""
    task = tasks.inverted_pendulum("analytic")
    once = CartPoleSimulator(replace(pendulum_parameters(), substeps=1))
    reward = task.simulator

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        first = once.step(s, a).state
        after = with_derivative_of(first, s)
        for _ in range(2):
            after = once.step(after, a).state
        return after, reward.step(s, a).reward

    return replace(task, simulator=_around(once, step))


def _kills_inside(torque: Tensor) -> Tensor:
    """Inside the limits the torque is copied without its graph."""
    return torch.where(torque.abs() < TORQUE_LIMIT, torque.detach(), clip_torque(torque))


def _overwritten_sine(theta: Tensor) -> Tensor:
    """sin θ, whose saved θ is advanced in place before the derivative is taken."""
    saved = theta.clone()
    pull = saved.sin()
    saved.data.add_(0.3)
    return pull


def _half_precision() -> Task:
    """The derivative is that of the network in bfloat16."""
    exact = network_step(network(4, 2))

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after, reward = exact(s, a)
        rough = exact(s.bfloat16().to(s.dtype), a.bfloat16().to(a.dtype))[0]
        return with_derivative_of(after, rough), reward

    return function_task(step, 4, 2)


def _detached_noise() -> Task:
    """s' = m(s, a) + σ(s) ξ, whose σ depends on the state and has no graph."""
    mean = network_step(network(3, 1))

    def step(s: Tensor, a: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        after, reward = mean(s, a)
        return after + (0.3 + 0.2 * s.square()).sqrt().detach() * noise, reward

    return function_task(step, 3, 1, noise_dim=3)


STEPS = (
    Fault(
        "stop-gradient on a term", ("A",), WRONG,
        lambda: pendulum_task(gravity=lambda theta: theta.sin().detach()),
    ),
    Fault(
        "double-counted term", ("A",), WRONG,
        lambda: pendulum_task(gravity=lambda t: with_derivative_of(t.sin(), 2 * t.sin())),
    ),
    Fault(
        "in-place overwrite of a saved tensor", ("A",), WRONG,
        lambda: pendulum_task(gravity=_overwritten_sine),
    ),
    Fault(
        "clip without derivative (straight through)", ("B", "r_a"), WRONG,
        lambda: pendulum_task(clip_torque=lambda u: with_derivative_of(clip_torque(u), u)),
    ),
    Fault(
        "clip that kills the derivative inside", ("B", "r_a"), WRONG,
        lambda: pendulum_task(clip_torque=_kills_inside),
    ),
    Fault(
        "explicit derivative of a semi-implicit step", ("A", "B"), WRONG,
        lambda: pendulum_task(
            advance=lambda theta, before, after: with_derivative_of(
                theta + TIMESTEP * after, theta + TIMESTEP * before
            )
        ),
    ),
    Fault("detached action", ("B", "r_a"), WRONG, _detached_action),
    Fault("derivative per degree taken for one per radian", ("B", "r_a"), WRONG, _steer_in_degrees),
    Fault("missing substep", ("A", "B"), WRONG, _missing_substep),
    Fault("half precision", ("A", "B"), (*WRONG, "single precision"), _half_precision),
    Fault("detached noise", ("A",), WRONG, _detached_noise),
)  # fmt: skip
