"""Branches of a race, each a policy that follows one candidate, and the world that it is run in.

A candidate is an estimator at its horizon, a weighted sum of some, or a user's loss. A world gives
returns from the same judging starts, and the states that gradients and losses are taken at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.episodes import play, rows, takes_seed
from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.gradients.start_laws import visits
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.rehearsal import at_horizon
from gradlab.measurement.update import Optimizer
from gradlab.networks.interface import double_copy, flat_parameters, noise_dim
from gradlab.networks.mlp import CriticLike
from gradlab.runs.identity import Cell
from gradlab.tasks import Task
from gradlab.tools.race.result import ALONE
from gradlab.truth.returns import paired_returns
from gradlab.validation import shown

_VISITS = 4  # states of each start that a fit's visited states hold
UNPAIRED = 4  # times as many starts where resets take no seed


@dataclass(frozen=True)
class TaskWorld:
    """A task: discounted returns of `judging.horizon` steps, on common noise.

    Attributes:
        judging: the setting of the returns, from starts that make no gradient.
        pool: starts whose visited states a fit has.
    """

    task: Task
    judging: Setting
    pool: int
    paired = True

    def returns(self, policies: Sequence[nn.Module]) -> Tensor:
        begin = _parameters(self.judging.policy)
        steps = [_parameters(policy) - begin for policy in policies]
        return paired_returns(self.judging, self.judging.starts, steps)[0][1:]

    def states(self, policy: nn.Module, fit: int) -> Starts:
        seed = child(self.judging.seed, f"race states {fit}")
        own = double_copy("policy", policy)
        setting = replace(self.judging, policy=own, starts=self._drawn(self.pool, seed))
        return visits(replace(setting, seed=seed), _VISITS)

    def starts(self, n: int, update: int) -> Starts:
        """Fresh starts of one update, the same for every branch."""
        return self._drawn(n, child(self.judging.seed, f"race starts {update}"))

    def _drawn(self, n: int, seed: int) -> Starts:
        drawn = self.task.starts(n, stream(seed, "race")).double()
        return as_starts(drawn, self.task.simulator.state_dim)


@dataclass(frozen=True)
class _EnvironmentWorld:
    """An environment with reset and step, as Gymnasium's; returns are sums of discounted rewards.

    Attributes:
        starts: episodes that returns are of; length: steps of an episode, at most.
        paired: does reset take a seed?
    """

    environment: Any
    starts: int
    length: int
    discount: float
    seed: int
    paired: bool

    def returns(self, policies: Sequence[nn.Module]) -> Tensor:
        episodes = [
            [self._episode(policy, f"race return {i}")[0] for i in range(self.starts)]
            for policy in policies
        ]
        return torch.tensor(episodes, dtype=torch.float64)

    def states(self, policy: nn.Module, fit: int) -> Starts:
        seen: list[Tensor] = []
        for i in range(max(self.starts // _VISITS, 1)):
            seen += self._episode(policy, f"race states {fit} {i}")[1]
        return as_starts(torch.stack(seen), seen[0].shape[0])

    def _episode(self, policy: nn.Module, name: str) -> tuple[float, list[Tensor]]:
        """Discounted return and observed states of one episode, on noise of its own."""
        seed = child(self.seed, name) % 2**31
        like, seen = next(policy.parameters()), list[Tensor]()

        def act(state: Any, t: int) -> Any:
            row = rows(state, like, batched=False)
            seen.append(row[0])
            drawn = torch.randn(1, noise_dim(policy), generator=stream(seed, "policy", t))
            with torch.no_grad():
                action: Tensor = policy(*([row, drawn.to(like)] if noise_dim(policy) else [row]))
            return action[0].cpu().numpy()

        resets = seed if self.paired else None
        played = play(self.environment, act, resets, self.length, self.discount)
        return played[0].total, seen


World = TaskWorld | _EnvironmentWorld


def environment_world(
    environment: Any, starts: int | None, length: int, discount: float, seed: int
) -> _EnvironmentWorld:
    """The world of an environment; without seeds its returns are compared by more starts."""
    for method in ("reset", "step"):
        if not callable(getattr(environment, method, None)):
            kind = type(environment).__name__
            raise InputError(f"task is a {kind} without {method}: give a Task or an environment")
    seeded = takes_seed(environment)
    n = (32 if seeded else 32 * UNPAIRED) if starts is None else starts
    return _EnvironmentWorld(environment, n, length, discount, seed, seeded)


def _parameters(policy: nn.Module) -> Tensor:
    return flat_parameters(policy).double()


_SHOTS = (1, 5)  # horizons of the default candidates, beside the task's own

_Loss = Callable[[nn.Module, Tensor], Tensor]
Candidate = (
    Estimator | Sequence[tuple[float, Estimator]] | _Loss | tuple[_Loss, Optimizer]
)  # see `gradlab.race`


@dataclass(eq=False)
class Branch:
    """One candidate on its way.

    Attributes:
        parts: weighted estimators; () of a loss.
        loss: the user's own, of policy and states.
        critic: in the place of the race's own, where it is fitted again.
        states: visited by the policy at the last fit.
        dropped: updates after which it was dropped, 0: never.
    """

    name: str
    policy: nn.Module
    optimizer: torch.optim.Optimizer
    parts: Sequence[tuple[float, Estimator]] = ()
    loss: _Loss | None = None
    critic: nn.Module | None = None
    states: Starts | None = field(default=None, repr=False)
    dropped: int = 0

    def has(self, thing: object) -> bool:
        """Is this critic one of its estimators'?"""
        return any(thing is part.tail.critic for _, part in self.parts)

    def state(self) -> dict[str, Any]:
        """Everything that its next update depends on, for `load`."""
        states = self.states
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic": None if self.critic is None else self.critic.state_dict(),
            "states": None if states is None else (states.states, states.weight, states.group),
            "dropped": self.dropped,
        }

    def load(self, own: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.policy.load_state_dict(own["policy"])
        self.optimizer.load_state_dict(own["optimizer"])
        if self.critic is not None and own["critic"] is not None:
            self.critic = copy.deepcopy(self.critic)
            self.critic.load_state_dict(own["critic"])
        self.states = None if own["states"] is None else Starts(*own["states"])
        self.dropped = int(own["dropped"])

    @property
    def cell(self) -> Cell:
        alone = len(self.parts) == 1 and self.parts[0][0] == 1.0
        return self.name, self.parts[0][1].tail.horizon if alone else ALONE


@dataclass(frozen=True)
class SharedNetworks:
    """What the candidates of a race share: the critic that branches replace."""

    world: World
    critic: nn.Module | None
    batch: int
    seed: int
    termination: str

    def step(self, branch: Branch, update: int) -> None:
        """One update of the branch's policy."""
        branch.optimizer.zero_grad(set_to_none=True)
        if branch.loss is not None:
            loss = branch.loss(branch.policy, self.batch_of(branch, update).states)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                got = type(loss).__name__
                raise InputError(f"candidate {branch.name!r} returns {got}, expected a scalar loss")
            torch.autograd.backward(loss.sum())
        else:
            ascent = self.gradient(branch, update)
            sizes = [p.numel() for p in branch.policy.parameters()]
            pieces = torch.split_with_sizes(ascent, sizes)
            for p, g in zip(branch.policy.parameters(), pieces, strict=True):
                p.grad = -g.reshape(p.shape) if p.requires_grad else None
        branch.optimizer.step()

    def gradient(self, branch: Branch, update: int) -> Tensor:
        """Mean ascent gradient of the estimators at the branch's policy, [P]."""
        total = torch.zeros(1, dtype=torch.float64)
        seed = child(self.seed, f"race update {update}")
        for weight, part in branch.parts:
            own = part  # with the branch's own critic
            if part.tail.critic is not None and part.tail.critic is self.critic:
                own = replace(part, tail=replace(part.tail, critic=branch.critic))
            if own.way.all_actions and isinstance(self.world, TaskWorld):
                at = self.world.starts(self.batch, update)
            else:
                at = self.batch_of(branch, update)
            total = total + weight * mean_gradient(own, branch.policy, at, seed, self.termination)
        return total

    def batch_of(self, branch: Branch, update: int) -> Starts:
        """Rows of the states that were visited at the last fit; a loss gets those alive alone."""
        states = branch.states
        assert states is not None  # a branch is fitted before its first update
        among = torch.arange(len(states.states))
        if branch.loss is not None:
            among = among[states.weight > 0]
        draw = stream(self.seed, "race rows", update)
        rows = among[torch.randint(len(among), (self.batch,), generator=draw)]
        drawn = states.states[rows].to(next(branch.policy.parameters()))
        return Starts(drawn, states.weight[rows], torch.arange(self.batch))


@dataclass(frozen=True)
class Parsed:
    """A candidate as weighted estimators, or as a loss, with an optimizer of its own or None."""

    parts: Sequence[tuple[float, Estimator]] = ()
    loss: _Loss | None = None
    optimizer: Optimizer | None = None

    def branch(self, name: str, policy: nn.Module, optimizer: Optimizer) -> Branch:
        """Its branch, whose policy is a copy: float64 for estimators."""
        own = double_copy("policy", policy) if self.parts else copy.deepcopy(policy)
        rule = (self.optimizer or optimizer)(own.parameters())
        return Branch(name, own, rule, self.parts, self.loss)


def parsed(name: str, candidate: Any, critic: CriticLike | None, own: nn.Module | None) -> Parsed:
    """A candidate with float64 critics, of which `own` stands for the race's `critic`."""

    def copied(part: Estimator) -> Estimator:
        there = part.tail.critic
        if there is None or there is own:
            return part
        copied_critic = own if there is critic else double_copy("critic", there)
        return replace(part, tail=replace(part.tail, critic=copied_critic))

    pairs = ((1.0, candidate),) if isinstance(candidate, Estimator) else candidate
    if isinstance(pairs, Sequence) and pairs and all(map(_is_weighted, pairs)):
        return Parsed(tuple((float(weight), copied(part)) for weight, part in pairs))
    loss, optimizer = candidate if isinstance(candidate, tuple) else (candidate, None)
    if not callable(loss) or not (optimizer is None or callable(optimizer)):
        raise InputError(
            f"candidate {name!r} is a {type(candidate).__name__}, expected an Estimator, pairs "
            f"(weight, Estimator), a loss(policy, states), or (loss, optimizer(parameters))"
        )
    return Parsed(loss=loss, optimizer=optimizer)


def _is_weighted(pair: object) -> bool:
    return isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[1], Estimator)


