"""`plan`: is planning in a model worth it, by gradients or by sampling, and how far ahead?

    gain = J(plans, then policy) − J(policy)        returns of the simulator, on the same noise

Every search plans in the model with equally many of its roll-outs, its actions are executed in the
simulator, and it plans again from where it came. Beside it stands what the gradient of the plan's
score is worth: one step along it, as the model promises it and as the simulator pays for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.arguments import check_networks
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.progress import Progress, check_progress, silent
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.paired import level_of, mean_interval_at
from gradlab.statistics.selection import chosen_level, largest
from gradlab.systems.system import System, check_system, step_running
from gradlab.tasks.memory import Remembering
from gradlab.tasks.task import Task
from gradlab.tools.planning.result import NONE, STEP, Plans
from gradlab.tools.planning.search import SEARCHES, Imagination, slopes
from gradlab.truth.oracles import effective_horizon

_Array = NDArray[np.float64]
_LONGEST = 1000  # steps of a return
_DRAWS = 4  # roll-outs of a plan in a model with noise
_SHARE = 0.1  # of an action's size, by which one step along the gradient changes it


def compare_planners(
    task: Task,
    policy: nn.Module | None = None,
    critic: CriticLike | None = None,
    *,
    model: System | None = None,
    horizons: Sequence[int] | None = None,
    planners: Sequence[str] = tuple(SEARCHES),
    rollouts: int = 512,
    steps: int | None = None,
    replan: int | None = None,
    starts: int = 32,
    length: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Plans:
    """What planners gain over the policy's own actions, executed in the simulator.

    Searches begin around the policy's plan, with actions half as far apart as the task's
    `action_limit`; without one 5 times as far as its `exploration`, without either 0.5.

    Args:
        policy: acts where no plan does, begins every plan, and with the critic values its end;
            None: actions are 0 there, and plans end without a value.
        model: None: the task's prior.
        horizons: steps of a plan, H; None: 1, 2, 5, 10, … up to the task's.
        planners: "gradient", "projected", "cem", "mppi" (`tools.planning.search`).
        rollouts: of the model for one plan of one start; a gradient counts 3 of them.
        steps: of every episode that are planned, by each planner; None: the longest H.
        replan: steps of a plan that are executed before the next one is made; None: H.
        starts: of the episodes, the same for all; length: steps of their returns, of which the
            policy acts in those after `steps`; None: until γᵀ is 1%, at most 1,000, and `steps`
            without a policy.
        progress: called as progress("plan", planners done, of all).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    progress = check_progress(progress)
    validation.instance("task", task, Task, "a gradlab.Task")
    for name, value, least in (
        ("rollouts", rollouts, 16),
        ("starts", starts, 4),
        ("seed", seed, 0),
    ):
        validation.whole(name, value, least)
    model = model_of(task, model)
    check_networks(replace(task, prior=model), policy, critic, trained=False)
    if isinstance(policy, Remembering) and policy.memory_dim:
        raise InputError("policy has a memory, which a plan would write: plan with one without")
    lengths = _horizons(task, horizons)
    steps = max(lengths) if steps is None else steps
    validation.whole("steps", steps, 1)
    if replan is not None and not 1 <= validation.whole("replan", replan, 1) <= min(lengths):
        raise InputError(f"replan is {replan}, expected at most the shortest plan, {min(lengths)}")
    until = steps if policy is None else min(effective_horizon(task.discount), _LONGEST)
    until = max(until, steps) if length is None else length
    validation.whole("length", until, steps)
    names, notes = _planners(planners, model, task)
    own = None if policy is None else double_copy("policy", policy).requires_grad_(False)
    tail = None if critic is None else double_copy("critic", as_critic(critic))
    contest = _Contest(
        task, model, own, None if tail is None else tail.requires_grad_(False),
        rollouts, steps, replan, until, seed,
        as_starts(task.starts(starts, stream(seed, "plan")).double(), task.simulator.state_dim),
    )  # fmt: skip
    return contest.run(names, lengths, notes, progress)


