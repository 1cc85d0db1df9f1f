"""`plan`: is planning in a model worth it, by gradients or by sampling, and how far ahead?

    gain = J(plans, then policy) − J(policy)        returns of the simulator, on the same noise
    score(a_0 … a_{H−1}) = Σ_{t<H} γᵗ r_t + γᴴ Q(s_H, π(s_H)),   s_{t+1} = f(s_t, a_t)

    gradient    Adam on the actions, from the first plan and from others around it
    projected   the same, back within the action limits after every step
    cem         means and standard deviations of the best tenth (PETS, Chua et al. 2018, alg. 1)
    mppi        of all, weighted by exp(score / (τ sd)) (Williams et al. 2017; TD-MPC2)

Every search has equally many roll-outs of the model, a gradient counting three. Beside it stands
one step along the score's gradient, as the model promises it and as the simulator pays for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from gradlab.networks.interface import act, double_copy, noise_dim
from gradlab.networks.mlp import CriticLike, as_critic, judge
from gradlab.progress import Progress, check_progress, silent
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.over_groups import level_of, mean_interval_at
from gradlab.statistics.selection import chosen_level, largest
from gradlab.systems.system import System, check_system, step_running
from gradlab.tasks.memory import Remembering
from gradlab.tasks.task import Task
from gradlab.tools.planning.result import NONE, STEP, Plans
from gradlab.truth.oracles import effective_horizon

_GRADIENT = 3  # roll-outs that a gradient costs
_CHAINS = 4  # plans that a gradient search begins from
_ROUNDS = 4  # of sampling
_ELITES = 0.1
_TEMPERATURE = 0.5  # τ, in standard deviations of a round's scores
_LEAST = 0.05  # standard deviation of an action that stays, in its own unit


@dataclass(frozen=True, eq=False)
class Imagination:
    """What plans are scored in: rows of starts [S], each with C plans.

    Attributes:
        unit: size of an action, [da]; limit: largest |action|, or None.
        noise: [H, S, D, noise_dim], of D roll-outs of every plan, the same for all plans.
    """

    model: System
    policy: nn.Module | None
    critic: nn.Module | None
    discount: float
    unit: Tensor
    limit: Tensor | None
    noise: Tensor

    @property
    def draws(self) -> int:
        return self.noise.shape[2]

    def within(self, actions: Tensor) -> Tensor:
        """Actions, none beyond its limit."""
        return actions if self.limit is None else actions.clamp(-self.limit, self.limit)

    def greedy(self, state: Tensor) -> Tensor:
        """Actions [N, da] without a plan: the policy's, without noise; 0 where there is none."""
        if self.policy is None:
            return state.new_zeros(len(state), self.model.action_dim)
        return act(self.policy, state, state.new_zeros(len(state), noise_dim(self.policy)))

    @torch.no_grad()
    def unplanned(self, states: Tensor, horizon: int) -> Tensor:
        """Actions [S, H, da] of the policy along its own path through the model."""
        actions = []
        for t in range(horizon):
            actions.append(self.within(self.greedy(states)))
            states = self.model.step(states, actions[t], self._noise(t, 0, len(states), 1)).state
        return torch.stack(actions, 1).nan_to_num(0.0)

    def scores(self, states: Tensor, plans: Tensor) -> Tensor:
        """[S, C], of plans [S, C, H, da]: means over the draws; −∞ where one is not finite."""
        S, C, H, _ = plans.shape
        state = states.repeat_interleave(C * self.draws, 0)
        total, alive = state.new_zeros(len(state)), state.new_ones(len(state))
        for t in range(H):
            action = plans[:, :, t].reshape(S * C, -1).repeat_interleave(self.draws, 0)
            after = self.model.step(state, action, self._noise(t, None, S, C))
            total = total + self.discount**t * alive * after.reward
            state, alive = after.state, alive * after.alive.to(alive)
        if self.policy is not None and self.critic is not None:
            tail = judge(self.critic, "Q", state, self.greedy(state))
            total = total + self.discount**H * alive * tail
        return (
            total.reshape(S, C, self.draws).mean(2).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        )

    def _noise(self, t: int, draw: int | None, starts: int, plans: int) -> Tensor | None:
        if not self.model.noise_dim:
            return None
        drawn = self.noise[t] if draw is None else self.noise[t][:, draw : draw + 1]
        return drawn[:starts, None].expand(-1, plans, -1, -1).reshape(-1, self.model.noise_dim)


_Search = Callable[[Imagination, Tensor, Tensor, int, torch.Generator], Tensor]


def gradient(
    imagined: Imagination, states: Tensor, first: Tensor, rollouts: int,
    generator: torch.Generator, projected: bool = False,
) -> Tensor:  # fmt: skip
    """The best plan [S, H, da] that Adam meets, from `first` and from plans around it."""
    drawn = _around(first, 0.5 * imagined.unit, _CHAINS, generator)
    plans = imagined.within(drawn) if projected else drawn
    best, value = first, imagined.scores(states, first[:, None]).detach()[:, 0]
    rate, velocity, square = 0.1 * imagined.unit, 0 * plans, 0 * plans
    for k in range(1, max(rollouts // (_GRADIENT * _CHAINS * imagined.draws), 1) + 1):
        score, slope = slopes(imagined, states, plans)
        better, at = score.max(1)
        chosen = plans[torch.arange(len(plans)), at]
        best = torch.where((better > value)[:, None, None], chosen, best)
        value = torch.maximum(value, better)
        velocity, square = 0.9 * velocity + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        away = velocity / (1 - 0.9**k) / ((square / (1 - 0.999**k)).sqrt() + 1e-12)
        plans = plans + rate * away
        plans = imagined.within(plans) if projected else plans
    return imagined.within(best)


def slopes(imagined: Imagination, states: Tensor, plans: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [S, C], and their gradients in plans [S, C, H, da]; 0 where one is not finite."""
    with torch.enable_grad():
        open_plans = plans.detach().requires_grad_()
        score = imagined.scores(states, open_plans)
        if not score.requires_grad:
            return score, torch.zeros_like(plans)
        finite = torch.where(score.isfinite(), score, torch.zeros_like(score))
        (slope,) = torch.autograd.grad(finite.sum(), open_plans)
    return score.detach(), slope.nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def _sampled(
    imagined: Imagination, states: Tensor, first: Tensor, rollouts: int,
    generator: torch.Generator, weights: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """The mean after some rounds, whose samples count by weights(scores [S, C]) → [S, C]."""
    mean, std = first, 0.5 * imagined.unit.expand_as(first)
    count = max(rollouts // (_ROUNDS * imagined.draws), 4)
    for _ in range(_ROUNDS):
        plans = imagined.within(_around(mean, std, count, generator))
        weight = weights(imagined.scores(states, plans))[..., None, None]
        mean = (weight * plans).sum(1)
        std = (weight * (plans - mean[:, None]) ** 2).sum(1).sqrt()
        std = torch.maximum(std, _LEAST * imagined.unit)
    return imagined.within(mean)


def _elites(scores: Tensor) -> Tensor:
    count = max(round(_ELITES * scores.shape[1]), 2)
    return torch.zeros_like(scores).scatter(1, scores.topk(count, 1).indices, 1 / count)


def _soft(scores: Tensor) -> Tensor:
    finite = scores.isfinite()
    if not finite.any():
        return torch.full_like(scores, 1 / scores.shape[1])
    spread = torch.where(finite, scores, scores[finite].mean()).std(1, keepdim=True)
    return torch.softmax(scores / (_TEMPERATURE * spread + 1e-12), 1).nan_to_num(0.0)


def _around(mean: Tensor, std: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Plans [S, C, H, da], the first of them the mean [S, H, da] itself."""
    shape = (len(mean), count, *mean.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(mean)
    noise[:, 0] = 0
    return mean[:, None] + std.expand_as(mean)[:, None] * noise


SEARCHES: dict[str, _Search] = {
    "gradient": gradient,
    "projected": partial(gradient, projected=True),
    "cem": partial(_sampled, weights=_elites),
    "mppi": partial(_sampled, weights=_soft),
}


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
        planners: "gradient", "projected", "cem", "mppi" (`gradlab.tools.planning.compute`).
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
                f"returns of the policy itself are not finite in {lost} of {len(plain)} starts: "
                f"give a shorter length"
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
