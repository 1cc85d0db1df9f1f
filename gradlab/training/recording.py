"""Tables and attributes of a training run, and the rows of all of them but the updates'.

Rows of updates are means over windows (`training.state`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute
from gradlab.tasks import Task
from gradlab.training import evaluations
from gradlab.training.algorithms import Algorithm
from gradlab.training.asynchronous import work as asynchrony
from gradlab.training.measured import columns as measured_columns
from gradlab.training.measured import gradient_errors, steering
from gradlab.training.models.dynamics import Fitted
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.temperature import Automatic
from gradlab.training.probe import probe
from gradlab.training.settings import Settings
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
            "iteration", evaluations.columns(settings), {"seed": seeds, "coordinate": coordinates}
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
        schema["gradients"] = gradient_errors.table(algorithm, seeds)
    if settings.asynchronous is not None:
        schema["asynchrony"] = asynchrony.table(settings.asynchronous)
    schema |= measured_columns.tables(algorithm, seeds) | steering.tables(algorithm, seeds)
    return schema | probe.tables(algorithm, task, settings)


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
