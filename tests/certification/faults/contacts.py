"""Mistakes that show only while the ball touches the ground, or only while it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gradlab.tasks import Task
from tests.certification.contact import Ball, ball_task, depth, grip
from tests.certification.faults.fault import WRONG, Fault, with_backward, with_derivative_of

SMOOTHNESS = 0.01  # m
EXPLODED = 5.0  # of ∂v'/∂gap in 1/s, which is 8 in most contacts


def soft_depth(gap: Tensor) -> Tensor:
    return SMOOTHNESS * torch.nn.functional.softplus(-gap / SMOOTHNESS)


def _guarded(gap: Tensor) -> Tensor:
    """Gradients that are large are taken for numerical failures and dropped."""

    def guard(gradient: Tensor) -> Tensor:
        return torch.where(gradient.abs() < EXPLODED, gradient, torch.zeros_like(gradient))

    return depth(with_backward(gap, guard))


def _weaker_when_fast(force: Tensor, approach: Tensor) -> Tensor:
    """Right at rest, 30% too weak above 0.5 m/s of approach."""
    return with_derivative_of(force, torch.where(approach > 0.5, 0.7 * force, force))


def _masked_root(gap: Tensor) -> Tensor:
    """Hertz's depth^1.5, whose root of a negative depth is masked in the value alone."""
    return torch.where(gap < 0, -gap * (-gap).sqrt() / 0.1, torch.zeros_like(gap))


def _ball(**parts: Callable[..., Tensor]) -> Task:
    return ball_task(replace(Ball(), **parts))


CONTACTS = (
    Fault(
        "frozen contact normal", ("A",), WRONG,
        lambda: _ball(normal_slope=torch.Tensor.detach),
    ),
    Fault(
        "contact gradient zero", ("A",), WRONG,
        lambda: _ball(normal_force=lambda force, approach: force.detach()),
    ),
    Fault(
        "friction's sign at rest", ("A",), WRONG,
        lambda: _ball(grip=lambda slip: grip(slip).detach()),
    ),
    Fault(
        "softplus derivative approximated", ("A",), WRONG,
        lambda: _ball(depth=lambda gap: with_derivative_of(soft_depth(gap), depth(gap))),
    ),
    Fault("NaN guard that zeroes the gradient", ("A",), WRONG, lambda: _ball(depth=_guarded)),
    Fault(
        "wrong backward of a rare stratum", ("A",), WRONG,
        lambda: _ball(normal_force=_weaker_when_fast),
    ),
    # Backpropagation sends 0 · NaN from the next state into the reward's row, too.
    Fault("where() leaks NaN", ("A", "r_s"), ("not finite",), lambda: _ball(depth=_masked_root)),
)  # fmt: skip
