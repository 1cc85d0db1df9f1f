"""Memory of a measurement: whole where it fits, else in blocks of starts, else refused.

    whole       the Jacobians of three systems along H steps from every start and visited state
    in blocks   of one block of starts, beside what is kept of all groups (`moments.by_blocks`)

The first ends at `MEMORY` on every machine, so that the same question has the same intervals; the
second at half of the machine's memory. Both are counted in numbers of 8 bytes before anything
is computed. What cannot be divided is refused, with the number of starts that would fit: starts
that share groups, estimators whose weights are fitted to all starts, a matched truth, what steps
from single starts (`--attribute`), and simulators whose Jacobians are so dear that
a truth is planned by its price.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from gradlab import machine
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import linear_layers
from gradlab.gradients.starts import Starts, as_starts, group_count
from gradlab.measurement.arguments import estimators_at, with_imagined
from gradlab.measurement.moments.by_blocks import KEPT, Division
from gradlab.measurement.moments.grams import BYTES, FOLDS, kept_horizons
from gradlab.measurement.moments.inner_products import horizons_of
from gradlab.measurement.moments.sketches import COORDINATES
from gradlab.measurement.moments.visited import SAMPLES
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import Policy, QCritic
from gradlab.statistics.tails import DIRECTIONS
from gradlab.systems.system import Recorded
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.scout import linearization_price

GROUPS = 256  # of starts
MEMORY = 8e9  # bytes beyond which a measurement is made in blocks
_SHARE = 0.5  # of the machine's memory that a measurement may take, where that is more
BLOCK = 4e8  # bytes that a block aims at
_COPIES = 1.6  # of a block's tensors while they are made: measured, `benchmarks.large`
_PER_CELL = 24  # numbers of a cell and group: pair sums, and every quantity without it


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


def planned(
    task: Task, policy: nn.Module | None, horizon: int, starts: int, also: Sequence[str] = ()
) -> Division | None:
    """How the default estimators would be measured at visited states from so many starts.

    Args:
        policy: None: a network like the one that is made.

    Raises:
        InputError: they would not fit.
    """
    sizes = task.simulator.state_dim, task.simulator.action_dim
    policy = Policy(*sizes) if policy is None else policy
    also = with_imagined(also, task, policy, None)
    chosen = estimators_at(task, QCritic(*sizes, hidden=()), None, horizon, True, also)
    begin = as_starts(torch.zeros(starts, sizes[0], dtype=torch.float64), sizes[0])
    return division(MemoryRequest(task, policy, chosen, horizon, begin, "objective"))


def in_words(divided: Division) -> str:
    """One line of a plan."""
    return (
        f"memory: about {divided.peak / 1e9:.2g} GB at its largest, {divided.starts:,} starts in "
        f"blocks of {divided.block:,}; intervals leave out {len(divided.sizes)} groups of "
        f"{divided.group:,} starts"
    )


def check_starts(task: Task, horizon: int, starts: int, truth: str) -> None:
    """Before starts are drawn: what could not be held in any case.

    Raises:
        InputError: names both numbers.
    """
    if truth != "objective":
        check_size(task, horizon, starts)
    group = -(-starts // GROUPS)
    _refuse(_paths(task, horizon, group), horizon, starts, "even in blocks of one group of starts")
    _refuse(_visited(task, starts), horizon, starts, "the visited states alone")


def check_size(task: Task, horizon: int, starts: int) -> None:
    """Before starts are drawn: what could not be held in one piece.

    Raises:
        InputError: names both numbers.
    """
    _refuse(_paths(task, horizon, starts), horizon, starts, "")


def division(asked: MemoryRequest, undivided: str = "") -> Division | None:
    """None where all fits at once, else the groups and blocks in which it fits.

    Args:
        undivided: what needs all starts at once, in words.

    Raises:
        InputError: neither; names the numbers, and how many starts would fit.
    """
    n, H = len(asked.starts.states), asked.horizon
    needed = _whole(asked)
    if needed <= MEMORY:
        return None
    if why := undivided or _undivided(asked):
        _refuse(needed, H, n, why)
    group = -(-n // GROUPS)
    block = group * max(1, int(BLOCK / (group * _per_start(asked))))
    found = Division(n, group, min(block, n))
    found = replace(found, peak=peak(asked, found))
    _refuse(found.peak, H, n, "even in blocks of one group of starts")
    return found


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


def _refuse(needed: float, horizon: int, starts: int, why: str) -> None:
    if needed <= MEMORY:
        return
    allowed = max(MEMORY, _SHARE * machine.memory())
    if needed > allowed:
        fits = int(starts * allowed / needed)
        because = f" ({why})" if why else ""
        raise InputError(
            f"horizon {horizon} with {starts} starts needs about {needed / 1e9:.3g} GB, more than "
            f"{allowed / 1e9:.3g} GB{because}: about {fits} starts fit; take these, or a shorter "
            f"horizon"
        )


def _whole(asked: MemoryRequest) -> float:
    """Bytes of the Jacobians of three systems along H steps and, where θ counts in every action,
    of the truth's explicit gradients and its own longer path."""
    task, n = asked.task, len(asked.starts.states)
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    objective = asked.truth == "objective"
    needed = _paths(task, asked.horizon, n * (SAMPLES if objective else 1))
    if objective or any(estimator.way.every for estimator in asked.chosen.values()):
        needed += 8 * 2 * n * asked.parameters
        needed += 8 * effective_horizon(task.discount) * n * (ds + da) ** 2
    return needed


