"""Where a race is run: a task whose starts, states and noise are drawn again at will, or an
environment that is reset and stepped.

Both give the returns of a policy from the same judging starts, update after update, and the states
that gradients and losses are taken at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradlab.data.episodes import play, rows, takes_seed
from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Setting
from gradlab.networks.interface import double_copy, flat_parameters, noise_dim
from gradlab.progress import silent
from gradlab.tasks import Task
from gradlab.truth.moved_returns import Rolling

_VISITS = 4  # states of each start that a fit's visited states hold
UNPAIRED = 4  # times as many starts where resets take no seed


class World(Protocol):
    """What a race asks of its world."""

    @property
    def paired(self) -> bool:
        """Do all policies meet the same starts and noise?"""
        ...

    def returns(self, policies: Sequence[nn.Module]) -> Tensor:
        """Return of every policy from every judging start, [policies, n] float64."""
        ...

    def states(self, policy: nn.Module, fit: int) -> Starts:
        """States that a policy visits, drawn once for all updates until the next fit."""
        ...


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
        moved = [_parameters(policy) - begin for policy in policies]
        return Rolling(self.judging, silent).returns(self.judging.starts, moved, "").returns[1:]

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
        seeded: does reset take a seed?
    """

    environment: Any
    starts: int
    length: int
    discount: float
    seed: int
    seeded: bool

    @property
    def paired(self) -> bool:
        return self.seeded

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

        resets = seed if self.seeded else None
        played = play(self.environment, act, resets, self.length, self.discount)
        return played[0].total, seen


def environment_world(
    environment: Any, starts: int | None, length: int, discount: float, seed: int
) -> _EnvironmentWorld:
    """The world of an environment; without seeds its returns are compared by more starts.

    Raises:
        InputError: it has no reset or step.
    """
    for method in ("reset", "step"):
        if not callable(getattr(environment, method, None)):
            kind = type(environment).__name__
            raise InputError(f"task is a {kind} without {method}: give a Task or an environment")
    seeded = takes_seed(environment)
    n = (32 if seeded else 32 * UNPAIRED) if starts is None else starts
    return _EnvironmentWorld(environment, n, length, discount, seed, seeded)


def _parameters(policy: nn.Module) -> Tensor:
    return flat_parameters(policy).double()
