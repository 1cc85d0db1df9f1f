"""Evaluations of a run: its policies as they act, and with their actions planned."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from torch import Tensor

from gradlab.storage.journal_tables import Column
from gradlab.training.collection import Evaluation, evaluate
from gradlab.training.planning import Planner, Planning
from gradlab.training.settings import Settings
from gradlab.training.state import Run

_SEED = ("seed",)


def columns(settings: Settings) -> dict[str, Column]:
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


def row(run: Run) -> dict[str, Any]:
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
