"""What a training run writes down: updates summed over windows, evaluations, and events.

Sums stay on the device until a window ends, so that recording costs one transfer per row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from gradlab.journal import Column, Table
from gradlab.records import Attribute
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.collection import Evaluation
from gradlab.training.learner import Learner, Update
from gradlab.training.settings import Settings

if TYPE_CHECKING:
    from gradlab.training.loop import Run

SEED = ("seed",)
CRITIC = ("critic_loss", "value", "critic_norm")
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
    return {
        "updates": Table("iteration", updates, {"seed": seeds, "horizon": algorithm.horizons}),
        "evaluations": Table("iteration", evaluations, {"seed": seeds, "coordinate": coordinates}),
        "events": Table("number", {"message": Column(text=True)}),
    }


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

    def __init__(self, learner: Learner) -> None:
        self.clip = learner.algorithm.clip
        self._empty()

    def add(self, update: Update) -> None:
        self.count += 1
        self.critic.append(torch.stack([getattr(update, name) for name in CRITIC]))
        if update.policy_norm is not None and update.policy_loss is not None:
            self.policy.append(torch.stack([update.policy_loss, update.policy_norm]))
            self.horizon += update.horizon
        self.last = update

    def ended(self, terminated: int, truncated: int) -> None:
        self.terminated += terminated
        self.truncated += truncated

    def row(self, iteration: int, seconds: float) -> dict[str, Any]:
        """The row of the window that ends at `iteration`; begins the next."""
        critic = torch.stack(self.critic).double().cpu()
        row: dict[str, Any] = {"iteration": iteration, "seconds": seconds}
        row |= {name: critic[:, k].mean(dim=0).numpy() for k, name in enumerate(CRITIC)}
        bad = ~torch.isfinite(critic).all(dim=1)
        lost = bad.sum(dim=0)
        if self.policy:
            policy = torch.stack(self.policy).double().cpu()
            row |= {name: policy[:, k].mean(dim=0).numpy() for k, name in enumerate(POLICY)}
            row["clipped"] = self._clipped(policy[:, 1]).numpy()
            row["realised_horizon"] = self.horizon / len(self.policy)
            lost = lost + (~torch.isfinite(policy).all(dim=1)).sum(dim=0)
        row |= {
            "nonfinite": lost.numpy(),
            "weight": self.last.weights,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }
        self._empty()
        return row

    def _clipped(self, norms: Tensor) -> Tensor:
        limit = float("inf") if self.clip is None else self.clip
        return (norms > limit).double().mean(dim=0)

    def _empty(self) -> None:
        self.critic: list[Tensor] = []
        self.policy: list[Tensor] = []
        self.count = self.horizon = self.terminated = self.truncated = 0


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


def divergence(run: Run, member: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Which quantity of one seed left the finite numbers, with the statistics before it did."""
    names = [*CRITIC, *(name for name in POLICY if name in row)]
    gone = [name for name in names if not torch.isfinite(torch.as_tensor(row[name][member]))]
    first = gone[0] if gone else "an update"
    told = ", ".join(f"{name} {float(row[name][member]):.3g}" for name in names)
    message = (
        f"seed {run.learner.seeds[member]} diverged before iteration {run.iteration}: "
        f"{first.replace('_', ' ')} is not finite ({told})"
    )
    return {"number": run.iteration * run.settings.seeds + member, "message": message}
