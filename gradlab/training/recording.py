"""Tables, attributes and rows of a training run; rows of updates are made in `training.state`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.asynchronous import work as asynchrony
from gradlab.training.collection import Evaluation, evaluate
from gradlab.training.measured import gradient_errors, weights
from gradlab.training.models.dynamics import Fitted
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.temperature import Automatic
from gradlab.training.planning import Planner
from gradlab.training.settings import Planning, Settings
from gradlab.training.state import Run

_SEED = ("seed",)


def tables(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, Table]:
    """The schema of a run file."""
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    updates = {
        "critic_loss": Column(_SEED, "scaled reward²"),
        "value": Column(_SEED, "scaled reward"),
        "critic_norm": Column(_SEED),
        "policy_loss": Column(_SEED, "scaled reward"),
        "policy_norm": Column(_SEED),
        "clipped": Column(_SEED, "share of policy updates"),
        "nonfinite": Column(_SEED, "updates"),
        "weight": Column(("horizon",)),
        "realised_horizon": Column(unit="model steps"),
        "terminated": Column(unit="episodes, all seeds"),
        "truncated": Column(unit="episodes, all seeds"),
        "broken": Column(unit="transitions that are not finite, all seeds"),
        "critic_seconds": Column(unit="s per update, all seeds"),
        "policy_seconds": Column(unit="s per update, all seeds"),
        "seconds": Column(unit="s"),
    }
    if isinstance(algorithm.target.temperature, Automatic):
        updates["temperature"] = Column(_SEED, "scaled reward per nat")
    if algorithm.adaptive is not None:
        updates["adapted_horizon"] = Column(_SEED, "steps")
    coordinates = tuple(range(task.simulator.state_dim))
    schema = {
        "updates": Table("iteration", updates, {"seed": seeds, "horizon": algorithm.horizons}),
        "evaluations": Table(
            "iteration", _evaluation_columns(settings), {"seed": seeds, "coordinate": coordinates}
        ),
        "events": Table("number", {"message": Column(text=True)}),
    }
    if algorithm.model is not None:
        scales = {"seed": seeds, "output": tuple(range(len(coordinates) + 1))}
        schema["model"] = Table("iteration", _model_columns(algorithm.model), scales)
    if algorithm.source.branching is not None:
        rollouts = {
            "scheduled": Column(unit="model steps"),
            "realised": Column(_SEED, "model steps per rollout"),
            "seconds": Column(unit="s, all seeds"),
        }
        schema["rollouts"] = Table("iteration", rollouts, {"seed": seeds})
    if gradient_errors.measured(algorithm, settings):
        schema["gradients"] = gradient_errors.table(algorithm, settings, seeds)
    if settings.asynchronous is not None:
        schema["asynchrony"] = asynchrony.table(settings.asynchronous)
    return schema | weights.tables(algorithm, seeds)


def _model_columns(model: LearnedModel) -> dict[str, Column]:
    """Outputs are the state's coordinates, then the reward."""
    columns = {
        "rows": Column(unit="transitions per seed"),
        "steps": Column(unit="Adam's, all roles, since the run began"),
        "seconds": Column(unit="s, all seeds"),
    }
    for role in model.roles:
        columns[f"{role}_held_out"] = Column(_SEED, "prediction loss")
        columns[f"{role}_explained"] = Column(("seed", "output"), "share of the variance")
        columns[f"{role}_restored"] = Column(_SEED, "members")
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


def divergence(run: Run, member: int, kept: str) -> dict[str, Any]:
    """The event of a seed that left the finite numbers."""
    message = f"seed {run.learner.seeds[member]} diverged: {run.window.divergences[member]}{kept}"
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
        "return_mean": Column(_SEED, "reward"),
        "return_se": Column(_SEED, "reward"),
        "return_median": Column(_SEED, "reward"),
        "ends": Column(_SEED, "per episode"),
        "rms": Column(("seed", "coordinate")),
        "transitions": Column(unit="per seed"),
        "seconds": Column(unit="s"),
    }
    if settings.planning is None:
        return plain
    return plain | {
        "planned_return_mean": Column(_SEED, "reward"),
        "planned_return_se": Column(_SEED, "reward"),
        "planned_gain_mean": Column(_SEED, "reward, against the same starts without a plan"),
        "planned_gain_se": Column(_SEED, "reward"),
        "planned_seconds": Column(unit="s, all seeds"),
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
