"""One trial: every model of the plan, made from one record and first weights, and measured on the
same starts and noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from torch import nn

from gradlab.data.noise import child
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.collection import collect, exploring
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.model_settings import ModelSettings
from gradlab.measurement.shared_truth import shared_truth
from gradlab.progress import Progress
from gradlab.remedies import fits, model_values, planning
from gradlab.remedies.fits import Made, Part, Recipe, price_values
from gradlab.remedies.planning import Plan
from gradlab.runs.remedies.arms import BASELINE
from gradlab.runs.remedies.values import Value
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import System
from gradlab.systems.two_models import TwoModels
from gradlab.tasks import Task


@dataclass(frozen=True, eq=False)
class Question:
    """What every trial is asked; see `compare_remedies`. Policy and critic are float64."""

    task: Task
    policy: nn.Module
    critic: nn.Module | None
    arms: tuple[str, ...]
    data: Trajectories | None
    rows: int
    settings: ModelSettings
    gradient_loss: DirectionalDerivative
    horizon: int
    starts: int
    batch: int
    seed: int

    def seed_of(self, trial: int) -> int:
        return child(self.seed, f"trial {trial}") % 2**31

    def record(self, trial: int) -> Trajectories:
        """The rows that the models of a trial are fitted to."""
        if self.data is not None:
            return self.data
        policy = exploring(self.task, self.policy)
        return collect(self.task, self.rows, policy, seed=self.seed_of(trial))

    def recipes(self, trial: int) -> dict[str, Recipe]:
        """The baseline's and those that the arms need."""
        settings = replace(self.settings, seed=self.seed_of(trial))
        names = dict.fromkeys(
            [BASELINE, *(name for arm in self.arms for name in planning.fits_of(arm))]
        )
        simulator = self.task.simulator
        return {name: fits.recipe(name, settings, self.gradient_loss, simulator) for name in names}


def measured(
    question: Question, trial: int, plan: Plan, folder: Path, progress: Progress
) -> tuple[list[Value], dict[str, Any]]:
    """Every number of a trial, and what a reader must know of it.

    Raises:
        InputError, Failure: an arm cannot be fitted.
    """
    begun = time.monotonic()
    data, recipes = question.record(trial), question.recipes(trial)
    parts = _made(plan.parts, recipes, data, folder, f"trial {trial + 1}: models", progress)
    systems = {name: system_of(question.task, plan, name, parts) for name in plan.models}
    truth = shared_truth(
        question.task, question.policy, question.starts, question.horizon, question.batch,
        seed=question.seed_of(trial), progress=progress,
    )  # fmt: skip
    bench = model_values.bench(truth, question.critic)
    values = model_values.simulator_values(bench)
    for done, (name, system) in enumerate(systems.items(), start=1):
        values += model_values.model_values(name, system, bench)
        progress(f"trial {trial + 1}: models measured", done, len(systems))
    values += model_values.gradient_values(systems, bench, progress)
    for name, of in plan.models.items():
        cost = plan.costs.get(name, 1.0)
        own = [parts[part] for part in of]
        values += price_values(name, own, recipes[of[0].recipe], data, cost)
    fits.forget_states(folder)
    notes = {
        "trial": trial,
        "rows": len(data),
        "fits": {_named(part): dict(made.notes) for part, made in parts.items()},
        "samples": model_values.counted(bench),
        "truth": {
            "status": truth.reference.status,
            "steps": truth.reference.horizon,
            "reason": truth.reference.reason,
        },
        "lost": _lost(values),
        "seconds": round(time.monotonic() - begun, 1),
    }
    return values, notes


def system_of(task: Task, plan: Plan, name: str, parts: Mapping[Part, Made]) -> System:
    """A model of the plan as a system that ends where the task does."""
    systems = [LearnedSystem(parts[part].ensemble, None, task.alive) for part in plan.models[name]]
    return systems[0] if len(systems) == 1 else TwoModels(*systems)


def _made(
    wanted: list[Part],
    recipes: Mapping[str, Recipe],
    data: Trajectories,
    folder: Path,
    stage: str,
    progress: Progress,
) -> dict[Part, Made]:
    """Every fit, with its epochs as progress."""
    fitted: dict[Part, Made] = {}
    total, before = sum(part.epochs for part in wanted), 0
    for part in wanted:

        def report(_: str, done: int, __: int, before: int = before) -> None:
            progress(stage, before + done, total)

        fitted[part] = fits.made(folder, recipes, part, data, report)
        before += part.epochs
        progress(stage, before, total)
    return fitted


def _named(part: Part) -> str:
    return f"{part.recipe}, {part.epochs} epochs"


def _lost(values: list[Value]) -> dict[str, int]:
    """Model → steps and horizons at which its predictions or gradients left the finite numbers."""
    lost: dict[str, int] = {}
    for value in values:
        if value.key.quantity in ("prediction_error", "variance") and not isfinite(value.value):
            lost[value.model] = lost.get(value.model, 0) + 1
    return lost
