"""What is measured: a task, float64 copies of the networks, estimators, starts and their truth.

Everything that can be refused is refused here, before anything is computed
(`measurement.arguments`). Entropy terms are taken into systems and policy: those of the setting
and of `chosen` are augmented where there is one.

Its pilot: how many starts, of how many steps, and what it says of a sample.

Its memory: whole where it fits, else in blocks of starts, else refused.

    whole       the Jacobians of three systems along H steps from every start and visited state
    in blocks   of one block of starts, beside what is kept of all groups (`by_blocks`)

The first ends at `MEMORY` on every machine, so that the same question has the same intervals; the
second at half of the machine's memory. What must be held is one product, starts × bytes of each,
and is refused with the number of starts that would fit. What cannot be divided must be held whole:
starts that share groups, estimators whose weights are fitted to all starts, a matched truth, what
steps from single starts (`--attribute`), and simulators whose Jacobians are so dear that a truth is
planned by its price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import machine, validation
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import (
    Critics,
    Estimator,
    OtherCritics,
    augmenting,
    listed,
    softened,
    with_other_critics,
)
from gradlab.gradients.policy_jacobian import linear_layers
from gradlab.gradients.setting import Setting, Starts, as_starts, distinct, group_count
from gradlab.gradients.start_laws import check_alive, visitation
from gradlab.measurement.arguments import (
    FEWEST,
    Law,
    TruthKind,
    check_also,
    check_arguments,
    check_density,
    check_estimator,
    check_networks,
    check_steps,
    estimators_at,
    identify,
    narrowed,
    resolved,
    with_imagined,
)
from gradlab.measurement.by_blocks import Division
from gradlab.measurement.visited import SAMPLES
from gradlab.networks.interface import double_copy, noise_dim
from gradlab.networks.policies import WithLogProb
from gradlab.runs.identity import Identity
from gradlab.statistics.moments import Strata
from gradlab.systems.system import Recorded, System
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.outcome import linearization_price

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


def division_of(asked: MemoryRequest, undivided: str = "") -> Division | None:
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


MANY, SOME, MOST = 30, 10, 1 << 16  # starts of the pilot per start of the sample, and in all
MORE = 4  # times as many where strata are drawn from it
_STEPS = 100  # of the pilot, or twice the horizon
DIRECTIONS, MOVED = 4, 0.04  # differences of a start, and the share by which actions are moved
SECONDS, MULTIPLIED = 3.0, 1.5e-10  # of a core for a pilot, and for one product of the policy
_OWN = 200  # products of a step itself, of a simulator whose Jacobians are cheap
ROWS = 8192  # starts of the pilot that are rolled out at once
FEWEST_DRAWN, FEW, SMALL = 8, 4, 128  # starts of a stratum, from N = SMALL on and below
HEAVY = 0.4  # share of a mean square that these may carry
RARE_ENDS, OF_ENDS = 0.05, 8  # starts whose episode ends: rare up to it, 1 of 8 of the sample
NEEDED, NEEDED_SMALL, NEEDED_PLAIN = 1.3, 2.0, 8.0  # of them in the sample, were it plain


@dataclass(frozen=True)
class PilotPlan:
    """Starts of a pilot, and of that from which strata are drawn; steps of each, and whether it
    takes differences."""

    size: int
    larger: int
    steps: int
    differences: bool

    @property
    def price(self) -> int:
        """Steps of the simulator."""
        return self.size * self.steps * (1 + 2 * DIRECTIONS * self.differences)


def plan_pilot(
    simulator: System, parameters: int, starts: int, horizon: int, discount: float
) -> PilotPlan:
    """The best score from the largest pilot that is affordable; the smallest one at least."""
    steps = min(effective_horizon(discount), max(2 * horizon, _STEPS))
    stencil = 2 * (simulator.state_dim + simulator.action_dim + 1)
    price = linearization_price(simulator) / stencil + MULTIPLIED * (_OWN + parameters)
    many = [max(min(each * starts, MOST), 2 * starts) for each in (MANY, SOME)]
    plans = [PilotPlan(size, size, steps, way) for way in (True, False) for size in many]
    plan = next((plan for plan in plans if plan.price * price <= SECONDS), plans[-1])
    larger = min(MORE * plan.size, max(MOST, plan.size))
    affordable = plan.price * price * larger / plan.size <= SECONDS
    return replace(plan, larger=larger) if affordable else plan


@dataclass(frozen=True, eq=False)
class Pilot:
    """Scores of a pilot, and what a sample has of them.

    Attributes:
        plan: of it; size: its starts.
        tail: share of Σ q² that 1 start in 100 carries; shape: Pareto k of q².
        ends: share of starts whose episode ends within its steps.
        random: policy or simulator are.
        unseen: share of Σ q² beyond the largest q of the sample.
        strata: of the sample; None: it is plain.
    """

    plan: PilotPlan
    size: int
    tail: float
    shape: float
    ends: float
    random: bool
    unseen: float = 0.0
    strata: Strata | None = None

    @property
    def rare(self) -> bool:
        """Do few starts carry much, or end?"""
        return self.tail > HEAVY or 0 < self.ends <= RARE_ENDS

    def needed(self, n: int) -> int:
        """Starts from which on ends of episodes are covered; 0 where N of them do."""
        plain = self.strata is None or self.random
        count = NEEDED_PLAIN if plain else NEEDED if n >= SMALL else NEEDED_SMALL
        if not self.ends > 0 or n * self.ends >= count:
            return 0
        least = (NEEDED_PLAIN if self.random else NEEDED) / self.ends
        return int(max(2 ** np.ceil(np.log2(least)), SMALL))


def recorded(pilot: Pilot) -> dict[str, object]:
    """As a file keeps it; of each stratum its share of the starts, and how many were measured."""
    strata = pilot.strata
    shares = [] if strata is None else (strata.times * strata.count / strata.count.sum()).tolist()
    return {
        "starts": pilot.size,
        "steps": pilot.plan.steps,
        "score": "differences" if pilot.plan.differences else "returns",
        "tail": pilot.tail,
        "shape": pilot.shape,
        "ends": pilot.ends,
        "unseen": pilot.unseen,
        "shares": shares,
        "counts": [] if strata is None else strata.count.astype(int).tolist(),
    }


@dataclass(frozen=True, eq=False)
class Problem:
    """See above.

    Attributes:
        setting: where gradients are taken, as they are measured; equal starts are one.
        given: the user's policy; original: its float64 copy.
        critics: the user's, each once; critic: the default estimators' own, None with others.
        several: how many critics stand beside the estimators.
        chosen: the estimators at horizon H; identities: who they are; other_critics: the same with
            further critics.
        rows: how many starts were given or asked for; drawn: from the task's law?
        alpha: temperature of the entropy term, 0 without one.
        batch: N′.
        division: blocks of starts, None where all are measured at once.
        pilot: of the starts, where one was made (`measurement.rare_starts`).
    """

    task: Task
    setting: Setting
    given: nn.Module
    original: nn.Module
    critics: Sequence[nn.Module]
    critic: nn.Module | None
    several: int
    chosen: Mapping[str, Estimator]
    identities: Mapping[str, Identity]
    other_critics: OtherCritics
    rows: int
    drawn: bool
    law: Law
    truth: TruthKind
    alpha: float
    batch: int
    division: Division | None = None
    pilot: Pilot | None = None

    @property
    def objective(self) -> bool:
        """Is the gradient of the return the one truth of all?"""
        return self.truth == "objective"

    @property
    def kinds(self) -> list[str]:
        """Which true gradients the estimators are measured against."""
        if self.objective:
            return ["all"]
        return sorted({estimator.truth for estimator in self.chosen.values()}, reverse=True)


@dataclass(frozen=True, eq=False)
class Given:
    """The arguments of `measure` that pose a problem, as the user gave them."""

    task: Task
    policy: nn.Module
    critic: Critics
    estimators: Mapping[str, Estimator] | None
    horizon: int | None
    starts: int | Tensor | Path
    batch: int
    truth: TruthKind | None
    termination: str
    law: Law | None
    seed: int
    trim_starts: float = 0.0
    also: Sequence[str] = ()


def problem(given: Given, undivided: str = "") -> Problem:
    """The problem that the arguments of `measure` pose.

    Args:
        undivided: what needs all starts at once, in words.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    task, termination, seed = given.task, given.termination, given.seed
    validation.instance(
        "task", task, Task, "a gradlab.Task; of an environment that holds its state in tensors, "
        "gradlab.systems.from_environment(env, read, write) makes the task's simulator"
    )  # fmt: skip
    validation.instance("policy", given.policy, nn.Module, "a torch.nn.Module")
    validation.whole("seed", seed)
    starts = int(given.starts) if isinstance(given.starts, np.integer) else given.starts
    H = task.horizon if given.horizon is None else given.horizon
    count = starts if isinstance(starts, int) else FEWEST
    check_arguments(H, count, given.batch, termination)
    check_also(given.also, given.estimators)
    law, truth = resolved(starts, given.law, given.truth)
    task = narrowed(task, given.trim_starts, starts)
    check_size(task, H, count, blocks=truth == "objective")
    original, critics = double_copy("policy", given.policy), listed(given.critic)
    for critic in critics or (None,):
        check_networks(task, original, critic)
    also = with_imagined(given.also, task, original, given.estimators)
    begin = judged_at(task, original, starts, law, truth, termination, seed)
    first = critics[0] if critics else None
    plain = estimators_at(task, first, given.estimators, H, every=truth == "objective", also=also)
    for name, estimator in plain.items():
        check_estimator(name, estimator, task, begin, truth)
        check_density(estimator.way, original)
    check_steps(task, original, plain, begin)
    if not undivided and len(critics) > 1:
        undivided = "the variance across critics is measured whole"
    asked = MemoryRequest(task, original, plain, H, begin, truth)
    division = division_of(asked, undivided)
    alpha = _entropy(plain)
    augment = augmenting(alpha) if alpha else lambda system: system
    policy = WithLogProb(original) if alpha else original
    simulator = augment(task.simulator)
    users = {name: estimator.tail.critic for name, estimator in (given.estimators or {}).items()}
    own = {id(each): each for each in users.values() if each is not None}  # each once
    others = with_other_critics(plain, users or dict.fromkeys(plain, first), critics)
    return Problem(
        task=task,
        setting=Setting(simulator, policy, begin, task.discount, H, termination, seed),
        given=given.policy,
        original=original,
        critics=list(critics) or list(own.values()),
        critic=first,
        several=len(critics),
        chosen={
            name: softened(estimator, original, augment)[0] for name, estimator in plain.items()
        },
        identities=identify(plain, task.simulator),
        other_critics={
            name: [softened(estimator, original, augment)[0] for estimator in several]
            for name, several in others.items()
        },
        rows=starts
        if isinstance(starts, int)
        else len(starts.weight if isinstance(starts, Path) else starts),
        drawn=isinstance(starts, int),
        law=law,
        truth=truth,
        alpha=alpha,
        batch=given.batch,
        division=division,
    )


