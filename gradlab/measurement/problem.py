"""What is measured: a task, float64 copies of the networks, estimators, starts and their truth.

Everything that can be refused is refused here, before anything is computed
(`measurement.arguments`). Entropy terms are taken into systems and policy: those of the setting
and of `chosen` are augmented where there is one.

What must be held at once is one product, starts × bytes of each: the Jacobians of three systems
along H steps from every start and visited state, and the truth. Beyond `MEMORY` and half of the
machine's it is refused, with the number of starts that would fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from gradlab.measurement.visited import SAMPLES
from gradlab.networks.interface import double_copy, noise_dim
from gradlab.networks.policies import WithLogProb
from gradlab.runs.identity import Identity
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon

MEMORY = 8e9  # bytes that any machine is taken to have
_SHARE = 0.5  # of the machine's memory that a measurement may take, where that is more


def check_size(task: Task, horizon: int, starts: int) -> None:
    """Before starts are drawn: refuse what could not be held.

    Raises:
        InputError: names the sizes, and how many starts would fit.
    """
    _check(starts, _jacobians(task, horizon), horizon)


def _check(starts: int, each: int, horizon: int) -> None:
    """Refuse starts of so many bytes beyond `MEMORY` and half of the machine's."""
    needed, allowed = starts * each, max(MEMORY, _SHARE * machine.memory())
    if needed > allowed:
        raise InputError(
            f"{starts} starts × {each / 1e6:.3g} MB of each at horizon {horizon} are "
            f"{needed / 1e9:.3g} GB, more than {allowed / 1e9:.3g} GB: about "
            f"{int(allowed / each)} starts fit; take these, or a shorter horizon"
        )


def _held(
    task: Task, policy: nn.Module, chosen: Mapping[str, Estimator], horizon: int, objective: bool
) -> int:
    """Bytes of a start: Jacobians of three systems along H steps and, where θ counts in every
    action, the truth's explicit gradients and its own longer path."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    needed = (SAMPLES if objective else 1) * _jacobians(task, horizon)
    if objective or any(estimator.way.every for estimator in chosen.values()):
        P = sum(p.numel() for p in policy.parameters())
        needed += 8 * (2 * P + effective_horizon(task.discount) * (ds + da) ** 2)
    return needed


def _jacobians(task: Task, horizon: int) -> int:
    """Bytes of the Jacobians of three systems along H steps."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    return 8 * 3 * (horizon + 1) * (ds + da + 2) ** 2


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


def problem(given: Given) -> Problem:
    """The problem that the arguments of `measure` pose.

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
    check_size(task, H, count)
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
    _check(len(begin.states), _held(task, original, plain, H, truth == "objective"), H)
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
