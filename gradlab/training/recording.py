"""What a training run writes down: means over windows of updates, evaluations, and events.

Numbers stay on the device until a window ends, so that recording costs one transfer per row. An
open window is part of a run's state: a row does not depend on where a run was stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.collection import Ended, Evaluation
from gradlab.training.learner import Update
from gradlab.training.measured import columns as measured_columns
from gradlab.training.measured import gradient_errors
from gradlab.training.models.dynamics import Fitted
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.probe import probe
from gradlab.training.settings import Settings

if TYPE_CHECKING:
    from gradlab.training.run import Run

SEED = ("seed",)
CRITIC = ("value", "critic_loss", "critic_norm")  # in the order in which an update makes them
POLICY = ("policy_loss", "policy_norm")


def tables(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, Table]:
    """The schema of a run file."""
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    updates = {
        "critic_loss": Column(SEED, "scaled reward²"),
        "value": Column(SEED, "scaled reward"),
        "critic_norm": Column(SEED),
        "policy_loss": Column(SEED, "scaled reward"),
        "policy_norm": Column(SEED),
        "clipped": Column(SEED, "share of policy updates"),
        "nonfinite": Column(SEED, "updates"),
        "weight": Column(("horizon",)),
        "realised_horizon": Column(unit="model steps"),
        "terminated": Column(unit="episodes, all seeds"),
        "truncated": Column(unit="episodes, all seeds"),
        "broken": Column(unit="transitions that are not finite, all seeds"),
        "critic_seconds": Column(unit="s per update, all seeds"),
        "policy_seconds": Column(unit="s per update, all seeds"),
        "seconds": Column(unit="s"),
    }
    evaluations = {
        "return_mean": Column(SEED, "reward"),
        "return_se": Column(SEED, "reward"),
        "return_median": Column(SEED, "reward"),
        "ends": Column(SEED, "per episode"),
        "rms": Column(("seed", "coordinate")),
        "transitions": Column(unit="per seed"),
        "seconds": Column(unit="s"),
    }
    coordinates = tuple(range(task.simulator.state_dim))
    found = {
        "updates": Table("iteration", updates, {"seed": seeds, "horizon": algorithm.horizons}),
        "evaluations": Table("iteration", evaluations, {"seed": seeds, "coordinate": coordinates}),
        "events": Table("number", {"message": Column(text=True)}),
    }
    if algorithm.model is not None:
        scales = {"seed": seeds, "output": tuple(range(len(coordinates) + 1))}
        found["model"] = Table("iteration", _model_columns(algorithm.model), scales)
    if gradient_errors.measured(algorithm, settings):
        found["gradients"] = gradient_errors.table(algorithm, seeds)
    found |= measured_columns.tables(algorithm, seeds)
    return found | probe.tables(algorithm, task, settings)


def _model_columns(model: LearnedModel) -> dict[str, Column]:
    """Outputs are the state's coordinates, then the reward."""
    columns = {
        "rows": Column(unit="transitions per seed"),
        "steps": Column(unit="Adam's, all roles, since the run began"),
        "seconds": Column(unit="s, all seeds"),
    }
    for role in model.roles:
        columns[f"{role}_held_out"] = Column(SEED, "prediction loss")
        columns[f"{role}_explained"] = Column(("seed", "output"), "share of the variance")
        columns[f"{role}_restored"] = Column(SEED, "members")
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


