"""Tables, attributes and rows of a training run; rows of updates are made in `training.state`.

An evaluation may have a planner beside its policy, model predictive control at test: the policy's
actions, refined by the cross-entropy method.

    score(a_0 … a_{H−1}) = Σ_{t<H} γᵗ r_t + γᴴ Q(s_H, π(s_H)),   s_{t+1} = f(s_t, a_t)

The first sequences are the policy's own paths, later ones are drawn around the mean of the best;
its first action is applied (MAAC, appendix A.5; PETS, Chua et al. 2018, algorithm 1).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm, LearnedModel
from gradlab.training.asynchronous import work as asynchrony
from gradlab.training.collection import Evaluation, evaluate
from gradlab.training.dynamics import Fitted
from gradlab.training.measured import gradient_errors, weights
from gradlab.training.parts.context import Objective, Value
from gradlab.training.parts.critics import within
from gradlab.training.parts.duals import Automatic
from gradlab.training.seed_models import Model, model_step
from gradlab.training.settings import Planning, Settings
from gradlab.training.state import Run


def check(algorithm: Algorithm, prior: object | None, planning: Planning | None) -> None:
    """Raises InputError where there is no model to plan with."""
    if planning is not None and algorithm.model is None and prior is None:
        raise InputError(
            f"planning needs a model, but {algorithm.name} learns none and the task has no prior: "
            f"take an algorithm with a learned model, or a task with a prior"
        )


@dataclass(frozen=True, eq=False)
class Planner:
    """What a plan is made with; states have a leading axis [E] of seeds.

    Attributes:
        draw: the policy's action at normal noise, [E, N, ds], [E, N, da] → [E, N, da]; act: its
            action without.
        value: of the critic; 0 where there is none.
        objective: its discount, factor on rewards and terminal states; entropy is not planned for.
        limit: largest |action|, [da], or None.
    """

    choice: Planning
    model: Model
    draw: Callable[[Tensor, Tensor], Tensor]
    act: Callable[[Tensor], Tensor]
    value: Value
    objective: Objective
    action_dim: int
    limit: Tensor | None

    @torch.no_grad()
    def __call__(self, state: Tensor, step: int) -> Tensor:
        """The action [E, S, da] that is applied in `state` [E, S, ds] at one step of an episode."""
        choice, (seeds, starts, _) = self.choice, state.shape
        begin = state.repeat_interleave(choice.samples, dim=1)
        shape = (choice.horizon, starts * choice.samples, self.action_dim)
        elite = state.new_zeros(0)  # [H, E, S, elites, da]
        for number in range(choice.rounds):
            generator = stream(0, f"planning {number}", step)
            noise = _normal(shape, generator, state)
            dealt = _normal((*shape[:2], self.model.noise_dim), generator, state)
            plan = self._around(elite, noise) if number else None
            score, plan = self._rolled_out(begin, plan, noise, dealt)
            best = score.view(seeds, starts, -1).topk(choice.elites, dim=2).indices
            every = plan.view(choice.horizon, seeds, starts, choice.samples, -1)
            at = best[None, ..., None].expand(choice.horizon, -1, -1, -1, every.shape[4])
            elite = every.gather(3, at)
        return elite.mean(dim=3)[0]

    def _around(self, elite: Tensor, noise: Tensor) -> Tensor:
        """Sequences [H, E, N, da] as far around the mean of the best ones as they lie apart."""
        mean, std = (
            x.repeat_interleave(self.choice.samples, dim=2)
            for x in (elite.mean(dim=3), elite.std(dim=3))
        )
        return within(mean + std * noise[:, None], self.limit)

    def _rolled_out(
        self, state: Tensor, plan: Tensor | None, noise: Tensor, dealt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score [E, N] of N sequences, and the sequences [H, E, N, da]: `plan`, or the policy's."""
        objective, total = self.objective, state.new_zeros(state.shape[:2])
        alive = torch.ones_like(total)
        actions = []
        for t in range(self.choice.horizon):
            if plan is None:
                drawn = self.draw(state, noise[t].expand(state.shape[0], -1, -1))
                actions.append(within(drawn, self.limit))
            else:
                actions.append(plan[t])
            through = dealt[t].expand(state.shape[0], -1, -1) if dealt.shape[2] else None
            state, reward, still = model_step(self.model, state, actions[t], through)
            total = total + objective.discount**t * objective.reward_scale * alive * reward
            alive = alive * still if objective.masked else alive
        end = self.value(state, self.act(state))
        total = total + objective.discount**self.choice.horizon * alive * end
        return torch.nan_to_num(total, nan=-torch.inf, posinf=-torch.inf), torch.stack(actions)


def _normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """The same for every seed."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)


_SEED, _SINCE = ("seed",), "Time since the run began."


def _column(unit: str, description: str, *dims: str, text: bool = False) -> Column:
    return Column(dims, unit, text, description)


def tables(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, Table]:
    """The schema of a run file."""
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    updates = {
        "critic_loss": _column("reward^2", "Critic's loss, of scaled rewards.", *_SEED),
        "value": _column("reward", "Critic's mean value, of scaled rewards.", *_SEED),
        "critic_norm": _column("1", "Norm of the critic's gradient, before clipping.", *_SEED),
        "policy_loss": _column("reward", "Policy's loss, of scaled rewards.", *_SEED),
        "policy_norm": _column("1", "Norm of the policy's gradient, before clipping.", *_SEED),
        "clipped": _column("1", "Share of policy updates that were clipped.", *_SEED),
        "nonfinite": _column("updates", "Updates that were not finite.", *_SEED),
        "weight": _column("1", "Weight of each horizon in the mixture.", "horizon"),
        "realised_horizon": _column("steps", "Longest model rollout, mean over updates."),
        "terminated": _column("episodes", "Episodes that ended, all seeds together."),
        "truncated": _column("episodes", "Episodes that were cut, all seeds together."),
        "broken": _column("samples", "Transitions that are not finite, all seeds together."),
        "critic_seconds": _column("s", "Time of a critic's update, all seeds together."),
        "policy_seconds": _column("s", "Time of a policy's update, all seeds together."),
        "seconds": _column("s", _SINCE),
    }
    if isinstance(algorithm.target.temperature, Automatic):
        updates["temperature"] = _column("reward", "Scaled reward per nat of entropy.", *_SEED)
    if algorithm.adaptive is not None:
        updates["adapted_horizon"] = _column("steps", "Horizon that training adapts.", *_SEED)
    coordinates = tuple(range(task.simulator.state_dim))
    schema = {
        "updates": Table("iteration", updates, {"seed": seeds, "horizon": algorithm.horizons}),
        "evaluations": Table(
            "iteration", _evaluation_columns(settings), {"seed": seeds, "coordinate": coordinates}
        ),
        "events": Table("number", {"message": _column("1", "What happened.", text=True)}),
    }
    if algorithm.model is not None:
        scales = {"seed": seeds, "output": tuple(range(len(coordinates) + 1))}
        schema["model"] = Table("iteration", _model_columns(algorithm.model), scales)
    if algorithm.source.branching is not None:
        rollouts = {
            "scheduled": _column("steps", "Length of model rollouts that is asked for."),
            "realised": _column("steps", "Length of model rollouts, their mean.", *_SEED),
            "seconds": _column("s", "Time of the rollouts, all seeds together."),
        }
        schema["rollouts"] = Table("iteration", rollouts, {"seed": seeds})
    if settings.gradient_every:
        schema["gradients"] = gradient_errors.table(algorithm, settings, seeds)
    if settings.asynchronous is not None:
        schema["asynchrony"] = asynchrony.table(settings.asynchronous)
    return schema | weights.tables(algorithm, seeds)


def _model_columns(model: LearnedModel) -> dict[str, Column]:
    """Outputs are the state's coordinates, then the reward."""
    columns = {
        "rows": _column("samples", "Transitions of each seed that are stored."),
        "steps": _column("updates", "Adam's steps since the run began, all roles."),
        "seconds": _column("s", "Time of the fit, all seeds together."),
    }
    for role in model.roles:
        columns |= {
            f"{role}_held_out": _column("1", "Prediction loss of held-out rows.", *_SEED),
            f"{role}_explained": _column(
                "1", "Explained share of the held-out variance.", "seed", "output"
            ),
            f"{role}_restored": _column("1", "Members whose best weights were restored.", *_SEED),
        }
    return columns


def model_row(iteration: int, fitted: Fitted) -> dict[str, Any]:
    row: dict[str, Any] = {"iteration": iteration, "rows": fitted.rows}
    row |= {"steps": fitted.steps, "seconds": fitted.seconds}
    for role, report in fitted.reports.items():
        for name in ("held_out", "explained", "restored"):
            row[f"{role}_{name}"] = getattr(report, name).numpy()
    return row


def attributes(
    config: Mapping[str, Any], command: str, environment: Mapping[str, str]
) -> dict[str, Attribute]:
    return {
        "kind": "training",
        "algorithm": str(config["algorithm"]["name"]),
        "task": str(config["task"]),
        "command": command,
        "seed": int(config["settings"]["first_seed"]),
        "commit": environment.get("commit", ""),
        "config": json.dumps(config),
        "environment": json.dumps(environment),
    }


