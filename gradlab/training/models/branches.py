"""A second replay, which the model fills: rollouts of length k that branch off replayed states.

k(i) = ⌊first + (last − first) · (i − begin)/(end − begin)⌋, between first and last      (MBPO)

Where a rollout ends, another begins, so that every seed stores as many transitions; one that leaves
the finite numbers is replaced by the replayed transition that it began with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.replay import Batch, Replay
from gradlab.errors import InputError
from gradlab.training.collection import Act
from gradlab.training.draws import Draws
from gradlab.training.models.seed_models import Model, model_step
from gradlab.training.parts.targets import within


@dataclass(frozen=True)
class Branching:
    """A schedule of rollouts.

    Attributes:
        every: iterations between two fillings.
        rollouts: of every seed in each one.
        first, last: their length in model steps, at iteration `begin` and from `end` on.
        kept: fillings of the present length that batches are drawn from.
    """

    every: int = 250
    rollouts: int = 5000
    first: int = 1
    last: int = 1
    begin: int = 0
    end: int = 1
    kept: int = 4

    def __post_init__(self) -> None:
        for name in ("every", "rollouts", "first", "last", "kept"):
            validation.whole(f"branching's {name}", getattr(self, name), 1)
        if not 0 <= self.begin < self.end:
            raise InputError(
                f"rollouts have begin {self.begin} and end {self.end}: expected 0 ≤ begin < end"
            )

    def length(self, iteration: int) -> int:
        """k at an iteration."""
        share = (iteration - self.begin) / (self.end - self.begin)
        return int(self.first + (self.last - self.first) * min(max(share, 0.0), 1.0))

    def recent(self, iteration: int) -> int:
        """Rows of one seed that batches are drawn from."""
        return self.kept * self.rollouts * self.length(iteration - iteration % self.every)

    @property
    def longest(self) -> int:
        return max(self.first, self.last)

    @property
    def name(self) -> str:
        steps = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"model rollouts of length {steps}"


@final
class Branches:
    """State: the second replay, of one size from the beginning.

    Args:
        like: the replay of the environments.
    """

    def __init__(self, choice: Branching, like: Replay, draws: Draws) -> None:
        self.choice = choice
        self.draws = Draws(draws.seeds, draws.dtype, draws.device, "branches", block=1)
        size = choice.kept * choice.rollouts * choice.longest
        self.replay = Replay(
            len(draws.seeds), size, like.widths[0], like.widths[1], draws.dtype, draws.device,
            densities=like.densities,
        )  # fmt: skip

    @torch.no_grad()
    def fill(
        self, replay: Replay, model: Model, act: Act, limit: Tensor | None, iteration: int
    ) -> dict[str, Any]:
        """Roll out from replayed states; a row of the run's table."""
        begun, choice = time.perf_counter(), self.choice
        steps, count = choice.length(iteration), choice.rollouts
        width, draws = replay.widths[1], self.draws
        at = draws.uniform("starts", iteration, (steps, count))
        noise = draws.normal("actions", iteration, (steps, count, width))
        drawn = draws.normal("model noise", iteration, (steps, count, model.noise_dim))
        start = replay.sample(at[:, 0])
        state, over = start.state, torch.zeros_like(start.terminated, dtype=torch.bool)
        restarts = over.sum(dim=1)
        for t in range(steps):
            if t:
                start = _where(over, replay.sample(at[:, t]), start)
                state = torch.where(over[..., None], start.state, state)
                restarts = restarts + over.sum(dim=1)
            action, log_prob = act(state, noise[:, t])
            action = within(torch.nan_to_num(action), limit)
            after, reward, alive = model_step(model, state, action, drawn[:, t])
            broken = ~(after.isfinite().all(dim=2) & reward.isfinite())
            density = log_prob if start.log_prob is not None else None
            made = Batch(state, action, reward, after, 1 - alive, density)
            made = _where(broken, start, made)
            self.replay.add(**made.tensors)
            state, over = made.next_state, broken | (alive < 0.5)
        return {
            "iteration": iteration,
            "scheduled": steps,
            "realised": (steps * count / (count + restarts.double())).cpu().numpy(),
            "seconds": time.perf_counter() - begun,
        }

    def state(self) -> dict[str, Tensor]:
        """For `load`."""
        return self.replay.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.replay.load(state)


def _where(chosen: Tensor, first: Batch, second: Batch) -> Batch:
    """The rows of `first` where `chosen` [E, N], else those of `second`."""
    ours, theirs = first.tensors, second.tensors

    def merged(one: Tensor, other: Tensor) -> Tensor:
        rows = chosen if one.ndim == 2 else chosen[..., None]
        return torch.where(rows, one, other)

    return Batch(**{name: merged(ours[name], theirs[name]) for name in ours})