def _paths(task: Task, horizon: int, starts: int) -> int:
    """Bytes of the Jacobians of three systems."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    return 8 * 3 * (horizon + 1) * starts * (ds + da + 2) ** 2


def peak(asked: MemoryRequest, divided: Division) -> float:
    """Bytes of this process at its largest while it measures in blocks: what it has now, what is
    kept of all starts and groups, and one block."""
    n, G, P, H1 = divided.starts, len(divided.sizes), asked.parameters, asked.horizon + 1
    cells = sum(len(horizons_of(estimator)) for estimator in asked.chosen.values())
    kept = len(asked.chosen) * len(kept_horizons(asked.horizon, len(asked.chosen))) + 1
    sums = cells * G * P
    numbers = cells * (P + G * (DIRECTIONS + min(COORDINATES, P) + _PER_CELL))
    numbers += (G + FOLDS * kept) * P + (2 + FOLDS) * G * kept**2
    numbers += sums if 8 * sums <= KEPT else 2 * H1 * P
    # The noise of all starts and visited states, which every block reads.
    noise = noise_dim(asked.policy) + asked.task.simulator.noise_dim
    prior = 0 if asked.task.prior is None else asked.task.prior.noise_dim
    numbers += n * ((1 + SAMPLES) * H1 * (noise + prior) + (2 * _length(asked) + H1) * noise)
    block = divided.block * _per_start(asked) + BYTES
    return resident() + 8 * numbers + _visited(asked.task, n) + block


def _visited(task: Task, starts: int) -> float:
    """The visited states with their weights, groups and times."""
    return 8.0 * SAMPLES * starts * (2 * task.simulator.state_dim + 4)


def _per_start(asked: MemoryRequest) -> float:
    """Bytes of a block per start: Jacobians along the truth's path, or along those of three systems
    from all visited states, with the policy's."""
    ds, da = asked.task.simulator.state_dim, asked.task.simulator.action_dim
    layers = linear_layers(asked.policy)
    owned = sum(p.numel() for layer in layers for p in layer.parameters())
    factors = sum(da * layer.out_features + layer.in_features for layer in layers)
    factors += da * asked.parameters if owned < asked.parameters else 0
    steps, jacobians = asked.horizon + 1, (ds + da + 2) ** 2
    visiting = SAMPLES * (5 * steps * jacobians + 2 * factors) + steps * (
        3 * factors + 5 * steps * da
    )
    return 8 * _COPIES * (max(3 * _length(asked) * jacobians, visiting) + 2 * asked.parameters)


def _length(asked: MemoryRequest) -> int:
    """T, as far as it is known before."""
    return max(effective_horizon(asked.task.discount), asked.horizon)


def resident() -> float:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return float(int(file.read().split()[1]) * resource.getpagesize())
