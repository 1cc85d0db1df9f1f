"""Branches of a race: a policy that follows one candidate, with a critic and a model of its own.

A candidate is an estimator at its horizon, a weighted sum of some, or a loss of a user's own, and
becomes a step: from the policy and the number of the update to what the optimiser descends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.starts import Starts
from gradlab.networks.interface import double_copy
from gradlab.racing.worlds import TaskWorld, World
from gradlab.runs.one_step import Cell
from gradlab.runs.race import ALONE
from gradlab.systems.system import System

Loss = Callable[[nn.Module, Tensor], Tensor]
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Candidate = (
    Estimator | Sequence[tuple[float, Estimator]] | Loss | tuple[Loss, Optimizer]
)  # see `gradlab.race`


@dataclass(eq=False)
class Branch:
    """One candidate on its way.

    Attributes:
        parts: weighted estimators; () of a loss.
        loss: the user's own, of policy and states.
        critic, model: in the place of the race's own, where they are fitted again.
        states: visited by the policy at the last fit.
        dropped: updates after which it was dropped, 0: never.
    """

    name: str
    policy: nn.Module
    optimizer: torch.optim.Optimizer
    parts: Sequence[tuple[float, Estimator]] = ()
    loss: Loss | None = None
    critic: nn.Module | None = None
    model: System | None = None
    states: Starts | None = field(default=None, repr=False)
    dropped: int = 0

    def has(self, thing: object) -> bool:
        """Is this critic, or model, one of its estimators'?"""
        return any(
            thing is each
            for _, part in self.parts
            for each in (part.tail.critic, part.states, part.jacobians)
        )

    @property
    def cell(self) -> Cell:
        alone = len(self.parts) == 1 and self.parts[0][0] == 1.0
        return self.name, self.parts[0][1].tail.horizon if alone else ALONE


@dataclass(frozen=True)
class Parts:
    """What the candidates of a race share: the critic and the model that branches replace."""

    world: World
    critic: nn.Module | None
    model: System | None
    batch: int
    seed: int
    termination: str

    def step(self, branch: Branch, update: int) -> None:
        """One update of the branch's policy."""
        branch.optimizer.zero_grad(set_to_none=True)
        if branch.loss is not None:
            loss = branch.loss(branch.policy, self.batch_of(branch, update).states)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise InputError(
                    f"candidate {branch.name!r} returns {type(loss).__name__}, expected a scalar "
                    f"loss to descend"
                )
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
            own = self._replaced(part, branch)
            if own.way.every and isinstance(self.world, TaskWorld):
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

    def _replaced(self, part: Estimator, branch: Branch) -> Estimator:
        """The estimator with the branch's own critic and model."""
        tail = part.tail
        if tail.critic is not None and tail.critic is self.critic:
            tail = replace(tail, critic=branch.critic)
        systems: dict[str, Any] = {
            name: branch.model
            for name in ("states", "jacobians")
            if self.model is not None and getattr(part, name) is self.model
        }
        return replace(part, tail=tail, **systems)


def branch_of(name: str, candidate: object, policy: nn.Module, optimizer: Optimizer) -> Branch:
    """The branch of one candidate, whose policy is a copy: float64 for estimators.

    Raises:
        InputError: it is none of what a candidate can be.
    """
    if isinstance(candidate, Estimator):
        candidate = ((1.0, candidate),)
    if _is_mixture(candidate):
        parts = tuple((float(weight), each) for weight, each in candidate)  # type: ignore[attr-defined]
        own = double_copy("policy", policy)
        return Branch(name, own, optimizer(own.parameters()), parts)
    loss, rule = candidate if isinstance(candidate, tuple) else (candidate, optimizer)
    if not callable(loss) or not callable(rule):
        raise InputError(
            f"candidate {name!r} is a {type(candidate).__name__}, expected an Estimator, pairs of "
            f"weight and Estimator, a loss(policy, states), or (loss, optimizer(parameters))"
        )
    own = copy.deepcopy(policy)
    return Branch(name, own, rule(own.parameters()), loss=loss)


def _is_mixture(candidate: object) -> bool:
    if not isinstance(candidate, Sequence) or not candidate:
        return False
    return all(
        isinstance(part, Sequence) and len(part) == 2 and isinstance(part[1], Estimator)
        for part in candidate
    )
