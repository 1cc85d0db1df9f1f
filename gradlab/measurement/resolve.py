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
from typing import Literal

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
    with_entropy,
    with_other_critics,
)
from gradlab.gradients.setting import Setting, Starts, as_starts, distinct, group_count
from gradlab.gradients.start_laws import check_alive, visitation
from gradlab.gradients.ways import WAYS
from gradlab.measurement.arguments import (
    check_density,
    check_estimator,
    check_networks,
    check_steps,
    estimators_at,
    identify,
    with_imagined,
)
from gradlab.measurement.config import DENSITIES, FEWEST, MeasureConfig
from gradlab.measurement.visited import SAMPLES
from gradlab.networks.interface import double_copy, noise_dim
from gradlab.networks.mlp import CriticLike
from gradlab.networks.policies import WithLogProb
from gradlab.runs.identity import Identity
from gradlab.tasks import Task, trimmed
from gradlab.truth.oracles import effective_horizon

MEMORY = 8e9  # bytes that any machine is taken to have
_SHARE = 0.5  # of the machine's memory that a measurement may take, where that is more


def check_size(task: Task, horizon: int, starts: int, parameters: int = 0, visits: int = 1) -> None:
    """Refuse what could not be held: of each start and visited state the Jacobians of three systems
    along H steps, and where θ counts in every action the truth's explicit gradients of all
    parameters and its own longer path.

    Raises:
        InputError: names the sizes, what to lower, and how many starts would fit.
    """
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    each = 8 * 3 * visits * (horizon + 1) * (ds + da + 2) ** 2
    if parameters:
        each += 8 * (2 * parameters + effective_horizon(task.discount) * (ds + da) ** 2)
    needed, allowed = starts * each, max(MEMORY, _SHARE * machine.memory())
    if needed > allowed:
        sizes = f"horizon {horizon}" + f", {parameters} parameters" * bool(parameters)
        raise InputError(
            f"{starts} starts × {each / 1e6:.3g} MB of each ({sizes}) are {needed / 1e9:.3g} GB, "
            f"more than {allowed / 1e9:.3g} GB: about {int(allowed / each)} starts fit: take "
            f"fewer, a shorter horizon or a smaller policy"
        )


@dataclass(frozen=True, eq=False)
class Resolved:
    """What a configuration asks of a task and networks.

    Attributes:
        config: without anything that is None but for what is optional.
        setting: where gradients are taken, as they are measured; equal starts are one.
        given: the user's policy; original: its float64 copy.
        critics: the user's, each once; critic: the default estimators' own, None with others.
        chosen: the estimators at horizon H; identities: who they are; other_critics: the same with
            further critics.
        rows: how many starts were given or asked for; drawn: from the task's law?
        alpha: temperature of the entropy term, 0 without one.
    """

    config: MeasureConfig
    task: Task
    setting: Setting
    given: nn.Module
    original: nn.Module
    critics: Sequence[nn.Module]
    critic: nn.Module | None
    chosen: Mapping[str, Estimator]
    identities: Mapping[str, Identity]
    other_critics: OtherCritics
    rows: int
    drawn: bool
    alpha: float

    @property
    def objective(self) -> bool:
        """Is the gradient of the return the one truth of all?"""
        return self.config.truth == "objective"

    @property
    def kinds(self) -> list[str]:
        """Which true gradients the estimators are measured against."""
        if self.objective:
            return ["all"]
        return sorted({estimator.truth for estimator in self.chosen.values()}, reverse=True)