def model_of(task: Task, model: System | None) -> System:
    """What plans are made in; raises InputError where there is none."""
    found = task.prior if model is None else model
    if found is None:
        raise InputError(f"model is None, and {task.name} has no prior: plans need a model")
    check_system("model", found)
    return found


def _horizons(task: Task, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is None:
        grid = [1, 2, 5, 10, 20, 50, 100]
        return (*(h for h in grid if h < task.horizon), max(task.horizon, 1))
    found = tuple(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else ()
    if not found:
        raise InputError(f"horizons is {asked!r}, expected steps, such as (5, 10)")
    for h in found:
        validation.whole("horizons", h, 1)
    return tuple(sorted(set(found)))


def _planners(asked: Sequence[str], model: System, task: Task) -> tuple[list[str], dict[str, str]]:
    """Those that can be run, and why others cannot."""
    validation.instance("planners", asked, (tuple, list), 'a tuple of names, such as ("cem",)')
    for name in asked:
        validation.word("planners", name, SEARCHES)
    notes: dict[str, str] = {}
    left = [name for name in SEARCHES if name in asked]
    if not getattr(model, "differentiable", True):
        left = [name for name in left if name not in ("gradient", "projected")]
        notes["gradients"] = "the model is not differentiable: plans are searched by sampling alone"
    elif task.action_limit is None and {"gradient", "projected"} <= set(left):
        left.remove("projected")  # it is the same
        notes["projected"] = "the task has no action_limit: nothing to go back within"
    if not left:
        raise InputError(f"planners is {tuple(asked)!r}, of which none can be run with this model")
    return left, notes


@dataclass(frozen=True, eq=False)
class _Contest:
    """All planners, from the same starts and on the same noise."""

    task: Task
    model: System
    policy: nn.Module | None
    critic: nn.Module | None
    rollouts: int
    steps: int
    replan: int | None
    length: int
    seed: int
    starts: Starts

    def run(
        self, names: list[str], horizons: tuple[int, ...], notes: dict[str, str], progress: Progress
    ) -> Plans:
        cells = [(name, h) for h in horizons for name in names]
        plain = self._returns(None)
        if lost := int((~np.isfinite(plain)).sum()):
            raise InputError(
                f"policy has returns that are not finite in {lost} of {len(plain)} starts, without "
                f"any plan: give a length before it leaves the finite numbers"
            )
        trials = [_Trial(NONE, 0, plain, plain, np.zeros_like(plain), 0.0)]
        for done, (name, h) in enumerate(cells):
            progress("plan", done, len(cells))
            begun, promised = time.monotonic(), list[_Array]()
            found = self._returns(self._planner(name, h, promised))
            seconds = (time.monotonic() - begun) / len(promised) / len(plain)
            trials.append(_Trial(name, h, found, plain, promised[0], seconds))
        progress("plan", len(cells), len(cells))
        rising = getattr(self.model, "differentiable", True)
        along = [self._along(h, notes) for h in horizons] if rising else []
        means = [trial.mean for trial in trials]
        if not all(np.isfinite(mean.value) for mean in means):
            notes["lost"] = "a planner's returns are not finite in every start: it has no gain"
        kept = largest(means).kept
        level = chosen_level(means, kept)
        rows = [each.row(level) | {"kept": bool(k)} for each, k in zip(trials, kept, strict=True)]
        rows += [each.row(level_of(len(along))) | {"kept": False} for each in along]
        frame = pd.DataFrame(rows)
        config = {
            "task": self.task.name, "starts": len(plain), "rollouts": self.rollouts,
            "steps": self.steps, "replan": self.replan, "length": self.length, "seed": self.seed,
            "policy": self.policy is not None, "critic": self.critic is not None,
        }  # fmt: skip
        return Plans(frame, config, notes)

    def _imagined(self, horizon: int, step: int) -> Imagination:
        like = self.starts.states
        unit = self.task.action_limit
        if unit is None:
            wide = self.task.exploration or (0.1,) * self.model.action_dim
            unit = tuple(10 * each for each in wide)
        size = like.new_tensor(unit)
        width, draws = self.model.noise_dim, _DRAWS if self.model.noise_dim else 1
        noise = like.new_zeros(horizon, len(like), draws, width)
        for t in range(horizon if width else 0):
            generator = stream(child(self.seed, f"imagined {step}"), "dynamics", t)
            drawn = self.model.sample_noise(len(like) * draws, generator, like.dtype)
            noise[t] = drawn.reshape(len(like), draws, width)
        limit = None if self.task.action_limit is None else size
        return Imagination(
            self.model, self.policy, self.critic, self.task.discount, size, limit, noise
        )

    def _planner(
        self, name: str, horizon: int, promised: list[_Array]
    ) -> Callable[[Tensor, int], Tensor]:
        """(states, step) → plans [S, H, da]; fills what the model promises over the policy."""

        def plan(states: Tensor, step: int) -> Tensor:
            imagined = self._imagined(horizon, step)
            first = imagined.unplanned(states, horizon)
            generator = stream(self.seed, f"plan {name}", step)
            found = SEARCHES[name](imagined, states, first, self.rollouts, generator).detach()
            with torch.no_grad():
                score = imagined.scores(states, torch.stack([first, found], 1))
            promised.append((score[:, 1] - score[:, 0]).numpy())
            return found

        return plan

    @torch.no_grad()
    def _returns(self, planner: Callable[[Tensor, int], Tensor] | None) -> _Array:
        """Discounted returns [S] of the simulator."""
        simulator, starts = self.task.simulator, self.starts
        state, imagined = starts.states, self._imagined(0, 0)
        total, alive = state.new_zeros(len(state)), state.new_ones(len(state))
        plan, at = state.new_zeros(len(state), 0, simulator.action_dim), 0
        for t in range(self.length):
            if planner is not None and t < self.steps:
                if at >= min(self.replan or self.steps, plan.shape[1]):
                    plan, at = planner(state, t), 0
                action, at = plan[:, at], at + 1
            else:
                action = imagined.within(imagined.greedy(state))
            noise = starts.dynamics_noise(simulator, self.seed, t) if simulator.noise_dim else None
            after = step_running(simulator, state, action, noise)
            paid = torch.where(alive > 0, after.reward, torch.zeros_like(total))
            total = total + self.task.discount**t * paid
            state, alive = after.state, alive * after.alive.to(alive)
        return total.numpy()

    def _along(self, horizon: int, notes: dict[str, str]) -> _Trial:
        """One step along the gradient of the plan's score, promised and executed."""
        states, imagined = self.starts.states, self._imagined(horizon, 0)
        first = imagined.unplanned(states, horizon)
        before, slope = slopes(imagined, states, first[:, None])
        if not slope.any():
            notes["gradients"] = (
                "the score of a plan has no gradient in the actions: is the model's step or reward "
                "detached from them?"
            )
        size = slope.flatten(1).norm(dim=1).clamp(min=1e-300)[:, None, None, None]
        scale = _SHARE * imagined.unit * (first[0].numel() / len(imagined.unit)) ** 0.5
        moved = imagined.within(first + (scale * slope / size)[:, 0])
        with torch.no_grad():
            promised = (imagined.scores(states, moved[:, None]) - before)[:, 0].numpy()
        once = replace(self, steps=horizon, replan=None)
        plain = once._returns(lambda state, step: first)
        return _Trial(STEP, horizon, once._returns(lambda state, step: moved), plain, promised)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Returns [S] with a planner and without, and what the model had promised."""

    planner: str
    horizon: int
    found: _Array
    plain: _Array
    promised: _Array
    seconds: float = math.nan

    @property
    def gain(self) -> _Array:
        return self.found - self.plain

    @property
    def mean(self) -> Estimate:
        return sample_mean(self.gain, np.ones(len(self.gain)))

    def row(self, level: float) -> dict[str, object]:
        """Its line of the table, with an interval at this level."""
        ends = mean_interval_at(self.mean, level)
        return {
            "planner": self.planner, "horizon": self.horizon, "return": self.found.mean(),
            "promised": self.promised.mean(), "gain": self.mean.value, "ci_low": ends.low,
            "ci_high": ends.high, "share_above": float((self.gain > 0).mean()),
            "seconds": self.seconds, "n": len(self.gain),
        }  # fmt: skip
