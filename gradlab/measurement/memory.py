"""Memory of a measurement: whole where it fits, else in blocks of starts, else refused.

    whole       the Jacobians of three systems along H steps from every start and visited state
    in blocks   of one block of starts, beside what is kept of all groups (`moments.by_blocks`)

The first ends at `MEMORY` on every machine, so that the same question has the same intervals; the
second at half of the machine's memory. What must be held is one product, starts × bytes of each,
and is refused with the number of starts that would fit. What cannot be divided must be held whole:
starts that share groups, estimators whose weights are fitted to all starts, a matched truth, what
steps from single starts (`--attribute`), and simulators whose Jacobians are so dear that a truth is
planned by its price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gradlab import machine
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import linear_layers
from gradlab.gradients.starts import Starts, group_count
from gradlab.measurement.moments.by_blocks import Division
from gradlab.measurement.moments.visited import SAMPLES
from gradlab.systems.system import Recorded
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.scout import linearization_price

GROUPS = 256  # of starts
MEMORY = 8e9  # bytes beyond which a measurement is made in blocks
_SHARE = 0.5  # of the machine's memory that a measurement may take, where that is more
BLOCK = 4e8  # bytes that a block aims at
_COPIES = 1.6  # of a block's tensors while they are made: measured, `benchmarks.large`


@dataclass(frozen=True, eq=False)
class MemoryRequest:
    """What is to be held: estimators at their longest horizon, starts, and the kind of truth."""

    task: Task
    policy: nn.Module
    chosen: Mapping[str, Estimator]
    horizon: int
    starts: Starts
    truth: str

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.policy.parameters())


def check_size(task: Task, horizon: int, starts: int, blocks: bool = False) -> None:
    """Before starts are drawn: refuse what could not be held, in one piece or in blocks.

    Raises:
        InputError: names the sizes, and how many starts would fit.
    """
    ds, jacobians = task.simulator.state_dim, _jacobians(task, horizon)
    if not blocks:
        return _check(starts, jacobians, horizon)
    # States and noise of all visits, beside the Jacobians of one group.
    visits = 8 * SAMPLES * (horizon + 1) * (ds + task.simulator.noise_dim)
    return _check(starts, visits + -(-jacobians // GROUPS), horizon, "in blocks of starts")


def division(asked: MemoryRequest, undivided: str = "") -> Division | None:
    """Groups and blocks of starts; None where all starts are held at once.

    Args:
        undivided: what needs all starts at once, in words.

    Raises:
        InputError: it does not fit; names the sizes, and how many starts would.
    """
    n = len(asked.starts.states)
    if n * _whole(asked) <= MEMORY:
        return None
    if why := undivided or _undivided(asked):
        _check(n, _whole(asked), asked.horizon, why)
        return None
    check_size(asked.task, asked.horizon, n, blocks=True)
    group = -(-n // GROUPS)
    block = group * max(1, int(BLOCK / (group * _per_start(asked))))
    return Division(n, group, min(block, n))


def _check(starts: int, each: int, horizon: int, why: str = "") -> None:
    """Refuse starts of so many bytes beyond `MEMORY` and half of the machine's."""
    needed, allowed = starts * each, max(MEMORY, _SHARE * machine.memory())
    if needed > allowed:
        because = f" ({why})" if why else ""
        raise InputError(
            f"{starts} starts × {each / 1e6:.3g} MB of each at horizon {horizon} are "
            f"{needed / 1e9:.3g} GB, more than {allowed / 1e9:.3g} GB{because}: about "
            f"{int(allowed / each)} starts fit; take these, or a shorter horizon"
        )


def _undivided(asked: MemoryRequest) -> str:
    """Why a measurement cannot be made in blocks, "" where it can."""
    if asked.truth != "objective":
        return "truth='matched' is measured whole"
    if linearization_price(asked.task.simulator):
        return "a simulator with Jacobians by differences is measured whole"
    if group_count(asked.starts.group) < len(asked.starts.states):
        return "starts that share groups are measured whole"
    for name, estimator in asked.chosen.items():
        if estimator.way.mixed or isinstance(estimator.states, Recorded):
            return f"{name} is measured whole"
    return ""


def _whole(asked: MemoryRequest) -> int:
    """Bytes of a start: Jacobians of three systems along H steps and, where θ counts in every
    action, the truth's explicit gradients and its own longer path."""
    task, objective = asked.task, asked.truth == "objective"
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    needed = (SAMPLES if objective else 1) * _jacobians(task, asked.horizon)
    if objective or any(estimator.way.every for estimator in asked.chosen.values()):
        needed += 8 * (2 * asked.parameters + effective_horizon(task.discount) * (ds + da) ** 2)
    return needed


def _jacobians(task: Task, horizon: int) -> int:
    """Bytes of the Jacobians of three systems along H steps."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    return 8 * 3 * (horizon + 1) * (ds + da + 2) ** 2


def _per_start(asked: MemoryRequest) -> float:
    """Bytes of a block per start: Jacobians along the truth's path, or along those of three systems
    from all visited states, with the policy's."""
    ds, da = asked.task.simulator.state_dim, asked.task.simulator.action_dim
    layers = linear_layers(asked.policy)
    owned = sum(p.numel() for layer in layers for p in layer.parameters())
    factors = sum(da * layer.out_features + layer.in_features for layer in layers)
    factors += da * asked.parameters if owned < asked.parameters else 0
    steps, jacobians = asked.horizon + 1, (ds + da + 2) ** 2
    length = max(effective_horizon(asked.task.discount), asked.horizon)  # T, as far as is known
    visiting = SAMPLES * (5 * steps * jacobians + 2 * factors) + steps * (
        3 * factors + 5 * steps * da
    )
    return 8 * _COPIES * (max(3 * length * jacobians, visiting) + 2 * asked.parameters)