def _entropy(chosen: Mapping[str, Estimator]) -> float:
    """The temperature that all estimators share."""
    temperatures = {name: estimator.entropy for name, estimator in chosen.items()}
    if len(set(temperatures.values())) > 1:
        raise InputError(f"estimators have different entropy, {temperatures}: their truths differ")
    return next(iter(temperatures.values()))


def judged_at(
    task: Task,
    policy: nn.Module,
    starts: int | Tensor | Path,
    law: Law,
    truth: TruthKind,
    termination: str,
    seed: int,
) -> Starts:
    """The starts; under a matched truth at visited states these states, each a start of its own."""
    if isinstance(starts, int) and law == "visited" and truth == "matched":
        starts = visitation(task, policy, starts, seed, termination=termination)
        if termination == "mask":
            check_alive(as_starts(starts, task.simulator.state_dim))
    begin = starts_of(task, starts, seed)
    if isinstance(starts, Tensor):
        different = distinct(begin)
        if len(different.states) < FEWEST:
            raise InputError(
                f"starts has {len(different.states)} different rows of {len(begin.states)}, "
                f"expected at least {FEWEST}: equal rows are one start; give different states, or "
                f"a number of them"
            )
        return different
    if not isinstance(starts, int) or noise_dim(policy) or task.simulator.noise_dim:
        return begin
    # Without noise a state that is drawn twice gives the same sample twice.
    different = distinct(begin)
    if len(different.states) < FEWEST:
        raise InputError(
            f"the task drew {len(different.states)} different start in {starts}, and neither "
            f"policy nor simulator is random: every sample is the same; widen its law of starts"
        )
    return different


def starts_of(task: Task, starts: int | Tensor | Path, seed: int) -> Starts:
    """Float64 starts, drawn from the task's law where only their number is given."""
    if isinstance(starts, int):
        starts = task.starts(starts, stream(seed, "starts"))
    if not isinstance(starts, Path):
        expected = "a number of starts, a tensor [N, ds] or a Path"
        validation.instance("starts", starts, (Tensor, np.ndarray, list, tuple), expected)
        try:
            starts = torch.as_tensor(starts).cpu().double()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(f"starts is no tensor [N, ds] of numbers: {error}") from None
    begin = as_starts(starts, task.simulator.state_dim)
    path = None if begin.path is None else begin.path.double()
    begin = Starts(begin.states.double(), begin.weight.double(), begin.group, path=path)
    groups = group_count(begin.group)
    if groups < FEWEST:
        raise InputError(f"starts has {groups} groups, expected at least {FEWEST} independent ones")
    return begin
