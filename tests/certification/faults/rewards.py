"""Mistakes in the derivative of the reward alone."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.systems import from_function
from gradlab.systems.pendulum import wrap
from gradlab.tasks import Task
from tests.certification.faults.fault import WRONG, Fault, with_derivative_of
from tests.certification.smooth_steps import function_task, pendulum_task

EARTH = 6.4e6  # m


def _moved(s: Tensor, a: Tensor) -> Tensor:
    """A mass on a line, 0.1 s."""
    return torch.stack([s[:, 0] + 0.1 * s[:, 1], s[:, 1] + 0.1 * a[:, 0]], 1)


def _absolute(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """−|p|, whose derivative has no sign."""
    return _moved(s, a), -with_derivative_of(s[:, 0].abs(), s[:, 0])


def _distance(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """√ of a square that is 0 at the goal."""
    return _moved(s, a), -s.square().sum(1).sqrt()


def _altitude(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The position is measured from the centre of the Earth, then from its surface."""
    return _moved(s, a), -(((EARTH + s[:, 0]) - EARTH) ** 2)


def _half_at_the_goal() -> Task:
    def starts(n: int, generator: torch.Generator) -> Tensor:
        begin = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return begin * (torch.arange(n) % 2)[:, None]

    return Task("reach", from_function(_distance, 2, 1), None, starts, 0.98, 20)


def _half_wrapped(theta: Tensor) -> Tensor:
    """atan2(sin θ, cos θ), whose sine was computed without a graph."""
    return with_derivative_of(wrap(theta), torch.atan2(theta.sin().detach(), theta.cos()))


REWARDS = (
    Fault(
        "dead reward column", ("r_s",), WRONG,
        lambda: pendulum_task(rewarded_speed=torch.Tensor.detach),
    ),
    Fault(
        "angle wrap's derivative", ("r_s",), WRONG,
        lambda: pendulum_task(wrap=_half_wrapped),
    ),
    Fault("abs() without its sign", ("r_s",), WRONG, lambda: function_task(_absolute, 2, 1)),
    # Backpropagation sends 0 · NaN from the reward into the next state's rows, too.
    Fault("sqrt() at 0", ("A", "r_s"), ("not finite",), _half_at_the_goal),
    Fault(
        "float32 cancellation", ("r_s",), ("single precision",),
        lambda: function_task(_altitude, 2, 1),
    ),
)  # fmt: skip