def candidates_of(
    task: Task | Any,
    critic: CriticLike | None,
    own: nn.Module | None,
    given: Mapping[str, Candidate] | Sequence[str] | None,
    horizon: int | None,
    fewest: int = 2,
) -> dict[str, Any]:
    """Candidates by name, those that were named with the race's own critic."""
    names_given = isinstance(given, list | tuple) and all(isinstance(n, str) for n in given)
    if not (given is None or isinstance(given, Mapping) or names_given):
        raise InputError(f"candidates is {shown(given)}, expected names (NAME:STEPS) or a dict")
    if not isinstance(given, Mapping):
        if not isinstance(task, Task):
            raise InputError("candidates is None: name losses, loss(policy, states) → scalar")
        H = task.horizon if horizon is None else horizon
        every = {
            name: replace(each, tail=replace(each.tail, critic=own))
            for name, each in estimators_at(task, critic, None, H, every=True).items()
        }
        if given is None:
            no_model = task.prior is None or task.prior is task.simulator
            model = "true_dynamics_all" if no_model else "model_all"
            names = ["data", *(f"{model}:{h}" for h in sorted({*_SHOTS, H}) if h <= H)]
        else:
            names = list(given)
        found: dict[str, Estimator] = {}
        for name in names:
            base, colon, steps = name.partition(":")
            if base not in every or (colon and not steps.isdigit()):
                raise InputError(f"candidate {name!r} is unknown: write NAME:STEPS with one of "
                                 f"{', '.join(every)}")  # fmt: skip
            found[name] = at_horizon(every[base], int(steps)) if colon else every[base]
        given = found
    if len(given) < fewest:
        raise InputError(f"candidates are {list(given)}: a race needs at least two")
    return dict(given)
