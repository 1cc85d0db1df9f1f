"""How far the gradient that a policy follows is from the true one, measured while it trains.

Bias², variance per start, MSE of a batch and cosine at every horizon of the mixture whose first
action carries θ, against the simulator's own gradient, in float64. Starts are drawn from the task's
law, the same ones in every measurement of every run, so that runs are paired and a policy that has
fallen is not judged by its falls. Nothing here draws from what training draws from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.gradients.estimator import Estimator, Tail
from gradlab.journal_tables import Column, Table
from gradlab.profile import Profile
from gradlab.shared_truth import shared_truth
from gradlab.systems.system import System
from gradlab.training.algorithms import Algorithm
from gradlab.training.settings import Settings

if TYPE_CHECKING:
    from gradlab.training.run import Run

MEASURED = ("bias2", "variance", "mse", "relative_mse", "cosine")
UNITS = {"bias2": "scale of the gradient²"}


def measured(algorithm: Algorithm, settings: Settings) -> bool:
    """Does a run measure gradients?"""
    if not horizons(algorithm) or not algorithm.needs_model:
        return False
    if settings.gradient_every is None:
        return algorithm.model is not None
    return settings.gradient_every > 0


def horizons(algorithm: Algorithm) -> tuple[int, ...]:
    """Those whose gradient is measured."""
    return tuple(term.horizon for term in algorithm.terms if term.actions == "first")


def table(algorithm: Algorithm, seeds: tuple[int, ...]) -> Table:
    dims = ("seed", "horizon")
    names = [f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")]
    scales = {"seed": seeds, "horizon": horizons(algorithm)}
    return Table("iteration", {name: Column(dims) for name in names}, scales)


def due(run: Run) -> bool:
    """Is there something to measure before this iteration?"""
    settings, k = run.settings, run.iteration
    if not measured(run.algorithm, settings) or (run.dynamics and not run.dynamics.fitted):
        return False
    if settings.gradient_every is None:
        return k in settings.kept
    return k % settings.gradient_every == 0 or k == settings.iterations


def row(run: Run) -> dict[str, Any]:
    """One row of the table; NaN for a seed that left the finite numbers."""
    chosen, finite = horizons(run.algorithm), run.learner.finite()
    values = np.full((3, len(MEASURED), len(finite), len(chosen)), np.nan)
    for seed in np.flatnonzero(finite):
        values[:, :, seed] = _of_seed(run, int(seed), chosen)
    found: dict[str, Any] = {"iteration": run.iteration}
    for k, name in enumerate(MEASURED):
        found |= {name: values[0, k], f"{name}_low": values[1, k], f"{name}_high": values[2, k]}
    return found


def _of_seed(run: Run, seed: int, chosen: tuple[int, ...]) -> np.ndarray:
    """Value, low and high, [3, quantities, horizons]."""
    learner, task, longest = run.learner, run.task, max(chosen)
    policy, critic = learner.policy_of(seed).double().cpu(), learner.critic_of(seed).double().cpu()
    truth = shared_truth(
        task, policy, run.settings.gradient_starts, longest, run.algorithm.batch,
        run.settings.termination,
    )  # fmt: skip
    model = _model(run, seed)
    tail = Tail(longest, critic, task.discount)
    found = truth.profile({"model": Estimator(model, model, "first", tail)})
    return np.array([[[_number(found, part, name, h) for h in chosen] for name in MEASURED]
                     for part in ("value", "ci_low", "ci_high")])  # fmt: skip


def _model(run: Run, seed: int) -> System:
    if run.dynamics is not None:
        return run.dynamics.system_of(seed)
    assert run.task.prior is not None
    return run.task.prior


def _number(found: Profile, part: str, name: str, horizon: int) -> float:
    cell = 0, found.quantities.index(name), found.horizons.index(horizon)
    return float(found.columns[part][cell])
