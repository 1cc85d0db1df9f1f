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

import sys
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
from gradlab.measurement.pilot import DIRECTIONS as MOVES
from gradlab.measurement.pilot import ROWS as ROLLED
from gradlab.measurement.pilot import plan_pilot
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import Policy, QCritic
from gradlab.statistics.tails import DIRECTIONS
from gradlab.systems.system import Recorded
from gradlab.tasks import Task
from gradlab.truth.by_blocks import PILOT
from gradlab.truth.oracles import ROWS, effective_horizon
from gradlab.truth.scout import linearization_price

GROUPS = 256  # of starts
MEMORY = 8e9  # bytes beyond which a measurement is made in blocks
_SHARE = 0.5  # of the machine's memory that a measurement may take, where that is more
BLOCK = 4e8  # bytes that a block aims at
_COPIES = 1.6  # of a block's tensors while they are made: measured, `benchmarks.large`
_LOADED = 6e7  # bytes of code that torch loads when it is first needed: measured
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
    """Bytes of this process at its largest while it measures in blocks: the pilot's, or a block
    beside what is kept, or that of the pilot for rare starts."""
    n = divided.starts
    block = divided.block * _per_start(asked) + _workspace(asked)
    stages = _pilot(asked), _kept(asked, divided) + block, _rare(asked, n)
    return resident() + _LOADED + max(stages)


def _kept(asked: MemoryRequest, divided: Division) -> float:
    """Sums over all starts and over groups, and the visited states."""
    n, G, P = divided.starts, len(divided.sizes), asked.parameters
    cells = sum(len(horizons_of(estimator)) for estimator in asked.chosen.values())
    kept = len(asked.chosen) * len(kept_horizons(asked.horizon, len(asked.chosen))) + 1
    group_sums = cells * G * P
    sketch = DIRECTIONS + min(COORDINATES, P)
    numbers = cells * (P + G * (sketch + _PER_CELL)) + (G + FOLDS * kept) * P
    numbers += (2 + FOLDS) * G * kept**2 + (group_sums if 8 * group_sums <= KEPT else 0)
    return 8 * numbers + _visited(asked.task, n) + _draws(asked, n)


def _visited(task: Task, starts: int) -> float:
    """The visited states with their weights, groups and times."""
    return 8.0 * SAMPLES * starts * (2 * task.simulator.state_dim + 4)


def _draws(asked: MemoryRequest, n: int) -> float:
    """Noise of all starts, for the truth and for the estimators, and of all visited states: every
    block reads it. A truth may turn out to be twice as long as it is expected to be."""
    task, steps = asked.task, asked.horizon + 1
    models = [task.simulator] + ([] if task.prior is None else [task.prior])
    per_step = noise_dim(asked.policy) + sum(model.noise_dim for model in models)
    own = noise_dim(asked.policy) + task.simulator.noise_dim
    return 8 * n * ((1 + SAMPLES) * steps * per_step + (2 * _length(asked) + steps) * own)


def _per_start(asked: MemoryRequest) -> float:
    """Bytes of a block per start: the truth's path, then those of the estimators."""
    H1, P, W = asked.horizon + 1, asked.parameters, _factors(asked)
    ds, da = _dims(asked)
    path, jacobians = _path(ds, da)
    systems = 2 * path + 3 * jacobians
    sweep = 2 * ds * da + 3 * (ds + da)
    visiting = SAMPLES * (H1 * (systems + max(jacobians, sweep) + 6 * da) + 2 * W)
    staying = H1 * (systems + 3 * W) + 5 * H1**2 * da
    firsts = 3 * SAMPLES * H1 * da
    truth = _length(asked) * (path + 2 * jacobians + 3 * ds * da + 6 * da)
    return 8 * _COPIES * (max(truth, visiting, firsts + staying) + 2 * P)


def _workspace(asked: MemoryRequest) -> float:
    """What a block takes whatever its starts: X_g of one estimator, Jacobians of policy rows."""
    visiting = sum(len(horizons_of(one)) for one in asked.chosen.values() if not one.way.every)
    longest = max(visiting, asked.horizon + 1)
    return 8 * (2 * longest * asked.parameters + 2 * ROWS * _factors(asked)) + BYTES


def _pilot(asked: MemoryRequest) -> float:
    """A truth made whole."""
    ds, da = _dims(asked)
    n, (path, jacobians) = min(PILOT, len(asked.starts.states)), _path(ds, da)
    return 8 * n * (3 * _length(asked) * (path + jacobians) + 3 * asked.parameters)


def _rare(asked: MemoryRequest, n: int) -> float:
    """The starts of a pilot, and some of them with moved policies (`measurement.rare_starts`)."""
    task, (ds, da) = asked.task, _dims(asked)
    plan = plan_pilot(task.simulator, asked.parameters, n, asked.horizon, task.discount)
    widths = sum(layer.out_features for layer in linear_layers(asked.policy))
    return 8 * (plan.size * (2 * ds + 5) + ROLLED * ((1 + 2 * MOVES) * (4 * ds + 2 * da) + widths))


def _length(asked: MemoryRequest) -> int:
    """T, as far as it is known before."""
    return max(effective_horizon(asked.task.discount), asked.horizon)


def _dims(asked: MemoryRequest) -> tuple[int, int]:
    return asked.task.simulator.state_dim, asked.task.simulator.action_dim


def _path(ds: int, da: int) -> tuple[int, int]:
    """Numbers per step of a path with K, and of its Jacobians."""
    return ds + da + 1 + da * ds, ds * ds + ds * da + ds + da


def _factors(asked: MemoryRequest) -> int:
    """Numbers per state of the policy's Jacobian."""
    da, layers = asked.task.simulator.action_dim, linear_layers(asked.policy)
    owned = sum(p.numel() for layer in layers for p in layer.parameters())
    explicit = da * asked.parameters if owned < asked.parameters else 0
    return explicit + sum(da * layer.out_features + layer.in_features for layer in layers)


def resident() -> float:
    """Bytes of memory that this process has now; 0 on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(int(file.read().split()[1]) * resource.getpagesize())
    except OSError:  # no Linux: the largest so far
        unit = 1 if sys.platform == "darwin" else 1024
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