def check(
    config: MeasureConfig, task: Task, policy: nn.Module | None, critics: Sequence[CriticLike]
) -> Task:
    """Before anything is drawn or fitted: does what is there fit, and can it be held?

    Args:
        config: `resolved`.
        policy: the user's; None: one is fitted, which is deterministic.

    Returns:
        The task, its starts trimmed where that is asked.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    task = trimmed(task, config.trim_starts) if config.trim_starts else task
    for count in (config.starts, config.judges or 0):
        check_size(task, config.horizon or 0, count)
    for name in set(DENSITIES).intersection(config.also):
        if policy is None:
            raise InputError(
                f"also names {name}, which needs a stochastic policy, and the one that is fitted "
                f"here is deterministic: give a policy with a density"
            )
        check_density(WAYS[name], policy)
    for critic in critics or (None,):
        check_networks(task, policy, critic)
    return task


def resolve(
    config: MeasureConfig,
    task: Task,
    policy: nn.Module,
    critic: Critics,
    estimators: Mapping[str, Estimator] | None = None,
    given: Tensor | Path | None = None,
) -> Resolved:
    """What is asked, refused before anything is computed.

    Args:
        given: starts; None: as many as the configuration says are drawn.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    validation.instance(
        "task", task, Task, "a gradlab.Task; of an environment that holds its state in tensors, "
        "gradlab.systems.from_environment(env, read, write) makes the task's simulator"
    )  # fmt: skip
    validation.instance("policy", policy, nn.Module, "a torch.nn.Module")
    if config.also and estimators is not None:
        raise InputError(
            f"also names {', '.join(config.also)}, which stand beside the default estimators: put "
            f"them among estimators of your own"
        )
    kind: Literal["", "tensor", "Path"] = "Path" if isinstance(given, Path) else "tensor"
    config = config.resolved(task, "" if given is None else kind)
    H, seed, objective = int(config.horizon or 0), config.seed, config.truth == "objective"
    original, critics = double_copy("policy", policy), listed(critic)
    task = check(config, task, original, critics)
    also = with_imagined(config.also, task, original, estimators)
    begin = judged_at(config, task, original, given)
    first = critics[0] if critics else None
    plain = estimators_at(task, first, estimators, H, every=objective, also=also)
    for name, estimator in plain.items():
        check_estimator(name, estimator, task, begin, str(config.truth))
        check_density(estimator.way, original)
    check_steps(task, original, plain, begin)
    every = objective or any(estimator.way.all_actions for estimator in plain.values())
    size = sum(p.numel() for p in original.parameters()) if every else 0
    check_size(task, H, len(begin.states), size, SAMPLES if objective else 1)
    alpha = _entropy(plain)
    augment = augmenting(alpha) if alpha else lambda system: system
    own = WithLogProb(original) if alpha else original
    simulator, ends = augment(task.simulator), str(config.termination)
    users = {name: estimator.tail.critic for name, estimator in (estimators or {}).items()}
    beside = {id(each): each for each in users.values() if each is not None}  # each once
    others = with_other_critics(plain, users or dict.fromkeys(plain, first), critics)
    return Resolved(
        config=config,
        task=task,
        setting=Setting(simulator, own, begin, task.discount, H, ends, seed),
        given=policy,
        original=original,
        critics=list(critics) or list(beside.values()),
        critic=first,
        chosen={
            name: with_entropy(estimator, original, augment)[0] for name, estimator in plain.items()
        },
        identities=identify(plain, task.simulator),
        other_critics={
            name: [with_entropy(estimator, original, augment)[0] for estimator in several]
            for name, several in others.items()
        },
        rows=config.starts
        if given is None
        else len(given.weight if isinstance(given, Path) else given),
        drawn=given is None,
        alpha=alpha,
    )


def _entropy(chosen: Mapping[str, Estimator]) -> float:
    """The temperature that all estimators share."""
    temperatures = {name: estimator.entropy for name, estimator in chosen.items()}
    if len(set(temperatures.values())) > 1:
        raise InputError(f"estimators have different entropy, {temperatures}: their truths differ")
    return next(iter(temperatures.values()))


def judged_at(
    config: MeasureConfig, task: Task, policy: nn.Module, given: Tensor | Path | None
) -> Starts:
    """The starts; under a matched truth at visited states these states, each a start of its own."""
    starts: int | Tensor | Path = config.starts if given is None else given
    if given is None and (config.law, config.truth) == ("visited", "matched"):
        ends = str(config.termination)
        starts = visitation(task, policy, config.starts, config.seed, termination=ends)
        if ends == "mask":
            check_alive(as_starts(starts, task.simulator.state_dim))
    begin = starts_of(task, starts, config.seed)
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
