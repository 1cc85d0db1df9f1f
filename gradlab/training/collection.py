"""Environments of every seed, stepped together: replay is filled and policies are evaluated.

Only a terminal state is an end to the critic; after `episode` steps an episode is truncated. The
transition of a simulation that leaves the finite numbers is not stored (another of the same step
takes its row), and its episode starts again.

Beside it is a second replay, which the model fills: rollouts of length k that branch
off replayed states.

    k(i) = ⌊first + (last − first) · (i − begin)/(end − begin)⌋, between first and last      (MBPO)

Where a rollout ends, another begins, so that every seed stores as many transitions; one that leaves
the finite numbers is replaced by the replayed transition that it began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gradlab.data.replay import Batch, Replay
from gradlab.data.trajectories import stream
from gradlab.errors import Failure, InputError
from gradlab.tasks import Task
from gradlab.tasks.task import OTHER_BOUNDS
from gradlab.training.parts.context import Branching, Draws
from gradlab.training.parts.critics import within
from gradlab.training.seed_models import Model, model_step

# state [E, n, ds], normal noise [E, n, da] → action, and its log density where it has one
Act = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Ended:
    """Episodes of one step that terminated, were truncated, or left the finite numbers."""

    terminated: int
    truncated: int
    broken: int


@final
class Environments:
    """`agents` environments per seed; counts steps, so that any step can be repeated."""

    def __init__(
        self, task: Task, seeds: Sequence[int], agents: int, episode: int, draws: Draws
    ) -> None:
        self.task, self.seeds, self.draws = task, tuple(seeds), draws
        self.agents, self.episode = agents, episode
        self.limit = _limit(task)
        self.steps = 0
        self.state = self._starts()
        self.age = torch.zeros(len(self.seeds), agents, dtype=torch.long)

    def step(self, act: Act, replay: Replay) -> Ended:
        """One step of every environment into `replay`.

        Simulators run in float64 on the CPU, whatever the networks do.
        """
        shape = (self.agents, self.task.simulator.action_dim)
        noise = self.draws.normal("exploration", self.steps, shape)
        seen = self.state.to(self.draws.device, self.draws.dtype)
        with torch.no_grad():
            drawn, log_prob = act(seen, noise)
            wanted = drawn.double().cpu()
        # A seed that has diverged acts at 0, so that the others can go on.
        action = within(torch.nan_to_num(wanted), self.limit)
        width, shocks = self.task.simulator.noise_dim, None
        if width:
            shocks = self.draws.normal("simulator", self.steps, (self.agents, width))
            shocks = shocks.double().cpu()
        after, reward, alive = model_step(self.task.simulator, self.state, action, shocks)
        broken = ~(after.isfinite().all(dim=2) & reward.isfinite())
        terminated = (alive < 0.5) & ~broken
        parts = {
            "state": self.state, "action": action, "reward": reward, "next_state": after,
            "terminated": terminated, "policy_noise": noise.double().cpu(),
        }  # fmt: skip
        if log_prob is not None:
            parts["log_prob"] = torch.nan_to_num(log_prob.double().cpu())
        if shocks is not None:
            parts["dynamics_noise"] = shocks
        self._store(replay, parts, broken)
        self.age += 1
        truncated = (self.age >= self.episode) & ~terminated & ~broken
        self.steps += 1
        over = terminated | truncated | broken
        if over.any():
            after = torch.where(over[..., None], self._starts(), after)
            self.age = torch.where(over, 0, self.age)
        self.state = after
        return Ended(int(terminated.sum()), int(truncated.sum()), int(broken.sum()))

    def saved(self) -> dict[str, Tensor]:
        return {"state": self.state, "age": self.age, "steps": torch.tensor(self.steps)}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        if saved["state"].shape != self.state.shape or saved["age"].shape != self.age.shape:
            raise InputError(f"saved environments are {tuple(saved['state'].shape)}")
        self.state, self.age = saved["state"].clone(), saved["age"].clone()
        self.steps = int(saved["steps"])

    def _store(self, replay: Replay, parts: dict[str, Tensor], broken: Tensor) -> None:
        """Columns of replay by name, [E, n, …]; broken: [E, n]."""
        if broken.any():
            if broken.all(dim=1).any():
                seed = self.seeds[int(broken.all(dim=1).nonzero()[0])]
                raise Failure(
                    f"every environment of seed {seed} left the finite numbers in step "
                    f"{self.steps}: check the simulator; what was saved before is kept. "
                    f"{OTHER_BOUNDS}"
                )
            sound = (~broken).to(torch.uint8).argmax(dim=1, keepdim=True)
            rows = torch.where(broken, sound, torch.arange(self.agents))
            members = torch.arange(len(self.seeds))[:, None]
            parts = {name: part[members, rows] for name, part in parts.items()}
        replay.add(**parts)

    def _starts(self) -> Tensor:
        drawn = [
            self.task.starts(self.agents, stream(seed, f"{self.draws.use} starts", self.steps))
            for seed in self.seeds
        ]
        return torch.stack(drawn).double()


@dataclass(frozen=True)
class Evaluation:
    """Of E seeds on the same S starts, in task units.

    Attributes:
        returns: undiscounted return [E, S].
        ends: how often an episode met the terminal set, mean over the starts, [E].
        rms: root mean square of every state coordinate over all counted states, [E, ds].
    """

    returns: Tensor
    ends: Tensor
    rms: Tensor


@torch.no_grad()
def evaluate(
    task: Task, act: Callable[[Tensor], Tensor], members: int, starts: int, episode: int,
    at_end: str, cast: Callable[[Tensor], Tensor], first: int | None = None,
) -> Evaluation:  # fmt: skip
    """Run the policies without exploration from the task's evaluation starts, `episode` steps each.

    Args:
        act: state [E, S, ds] → action [E, S, da], in the networks' dtype; cast: into it.
        first: how many of the `starts` are run; None: all. They and their noise are as with all.
        at_end: at a terminal state "restart" from a fresh start and go on summing (as the fixed
            length of MPG's episodes has it), or "stop" counting.
    """
    count = starts if first is None else min(first, starts)
    begin = task.starts(starts, stream(0, "evaluation starts")).double()[:count]
    state = begin = begin.expand(members, -1, -1).contiguous()
    returns = torch.zeros(members, count, dtype=torch.float64)
    counted, squares = torch.ones_like(returns), torch.zeros_like(state)
    ends, steps = torch.zeros_like(returns), torch.zeros_like(returns)
    limit = _limit(task)
    for t in range(episode):
        wanted = act(cast(state)).double().cpu()
        squares += state.square() * counted[..., None]
        steps += counted
        noise = None
        if task.simulator.noise_dim:  # the same for every member
            noise = task.simulator.sample_noise(starts, stream(0, "evaluation noise", t))
            noise = noise[:count].expand(members, -1, -1)
        action = within(torch.nan_to_num(wanted), limit)
        state, reward, alive = model_step(task.simulator, state, action, noise)
        # A simulation that broke earns nothing in that step; a policy without numbers, no return.
        alive = alive * state.isfinite().all(dim=2)
        reward = torch.where(reward.isfinite() | (alive > 0.5), reward, 0.0)
        returns += torch.where(wanted.isfinite().all(dim=2), reward, torch.nan) * counted
        ends += (1 - alive) * counted
        over = alive < 0.5
        if bool(over.any()):
            fresh = begin
            if at_end == "stop":
                counted = counted * alive
                if not counted.any():
                    break
            else:
                fresh = task.starts(starts, stream(0, "evaluation restarts", t)).double()[:count]
            state = torch.where(over[..., None], fresh, state)
    rms = (squares.sum(dim=1) / steps.sum(dim=1)[:, None]).sqrt()
    return Evaluation(returns, ends.mean(dim=1), rms)


def _limit(task: Task) -> Tensor | None:
    return None if task.action_limit is None else torch.tensor(task.action_limit).double()


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