@final
class Window:
    """Means over the updates since the last row."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.clip = math.inf if algorithm.clip is None else algorithm.clip
        self.told: dict[int, str] = {}
        self._empty()

    def add(self, update: Update) -> None:
        self.critic.append(torch.stack([getattr(update, name) for name in CRITIC]))
        self.critic_seconds += update.critic_seconds
        if update.policy_norm is not None and update.policy_loss is not None:
            self.policy.append(torch.stack([update.policy_loss, update.policy_norm]))
            self.at.append(len(self.critic) - 1)
            self.horizon += update.horizon
            self.policy_seconds += update.policy_seconds
        self.weights = update.weights

    def ended(self, ended: Ended) -> None:
        self.terminated += ended.terminated
        self.truncated += ended.truncated
        self.broken += ended.broken

    def row(self, iteration: int, seconds: float) -> dict[str, Any]:
        """The row of the window that ends at `iteration`; begins the next."""
        critic = torch.stack(self.critic).double().cpu()
        row: dict[str, Any] = {"iteration": iteration, "seconds": seconds}
        row |= {name: critic[:, k].mean(dim=0).numpy() for k, name in enumerate(CRITIC)}
        row["critic_seconds"] = self.critic_seconds / len(critic)
        lost = (~torch.isfinite(critic).all(dim=1)).sum(dim=0)
        policy = None
        if self.policy:
            policy = torch.stack(self.policy).double().cpu()
            row |= {name: policy[:, k].mean(dim=0).numpy() for k, name in enumerate(POLICY)}
            row["clipped"] = (policy[:, 1] > self.clip).double().mean(dim=0).numpy()
            row["realised_horizon"] = self.horizon / len(self.policy)
            row["policy_seconds"] = self.policy_seconds / len(self.policy)
            lost = lost + (~torch.isfinite(policy).all(dim=1)).sum(dim=0)
        row |= {
            "nonfinite": lost.numpy(),
            "weight": self.weights,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "broken": self.broken,
        }
        first = iteration - len(critic)
        self.told = {
            int(member): _story(critic[..., member], policy, self.at, int(member), first)
            for member in lost.nonzero().flatten()
        }
        self._empty()
        return row

    def state(self) -> dict[str, Tensor]:
        """The open window, for `load`."""
        counts = [self.horizon, self.terminated, self.truncated, self.broken]
        taken = [self.critic_seconds, self.policy_seconds]
        found = {
            "counts": torch.tensor(counts),
            "at": torch.tensor(self.at, dtype=torch.long),
            "taken": torch.tensor(taken, dtype=torch.float64),
        }
        for name in ("critic", "policy"):
            if getattr(self, name):
                found[name] = torch.stack(getattr(self, name))
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._empty()
        self.horizon, self.terminated, self.truncated, self.broken = state["counts"].tolist()
        self.critic_seconds, self.policy_seconds = state["taken"].tolist()
        self.at += state["at"].tolist()
        self.critic += state.get("critic", ())
        self.policy += state.get("policy", ())

    def _empty(self) -> None:
        self.critic: list[Tensor] = []
        self.policy: list[Tensor] = []
        self.at: list[int] = []  # of every policy update, its place among the critic's
        self.horizon = self.terminated = self.truncated = self.broken = 0
        self.critic_seconds = self.policy_seconds = 0.0


def _story(critic: Tensor, policy: Tensor | None, at: list[int], member: int, begin: int) -> str:
    """What left the finite numbers first, when, and the last statistics before it.

    Args:
        critic: [updates, quantities]; policy: [policy updates, quantities, E].
    """
    every = list(range(len(critic)))
    series = {name: (every, critic[:, k]) for k, name in enumerate(CRITIC)}
    if policy is not None:
        series |= {name: (at, policy[:, k, member]) for k, name in enumerate(POLICY)}
    gone = {
        name: int((~values.isfinite()).nonzero()[0])
        for name, (_, values) in series.items()
        if not values.isfinite().all()
    }
    order = list(series)
    first = min(gone, key=lambda name: series[name][0][gone[name]])
    update = series[first][0][gone[first]]
    before = []
    for name, (places, values) in series.items():
        until = update + (order.index(name) < order.index(first))
        earlier = [float(v) for k, v in zip(places, values, strict=True) if k < until]
        if earlier:
            largest = max(earlier, key=abs)
            before.append(f"{_words(name)} {earlier[-1]:.3g} (largest {largest:.3g})")
    told = f"; just before: {', '.join(before)}" if before else ""
    return f"{_words(first)} was not finite in update {begin + update}{told}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("norm", "gradient norm")


def evaluation_row(run: Run, found: Evaluation) -> dict[str, Any]:
    returns = found.returns
    return {
        "iteration": run.iteration,
        "return_mean": returns.mean(dim=1).numpy(),
        "return_se": (returns.std(dim=1) / returns.shape[1] ** 0.5).numpy(),
        "return_median": returns.median(dim=1).values.numpy(),
        "ends": found.ends.numpy(),
        "rms": found.rms.numpy(),
        "transitions": run.replay.added,
        "seconds": run.seconds,
    }


def divergence(run: Run, member: int, kept: str) -> dict[str, Any]:
    """The event of a seed that left the finite numbers."""
    message = f"seed {run.learner.seeds[member]} diverged: {run.window.told[member]}{kept}"
    return {"number": _number(run, member, 0), "message": message}


def excess(run: Run, member: int, value: float, bound: float) -> dict[str, Any]:
    """The event of a seed whose critic promises more than any rewards can sum to."""
    message = (
        f"seed {run.learner.seeds[member]}: the mean critic value is {value:.3g} (scaled) at "
        f"iteration {run.iteration}, but the rewards it has seen sum to at most {bound:.3g} in "
        f"size: its values diverge"
    )
    return {"number": _number(run, member, 1), "message": message}


def _number(run: Run, member: int, kind: int) -> int:
    """Different for every iteration, seed and kind of event, and the same when repeated."""
    return 2 * (run.iteration * run.settings.seeds + member) + kind
