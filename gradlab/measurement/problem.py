"""What is measured: a task, float64 copies of the networks, estimators, starts and their truth.

Everything that can be refused is refused here, before anything is computed. Entropy terms are taken
into systems and policy: `simulator`, `policy` and `chosen` are augmented where there is one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import TERMINATIONS, Estimator, augmenting, softened
from gradlab.gradients.groups import group_count
from gradlab.gradients.other_critics import Critics, listed, with_other_critics
from gradlab.gradients.setting import Setting
from gradlab.gradients.start_laws import check_alive, visitation
from gradlab.gradients.starts import Starts, as_starts, distinct
from gradlab.gradients.tail import Tail
from gradlab.measurement.laws import Law, TruthKind, resolved
from gradlab.measurement.moments.visited import SAMPLES
from gradlab.networks.critics import CriticLike, as_critic
from gradlab.networks.entropy import WithLogProb
from gradlab.networks.interface import (
    act,
    check_critic,
    check_policy,
    check_trainable,
    double_copy,
    noise_dim,
)
from gradlab.networks.rows import check_rows
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon

FEWEST = 4  # groups that a jackknife needs
MEMORY = 8e9  # bytes of Jacobians that are held at once


@dataclass(frozen=True, eq=False)
class Problem:
    """See above.

    Attributes:
        given: the user's policy; original: its float64 copy; policy: as it is measured.
        critics: the user's, each once; critic: the default estimators' own, None with others.
        chosen: the estimators at horizon H; rivals: the same with further critics.
        begin: the starts, equal ones as one; rows: how many were given or asked for.
        drawn: were they drawn from the task's law?
        alpha: temperature of the entropy term, 0 without one.
        batch: N′.
    """

    task: Task
    simulator: System
    given: nn.Module
    original: nn.Module
    policy: nn.Module
    critics: Sequence[nn.Module]
    critic: nn.Module | None
    several: int
    chosen: Mapping[str, Estimator]
    rivals: Mapping[str, Sequence[Estimator]]
    begin: Starts
    rows: int
    drawn: bool
    law: Law
    truth: TruthKind
    alpha: float
    horizon: int
    batch: int
    termination: str
    seed: int

    @property
    def setting(self) -> Setting:
        """Where gradients are taken, as they are measured."""
        return Setting(
            self.simulator, self.policy, self.begin, self.task.discount, self.horizon,
            self.termination, self.seed,
        )  # fmt: skip

    @property
    def objective(self) -> bool:
        """Is the gradient of the return the one truth of all?"""
        return self.truth == "objective"

    @property
    def kinds(self) -> list[str]:
        """Which true gradients the estimators are measured against."""
        if self.objective:
            return ["all"]
        return sorted({each.truth for each in self.chosen.values()}, reverse=True)


def problem(
    task: Task,
    policy: nn.Module,
    critic: Critics,
    estimators: Mapping[str, Estimator] | None,
    horizon: int | None,
    starts: int | Tensor | Path,
    batch: int,
    truth: TruthKind | None,
    termination: str,
    law: Law | None,
    seed: int,
) -> Problem:
    """The problem that the arguments of `measure` pose.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    validation.instance("policy", policy, nn.Module, "a torch.nn.Module")
    validation.whole("seed", seed)
    starts = int(starts) if isinstance(starts, np.integer) else starts
    H, drawn = task.horizon if horizon is None else horizon, isinstance(starts, int)
    check_arguments(H, starts if isinstance(starts, int) else FEWEST, batch, termination)
    law, truth = resolved(starts, law, truth)
    check_size(task, H, starts if isinstance(starts, int) else FEWEST)
    original, critics = double_copy("policy", policy), listed(critic)
    for each in critics or (None,):
        check_networks(task, original, each)
    begin = judged_at(task, original, starts, law, truth, termination, seed)
    first = critics[0] if critics else None
    plain = estimators_at(task, first, estimators, H, every=truth == "objective")
    for name, estimator in plain.items():
        _check_estimator(name, estimator, task, begin, truth)
    _check_steps(task, original, plain, begin)
    _check_memory(task, original, plain, H, len(begin.states), truth)
    alpha = _entropy(plain)
    augment = augmenting(alpha) if alpha else _as_it_is
    own = {name: each.tail.critic for name, each in (estimators or {}).items()}
    others = with_other_critics(plain, own or dict.fromkeys(plain, first), critics)
    return Problem(
        task=task,
        simulator=augment(task.simulator),
        given=policy,
        original=original,
        policy=WithLogProb(original) if alpha else original,
        critics=list(critics) if critics else _given_critics(estimators),
        critic=first,
        several=len(critics),
        chosen={name: softened(each, original, augment)[0] for name, each in plain.items()},
        rivals={
            name: [softened(each, original, augment)[0] for each in several]
            for name, several in others.items()
        },
        begin=begin,
        rows=_rows(starts),
        drawn=drawn,
        law=law,
        truth=truth,
        alpha=alpha,
        horizon=H,
        batch=batch,
        termination=termination,
        seed=seed,
    )


def _as_it_is(system: System) -> System:
    return system


def _given_critics(estimators: Mapping[str, Estimator] | None) -> list[nn.Module]:
    """The user's own critics, each once."""
    found = (each.tail.critic for each in (estimators or {}).values())
    return list({id(critic): critic for critic in found if critic is not None}.values())


def _entropy(chosen: Mapping[str, Estimator]) -> float:
    """The temperature that all estimators share."""
    found = {name: each.entropy for name, each in chosen.items()}
    if len(set(found.values())) > 1:
        raise InputError(f"estimators have different entropy, {found}: their truths differ")
    return next(iter(found.values()))


def _check_memory(
    task: Task,
    policy: nn.Module,
    chosen: Mapping[str, Estimator],
    horizon: int,
    starts: int,
    truth: str,
) -> None:
    """Refuse what would not fit: the Jacobians of three systems along H steps of N starts, and,
    where θ counts in every action, the truth's explicit gradients and its own longer path."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    objective = truth == "objective"
    needed = _paths(task, horizon, starts * (SAMPLES if objective else 1))
    if objective or any(each.way.every for each in chosen.values()):
        needed += 8 * 2 * starts * sum(p.numel() for p in policy.parameters())
        needed += 8 * effective_horizon(task.discount) * starts * (ds + da) ** 2
    _refuse(needed, horizon, starts)


def _paths(task: Task, horizon: int, starts: int) -> int:
    """Bytes of the Jacobians of three systems."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    return 8 * 3 * (horizon + 1) * starts * (ds + da + 2) ** 2


def _refuse(needed: int, horizon: int, starts: int) -> None:
    if needed > MEMORY:
        raise InputError(
            f"horizon {horizon} with {starts} starts needs about {needed / 1e9:.3g} GB, more than "
            f"{MEMORY / 1e9:.0f} GB: lower one of them"
        )


def check_size(task: Task, horizon: int, starts: int) -> None:
    """Before starts are drawn: what could not be held in any case.

    Raises:
        InputError: names both numbers.
    """
    _refuse(_paths(task, horizon, starts), horizon, starts)


def check_arguments(horizon: int, starts: int, batch: int, termination: str) -> None:
    """What can be refused before anything is computed.

    Raises:
        InputError: names the argument, its value and what is expected.
    """
    validation.whole("horizon", horizon)
    if starts < FEWEST:
        raise InputError(
            f"starts is {starts}, expected at least {FEWEST}: intervals leave starts out"
        )
    validation.whole("starts", starts)
    validation.whole("batch", batch, 1)
    validation.word("termination", termination, TERMINATIONS)


def check_networks(task: Task, policy: nn.Module | None, critic: CriticLike | None) -> None:
    """Try networks on two starts of the task before anything expensive begins.

    Raises:
        InputError: names the network and what does not fit.
    """
    probe, da = task.starts(2, stream(0, "probe")), task.simulator.action_dim
    if policy is not None:
        original = double_copy("policy", policy)
        check_policy(original, probe, da)
        check_trainable(policy)
        noise = torch.zeros(len(probe), noise_dim(policy), dtype=torch.float64)
        with torch.enable_grad():
            attached = act(original, probe.double(), noise).requires_grad
        if not attached:
            raise InputError(
                "policy has no gradient in its parameters: its actions are detached; remove "
                "no_grad, detach, rounding or numpy between them"
            )
    if critic is not None:
        check_critic(double_copy("critic", as_critic(critic)), "Q", probe, da)


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
        return _different(begin)
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


def _rows(starts: int | Tensor | Path) -> int:
    """How many starts were given or asked for."""
    if isinstance(starts, int):
        return starts
    return len(starts.weight) if isinstance(starts, Path) else len(starts)


def _different(begin: Starts) -> Starts:
    """Equal rows of a tensor as one start."""
    found = distinct(begin)
    if len(found.states) < FEWEST:
        raise InputError(
            f"starts has {len(found.states)} different rows of {len(begin.states)}, expected at "
            f"least {FEWEST}: equal rows are one start; give different states, or a number of them"
        )
    return found


def starts_of(task: Task, starts: int | Tensor | Path, seed: int) -> Starts:
    """Float64 starts, drawn from the task's law where only their number is given."""
    if isinstance(starts, int):
        starts = task.starts(starts, stream(seed, "starts"))
    if isinstance(starts, Path):
        begin = as_starts(starts, task.simulator.state_dim)
    else:
        begin = as_starts(_numbers(starts), task.simulator.state_dim)
    path = None if begin.path is None else begin.path.double()
    begin = Starts(begin.states.double(), begin.weight.double(), begin.group, path=path)
    groups = group_count(begin.group)
    if groups < FEWEST:
        raise InputError(f"starts has {groups} groups, expected at least {FEWEST} independent ones")
    return begin


def predictions(task: Task) -> str:
    """What a task's model is: its type, and a print of what it predicts from four starts."""
    if task.prior is None:
        return "none"
    s = task.starts(4, stream(0, "probe")).double()
    a = torch.full((4, task.prior.action_dim), 0.1, dtype=torch.float64)
    with torch.no_grad():
        x = _stepped(task.prior, s, a)
    # To six digits: rounding, as of another number of threads, is no other model.
    _, exponent = torch.frexp(x.nan_to_num())
    digits = torch.ldexp(torch.ldexp(x.nan_to_num(), 20 - exponent).round(), exponent - 20)
    return f"{type(task.prior).__name__} {provenance.tensors_hash(digits)[:8]}"


def _numbers(starts: Tensor | Sequence[object]) -> Tensor:
    expected = "a number of starts, a tensor [N, ds] or a Path"
    validation.instance("starts", starts, (Tensor, np.ndarray, list, tuple), expected)
    try:
        return torch.as_tensor(starts).double()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"starts is no tensor [N, ds] of numbers: {error}") from None


def estimators_at(
    task: Task,
    critic: CriticLike | None,
    given: Mapping[str, Estimator] | None,
    horizon: int,
    every: bool = False,
) -> dict[str, Estimator]:
    """The estimators at horizon H, with float64 copies of their critics.

    Args:
        every: whether the default ones are there with θ in every action, too.
    """
    if given is not None:
        validation.instance("estimators", given, Mapping, "a dictionary of Estimators by name")
        if not given:
            raise InputError("estimators is empty: name at least one, or leave it out")
        for name, each in given.items():
            if not isinstance(each, Estimator):
                got = type(each).__name__
                raise InputError(f"estimator {name!r} is a {got}: measure its parts, Estimators")
        return {name: _lengthened(each, horizon) for name, each in given.items()}
    if critic is None:
        raise InputError("critic is None: give a critic, or estimators with tails of their own")
    tail = Tail(horizon, double_copy("critic", as_critic(critic)), task.discount)
    simulator, prior = task.simulator, task.prior
    unrolled = {"true_dynamics": Estimator(simulator, simulator, "first", tail)}
    if prior is not None:
        model = Estimator(prior, prior, "first", tail)
        unrolled = {"model": model, "mixed": replace(model, states=simulator)} | unrolled
    chosen = {"data": Estimator(simulator, None, "first", replace(tail, horizon=0))} | unrolled
    if not every:
        return chosen
    return chosen | {f"{name}_all": replace(e, actions="all") for name, e in unrolled.items()}


def _check_steps(
    task: Task, policy: nn.Module, chosen: Mapping[str, Estimator], begin: Starts
) -> None:
    """Every system treats rows alone, on two starts."""
    two = begin.block(slice(0, 2))
    with torch.no_grad():
        action = act(policy, two.states, two.policy_noise(policy, 0, 0))
    named = {id(task.simulator): ("simulator", task.simulator)}
    named |= {} if task.prior is None else {id(task.prior): ("prior model", task.prior)}
    for name, each in chosen.items():
        for system in (each.states, each.jacobians):
            if system is not None:
                named.setdefault(id(system), (f"model of {name}", system))
    for name, system in named.values():
        if not isinstance(system, Recorded):
            check_rows(f"step of the {name}", partial(_stepped, system), two.states, action)


def _stepped(system: System, state: Tensor, action: Tensor) -> Tensor:
    found = system.step(state, action, None)
    return torch.cat([found.state, found.reward[:, None]], dim=1)


def _lengthened(estimator: Estimator, horizon: int) -> Estimator:
    given = estimator.tail.critic
    critic = None if given is None else copy.deepcopy(given).double()
    longest = 0 if estimator.jacobians is None and estimator.way.pathwise else horizon
    return replace(estimator, tail=replace(estimator.tail, critic=critic, horizon=longest))


def _check_estimator(
    name: str, estimator: Estimator, task: Task, begin: Starts, truth: str
) -> None:
    if truth == "objective" and not estimator.way.every and isinstance(estimator.states, Recorded):
        raise InputError(
            f"{name} reads recorded states, which the objective's truth would have to leave: use "
            f"truth='matched', or actions='all'"
        )
    if estimator.tail.discount != task.discount:
        raise InputError(
            f"{name} has discount {estimator.tail.discount}, the task {task.discount}: "
            f"their gradients differ in scale; use one discount"
        )
    if estimator.states.state_dim != task.simulator.state_dim:
        raise InputError(
            f"{name} has states of state_dim {estimator.states.state_dim}, the task's simulator "
            f"has {task.simulator.state_dim}"
        )
    if estimator.tail.critic is not None:
        check_critic(
            estimator.tail.critic, estimator.tail.value, begin.states, task.simulator.action_dim
        )
