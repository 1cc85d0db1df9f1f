"""Steps that depend on more than the row of their arguments, so that they have no Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.tasks import Task
from tests.certification.faults.fault import Fault
from tests.certification.smooth_steps import Step, function_task, network, network_step

NETWORK = network_step(network(3, 2))


class Lagging:
    """Each action is blended with the last row of the call before."""

    def __init__(self) -> None:
        self.previous = torch.zeros(2, dtype=torch.float64)

    def __call__(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        applied = 0.8 * a + 0.2 * self.previous.to(a)
        self.previous = a[-1].detach().clone()
        return NETWORK(s, applied)


class Wearing:
    """A mass that grows by a millionth at each call."""

    def __init__(self) -> None:
        self.mass = 1.0

    def __call__(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        self.mass *= 1 + 1e-6
        return NETWORK(s, a / self.mass)


def _centred(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return NETWORK(s - 0.1 * s.mean(0), a)


def _normalised(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return NETWORK(s, a / (1 + a.abs().max()))


def _shaken(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    after, reward = NETWORK(s, a)
    return after + 1e-4 * torch.randn_like(after), reward


def _task(step: Step) -> Task:
    return function_task(step, 3, 2)


BEHAVIOUR = (
    Fault("stale buffer", (), ("stale",), lambda: _task(Lagging())),
    Fault("parameter buffer mutated", (), ("stale",), lambda: _task(Wearing())),
    Fault("batch mean leaks across rows", (), ("rows mix",), lambda: _task(_centred)),
    Fault("batch-dependent scale", (), ("rows mix",), lambda: _task(_normalised)),
    Fault("hidden randomness", (), ("random",), lambda: _task(_shaken)),
)
