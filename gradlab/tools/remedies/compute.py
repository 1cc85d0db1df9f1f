"""`compare_remedies`: models with and without each remedy, on the same data, starts and noise.

Within a trial all models share record, first weights, starts and noise; trials share nothing but
what was given. The file is written anew after each trial: a kill costs the trial in progress.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

from torch import nn

from gradlab import provenance, validation
from gradlab.data import trajectories
from gradlab.data.trajectories import Trajectories, child
from gradlab.errors import InputError
from gradlab.fitting.collection import collect, exploring
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Prepared
from gradlab.fitting.model_settings import ModelSettings
from gradlab.measurement.arguments import check_networks
from gradlab.measurement.assembly import shared_truth
from gradlab.measurement.config import MeasureConfig
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.progress import Progress, check_progress, silent
from gradlab.storage import records
from gradlab.storage.whole_files import keep
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.tools.remedies import fits
from gradlab.tools.remedies.fits import (
    FitRecipe,
    FittedModel,
    FittedPart,
    TrialPlan,
    fits_of,
    price_values,
)
from gradlab.tools.remedies.result import (
    ABOUT,
    BASELINE,
    DEFAULT,
    ModelValue,
    Remedies,
    load,
    of_trial,
)
from gradlab.user_code import differentiating


@dataclass(frozen=True, eq=False)
class _Question:
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

    def recipes(self, trial: int) -> dict[str, FitRecipe]:
        """The baseline's and those that the arms need."""
        settings = replace(self.settings, seed=self.seed_of(trial))
        names = dict.fromkeys(
            [BASELINE, *(name for arm in self.arms for name in fits.fits_of(arm))]
        )
        simulator = self.task.simulator
        return {name: fits.recipe(name, settings, self.gradient_loss, simulator) for name in names}