def divergence(run: Run, member: int) -> dict[str, Any]:
    """The event of a seed that left the finite numbers."""
    message = f"seed {run.learner.seeds[member]} diverged: {run.window.divergences[member]}"
    return {"number": _number(run, member, 0), "message": message}


def excess(run: Run, member: int, value: float, bound: float) -> dict[str, Any]:
    """The event of a seed whose critic values exceed any sum of rewards."""
    message = (
        f"seed {run.learner.seeds[member]}: the mean critic value is {value:.3g} (scaled) at "
        f"iteration {run.iteration}, but the rewards it has seen sum to at most {bound:.3g} in "
        f"size: its values diverge"
    )
    return {"number": _number(run, member, 1), "message": message}


def _number(run: Run, member: int, kind: int) -> int:
    """Different for every iteration, seed and kind of event, and the same when repeated."""
    return 2 * (run.iteration * run.settings.seeds + member) + kind


def _evaluation_columns(settings: Settings) -> dict[str, Column]:
    """Of the table of evaluations."""
    plain = {
        **_estimate("return", "Undiscounted return"),
        "return_median": _column("reward", "Undiscounted return, median over the starts.", *_SEED),
        "ends": _column("1", "Terminal states per episode.", *_SEED),
        "rms": _column("1", "Root mean square of each coordinate.", "seed", "coordinate"),
        "transitions": _column("samples", "Transitions of each seed so far."),
        "seconds": _column("s", _SINCE),
    }
    if settings.planning is None:
        return plain
    return {
        **plain,
        **_estimate("planned_return", "Return with a plan"),
        **_estimate("planned_gain", "Gain by planning"),
        "planned_seconds": _column("s", "Time of planning, all seeds together."),
    }


def _estimate(name: str, what: str) -> dict[str, Column]:
    return {
        f"{name}_mean": _column("reward", f"{what}, mean over the starts.", *_SEED),
        f"{name}_se": _column("reward", f"{what}, standard error of the mean.", *_SEED),
    }


def evaluation_row(run: Run) -> dict[str, Any]:
    """A row of the table; without the planned columns where no model is there yet."""
    evaluation = _evaluated(run)
    returns = evaluation.returns
    plain = {
        "iteration": run.iteration,
        "return_mean": returns.mean(dim=1).numpy(),
        "return_se": _error(returns),
        "return_median": returns.median(dim=1).values.numpy(),
        "ends": evaluation.ends.numpy(),
        "rms": evaluation.rms.numpy(),
        "transitions": run.replay.added,
        "seconds": run.seconds,
    }
    planning = run.settings.planning
    if planning is None or run.learner.model is None:
        return plain
    return plain | _planned(run, planning, returns)


def _planned(run: Run, planning: Planning, returns: Tensor) -> dict[str, Any]:
    """Planned returns and, start by start, what they exceed those without a plan by."""
    begun = time.monotonic()
    planned = _evaluated(run, planning).returns
    gain = planned - returns[:, : planned.shape[1]]
    taken = time.monotonic() - begun
    run.begun += taken  # of training's own time
    return {
        "planned_return_mean": planned.mean(dim=1).numpy(),
        "planned_return_se": _error(planned),
        "planned_gain_mean": gain.mean(dim=1).numpy(),
        "planned_gain_se": _error(gain),
        "planned_seconds": taken,
    }


def _error(values: Tensor) -> Any:
    """Standard error of the mean over the starts, [E]."""
    return (values.std(dim=1) / values.shape[1] ** 0.5).numpy()


def _evaluated(run: Run, planning: Planning | None = None) -> Evaluation:
    learner, settings = run.learner, run.settings
    act = partial(learner.acting.act, learner.policy.frozen())
    planner = None if planning is None else _planner(run, planning)
    steps = iter(range(settings.episode))

    def acting(state: Tensor) -> Tensor:
        return act(state) if planner is None else planner(state, next(steps))

    return evaluate(
        run.task, acting, settings.seeds, settings.evaluation_starts, settings.episode,
        settings.at_end, lambda state: state.to(learner.device, learner.dtype),
        None if planning is None else planning.starts,
    )  # fmt: skip


def _planner(run: Run, planning: Planning) -> Planner:
    learner = run.learner
    assert learner.model is not None
    policy = learner.policy.frozen()
    return Planner(
        planning, learner.model,
        draw=lambda state, noise: learner.explore(state, noise)[0],
        act=partial(learner.acting.act, policy),
        value=learner.value(),
        objective=learner.objective,
        action_dim=run.task.simulator.action_dim,
        limit=learner.limit,
    )  # fmt: skip
