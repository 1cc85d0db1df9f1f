"""Mistakes in a Jacobian that is written by hand: `linearize` beside a sound step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gradlab import tasks
from gradlab.systems import CartPoleModel, Linearization, System
from gradlab.tasks import Task
from tests.certification.faults.fault import WRONG, Bend, Fault, Relinearized
from tests.certification.smooth_steps import car_task

ALL = ("A", "B", "r_s", "r_a")


def _bent(task: Task, bend: Bend) -> Task:
    return replace(task, simulator=Relinearized(task.simulator, bend))


def _changed(change: Callable[[Linearization], dict[str, Tensor]]) -> Bend:
    """The sound linearization with some blocks replaced."""

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        sound = system.linearize(s, a)
        return replace(sound, **change(sound))

    return bend


def _random_lq() -> Task:
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(4, 4, generator=generator, dtype=torch.float64) / 2
    B = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    return tasks.linear_quadratic(A=A, B=B)


def _prior() -> Task:
    task = tasks.inverted_pendulum("analytic")
    return replace(task, simulator=CartPoleModel(), prior=None)


def _scaled(block: Tensor, factor: float, *cell: object) -> Tensor:
    scaled = block.clone()
    scaled[cell] *= factor
    return scaled


def _post_step_reward() -> Task:
    """The reward of the state after the step, with the gradients of that before it."""
    task = tasks.inverted_pendulum("analytic", reward="post_step")
    before = tasks.inverted_pendulum("analytic").simulator

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        pre = before.linearize(s, a)
        return replace(system.linearize(s, a), r_s=pre.r_s, r_a=pre.r_a)

    return _bent(task, bend)


def _at_the_next_state(system: System, s: Tensor, a: Tensor) -> Linearization:
    return system.linearize(system.step(s, a).state.detach(), a)


def _previous_row(system: System, s: Tensor, a: Tensor) -> Linearization:
    return system.linearize(s.roll(1, 0), a.roll(1, 0))


def _cached() -> Task:
    """The Jacobian of the first call is kept for all later ones of as many rows."""
    kept: dict[torch.Size, Linearization] = {}

    def bend(system: System, s: Tensor, a: Tensor) -> Linearization:
        return kept.setdefault(s.shape, system.linearize(s, a))

    return _bent(car_task(), bend)


def _lq(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(_random_lq(), _changed(change))


def _car(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(car_task(), _changed(change))


def _pole(change: Callable[[Linearization], dict[str, Tensor]]) -> Callable[[], Task]:
    return lambda: _bent(_prior(), _changed(change))


JACOBIANS = (
    # ∂θ̈/∂θ of the cart-pole.
    Fault(
        "dropped term", ("A",), WRONG,
        _pole(lambda J: {"A": _scaled(J.A, 0.0, slice(None), 3, 1)}),
    ),
    Fault("transposed block", ("A",), WRONG, _lq(lambda J: {"A": J.A.mT})),
    Fault("symmetric part only", ("A",), WRONG, _lq(lambda J: {"A": (J.A + J.A.mT) / 2})),
    Fault(
        "wrong sign", ("B",), WRONG,
        _car(lambda J: {"B": _scaled(J.B, -1.0, ..., 0)}),
    ),
    Fault("wrong scale", ("B",), WRONG, _pole(lambda J: {"B": 1.12 * J.B})),
    Fault("missing chain factor dt", ("B",), WRONG, _pole(lambda J: {"B": J.B / 0.04})),
    # ∂/∂v and ∂/∂r of the vehicle change places.
    Fault("wrong index", ("A",), WRONG, _car(lambda J: {"A": J.A[:, :, [0, 2, 1, 3, 4, 5]]})),
    Fault("factor two of a square", ("r_a",), WRONG, _car(lambda J: {"r_a": J.r_a / 2})),
    Fault("reward from the old state", ("r_s", "r_a"), WRONG, _post_step_reward),
    Fault(
        "linearized at the wrong point", ("A", "B", "r_s"), WRONG,
        lambda: _bent(_prior(), _at_the_next_state),
    ),
    Fault(
        "off-by-one row", ALL, (*WRONG, "rows mix"),
        lambda: _bent(car_task(), _previous_row),
    ),
    Fault("cached Jacobian of the first call", ALL, (*WRONG, "stale"), _cached),
)  # fmt: skip