def measured(
    question: _Question, trial: int, plan: TrialPlan, progress: Progress
) -> tuple[list[ModelValue], dict[str, Any]]:
    """Every number of a trial, and what a reader must know of it."""
    begun, stage = time.monotonic(), f"trial {trial + 1}: models"
    data, recipes = question.record(trial), question.recipes(trial)
    parts: dict[FittedPart, FittedModel] = {}
    descents: dict[str, Prepared] = {}
    total, before = sum(part.epochs for part in plan.parts), 0
    for part in plan.parts:

        def report(_: str, done: int, __: int, before: int = before) -> None:
            progress(stage, before + done, total)

        parts[part] = fits.fitted(recipes, part, data, descents, report)
        before += part.epochs
        progress(stage, before, total)
    systems: dict[str, System] = {}
    for name, of in plan.models.items():  # each ends where the task does
        made = [LearnedSystem(parts[part].ensemble, None, question.task.alive) for part in of]
        systems[name] = made[0] if len(made) == 1 else TwoModels(*made)
    truth = shared_truth(
        question.task, question.policy, question.starts, question.horizon, question.batch,
        seed=question.seed_of(trial), progress=progress,
    )  # fmt: skip
    bench = fits.bench(truth, question.critic)
    values = fits.simulator_values(bench)
    for done, (name, system) in enumerate(systems.items(), start=1):
        values += fits.model_values(name, system, bench)
        progress(f"{stage} measured", done, len(systems))
    values += fits.gradient_values(systems, bench, progress)
    for name, of in plan.models.items():
        cost = plan.costs.get(name, 1.0)
        own = [parts[part] for part in of]
        values += price_values(name, own, recipes[of[0].recipe], data, cost)
    # Steps and horizons at which predictions or gradients left the finite numbers.
    lost: dict[str, int] = {}
    for value in values:
        if value.quantity in ("prediction_error", "variance") and not isfinite(value.value):
            lost[value.model] = lost.get(value.model, 0) + 1
    fitted = {f"{x.recipe}, {x.epochs} epochs": dict(made.notes) for x, made in parts.items()}
    reference = truth.reference
    notes = {
        "trial": trial, "rows": len(data), "fits": fitted,
        "samples": {"all": int(bench.compared.sum()), "masked": int((~bench.compared).sum())},
        "truth": {
            "status": reference.status, "steps": reference.horizon, "reason": reference.reason,
        },
        "lost": lost, "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    return values, notes


SETTINGS = ModelSettings(members=1, hidden=(64, 64), bootstrap=False, epochs=100)
# At w = 1 the Jacobians of noise-free tasks get 2 to 5 times worse: the predicted variance, which
# the squares are divided by, goes on falling where the curvature between neighbours stays.
_DIRECTIONAL = DirectionalDerivative(directions=1, weight=0.1)
ROWS, STARTS, TRIALS = 5000, 256, 5


@differentiating
def compare_remedies(
    task: Task,
    policy: nn.Module,
    critic: CriticLike | None,
    output: Path,
    arms: Sequence[str] = DEFAULT,
    *,
    data: Trajectories | None = None,
    rows: int = ROWS,
    settings: ModelSettings = SETTINGS,
    gradient_loss: DirectionalDerivative = _DIRECTIONAL,
    trials: int = TRIALS,
    horizon: int | None = None,
    starts: int = STARTS,
    batch: int = 256,
    seed: int = 0,
    costs: Mapping[str, float] | None = None,
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Remedies:
    """Fit every arm in every trial, measure it, and write `output` anew after each trial.

    Args:
        output: NAME.h5.
        arms: see `remedies.arms`.
        data: a record that every trial is fitted to; None: each trial records `rows` of its own,
            with the policy and the task's exploration noise.
        settings: of the baseline, and of every arm but for what it changes. All epochs are run
            (`patience` and `seconds` are not used), and each model is as it was at its best on
            held-out rows.
        gradient_loss: of "dd" and "two-model", beside the likelihood.
        trials: seeds of fit (and record).
        horizon: largest of the gradients and steps of the predictions; None: the task's.
        starts: per trial, of gradients and of the path that Jacobians are compared on.
        batch: at which mean squared errors are stated.
        costs: a step of each arm in steps of the baseline; None: measured in turn.
        command: recorded in the file, so that a reader can repeat the run.
        resume: go on with `output`; `trials` may have grown.
        overwrite: begin anew where `output` is there.

    Raises:
        InputError: names the argument or the arm, what it got and what to do.
        Failure: every member of an arm left the finite numbers.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    progress = check_progress(progress)
    H = task.horizon if horizon is None else horizon
    MeasureConfig(horizon=H, starts=starts, batch=batch, seed=seed)
    check_networks(task, policy, critic)
    validation.whole("trials", trials, 1)
    validation.whole("horizon", H, 1)  # at 0 no model counts
    once = tuple(dict.fromkeys(arms))
    if not once:
        raise InputError(f"arms is empty, expected some of {', '.join(ABOUT)}")
    for arm in once:
        fits_of(arm)
    if not settings.reward:
        raise InputError("settings has reward=False: models here need a head for the reward")
    if data is None:
        validation.whole("rows", rows, 1)
    else:
        trajectories.check_widths(data, task.simulator.state_dim, task.simulator.action_dim)
    question = _Question(
        task, double_copy("policy", policy), None if critic is None else
        double_copy("critic", as_critic(critic)), once, data, rows,
        replace(settings, patience=None, seconds=None), gradient_loss, H, starts, batch, seed,
    )  # fmt: skip
    config = _config(question, costs)
    records.check_output(output, overwrite or resume)
    run = load(output) if resume and output.is_file() else None
    recipes, first = question.recipes(0), question.record(0)
    if run is not None:
        changed = [name for name in config if run.config.get(name) != config[name]]
        if changed:
            raise InputError(f"{output} was begun with other {', '.join(changed)}: repeat them")
        costs = run.config["costs"]  # that were measured again would differ
    if costs is None:
        costs = fits.costs_of(once, fits.measured_costs(recipes, first))
    for arm in once:
        if not 0 < costs.get(arm, nan) < inf:
            raise InputError(f"costs has {costs.get(arm)!r} for {arm}, expected a positive number")
    steps = fits.steps_per_epoch(recipes, first)
    plan = fits.planned(once, settings.epochs, steps, {arm: float(costs[arm]) for arm in once})
    models = {name: [list(part) for part in parts] for name, parts in plan.models.items()}
    config |= {"command": command, "models": models, "costs": dict(plan.costs)}
    for k in range(run.trials if run else 0, trials):
        values, notes = measured(question, k, plan, progress)
        before = run.notes["trials"] if run else []
        run = Remedies(
            values=(*(run.values if run else ()), *of_trial(k, values)),
            pairs=plan.pairs,
            config=config,
            environment=provenance.environment() | {"precision": "float64"},
            notes={"trials": [*before, notes | {"planned": trials}]},
        )
        keep({output: partial(run.save, overwrite=True)})
    assert run is not None
    return run


def _config(question: _Question, costs: Mapping[str, float] | None) -> dict[str, Any]:
    """What a run that goes on must have in common with the one before."""
    data, settings = question.data, question.settings.plain()
    recorded = None if data is None else (data.state, data.action, data.reward, data.next_state)
    config = {
        "task": question.task.name,
        "task_parameters": dict(question.task.parameters),
        "policy_hash": provenance.network_hash(question.policy),
        "critic_hash": "" if question.critic is None else provenance.network_hash(question.critic),
        "arms": question.arms,
        "data_hash": "" if recorded is None else provenance.tensors_hash(*recorded),
        "rows": question.rows if data is None else len(data),
        "settings": {name: settings[name] for name in settings if name != "seed"},
        "gradient_loss": asdict(question.gradient_loss),
        "horizon": question.horizon,
        "starts": question.starts,
        "batch": question.batch,
        "discount": question.task.discount,
        "seed": question.seed,
        "given_costs": None if costs is None else dict(costs),
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain
