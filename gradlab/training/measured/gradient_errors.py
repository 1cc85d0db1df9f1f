"""Errors of the gradient that a policy follows against the true one, measured while it trains.

    relative_mse, …           against the simulator's own gradient, unrolled to convergence
    dynamics_relative_mse, …  against the same estimator on the simulator: the model's doing alone

Here mixtures whose first action carries θ, in float64, from the same starts of the task in every
measurement of every run; all other rows: `row_errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail
from gradlab.measurement.assembly import SharedTruth, shared_truth
from gradlab.statistics.moments import Estimate
from gradlab.storage.journal_tables import Table
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.training.algorithm import MIXTURE, Algorithm
from gradlab.training.first_networks import without_jacobians
from gradlab.training.measured import row_errors
from gradlab.training.measured.row_errors import DYNAMICS, ENDS, QUANTITIES
from gradlab.training.parts.critics import Q
from gradlab.training.settings import Settings
from gradlab.training.state import Run


def measured(algorithm: Algorithm, settings: Settings) -> bool:
    """Whether a run measures gradients."""
    if settings.gradient_every is None:
        return _is_mixture(algorithm) and algorithm.model is not None
    return settings.gradient_every > 0


def check(algorithm: Algorithm, settings: Settings, task: Task) -> None:
    """Raises InputError where measurements are wanted of a run that has none."""
    if not settings.gradient_every:
        return
    wanted = f"gradient_every is {settings.gradient_every}, but"
    leave = "leave it out, or set it to 0"
    error = without_jacobians(task)
    if error is not None:
        raise InputError(
            f"{wanted} the simulator of {task.name} gives no Jacobians, and so no true gradient "
            f"to measure against ({error}): {leave}"
        ) from error
    if settings.gradient_truth == "score" and _is_mixture(algorithm):
        raise InputError(
            f"gradient_truth is 'score', but the mixture of {algorithm.name} is measured by "
            f"estimators against an unrolled truth: leave it out"
        )
    paths = algorithm.source.steps // max(algorithm.horizons[0], 1)
    if algorithm.loss.paths and paths * settings.agents < row_errors.FEWEST:
        fewest = row_errors.FEWEST
        raise InputError(
            f"{wanted} {algorithm.name} is measured on its newest paths, which are {paths} of each "
            f"of the {settings.agents} agents: take agents={fewest} or more, or {leave}"
        )


def described(algorithm: Algorithm, settings: Settings) -> dict[str, str]:
    """What the configuration of a run adds: at which states it is measured, where they are not the
    task's starts."""
    if not measured(algorithm, settings) or _is_mixture(algorithm):
        return {}
    return {"gradient_law": row_errors.law(algorithm)}


def horizons(algorithm: Algorithm, settings: Settings) -> tuple[int, ...]:
    """Those whose gradient is measured."""
    if _is_mixture(algorithm):
        return tuple(term.horizon for term in algorithm.terms if not term.way.every)
    return tuple(term.horizon for term in row_errors.measured_terms(algorithm, settings))


def _is_mixture(algorithm: Algorithm) -> bool:
    """Is it a mixture through a model with θ in the first action, which ends in Q(s, a)?"""
    plain = algorithm.loss == MIXTURE and not algorithm.target.soft
    valued = algorithm.critics > 0 and algorithm.target.kind == Q
    through = any(term.horizon > 0 and not term.way.every for term in algorithm.terms)
    return plain and valued and through


def table(algorithm: Algorithm, settings: Settings, seeds: tuple[int, ...]) -> Table:
    if not _is_mixture(algorithm):
        return row_errors.table(algorithm, settings, seeds)
    columns = row_errors.error_columns(QUANTITIES) | row_errors.error_columns(QUANTITIES, DYNAMICS)
    scales = {"seed": seeds, "horizon": horizons(algorithm, settings)}
    return Table("iteration", columns, scales)


def due(run: Run) -> bool:
    """Whether a measurement is due before this iteration."""
    settings, k = run.settings, run.iteration
    if not measured(run.algorithm, settings) or (run.dynamics and not run.dynamics.fitted):
        return False
    if not run.replay.added and not _is_mixture(run.algorithm):
        return False
    if settings.gradient_every is None:
        return k in settings.kept
    return k % settings.gradient_every == 0 or k == settings.iterations


def row(run: Run) -> dict[str, Any]:
    """One row of the table; NaN for a seed that left the finite numbers."""
    if not _is_mixture(run.algorithm):
        return row_errors.row(run)
    chosen, finite = horizons(run.algorithm, run.settings), run.learner.finite()
    columns: dict[str, Any] = {}
    for seed in np.flatnonzero(finite):
        for name, values in _of_seed(run, int(seed), chosen).items():
            empty = np.full((len(finite), len(chosen)), np.nan)
            columns.setdefault(name, empty)[seed] = values
    return columns | {"iteration": run.iteration}


def _of_seed(run: Run, seed: int, chosen: tuple[int, ...]) -> dict[str, list[float]]:
    """Column → its value at each horizon."""
    learner, task, settings = run.learner, run.task, run.settings
    policy, critic = learner.policy_of(seed).double().cpu(), critic_of(run, seed)
    truth = shared_truth(
        task, policy, settings.gradient_starts, max(chosen), run.algorithm.batch,
        settings.termination,
    )  # fmt: skip
    tail, model = Tail(max(chosen), critic, task.discount), model_of(run, seed)
    profile = truth.profile({"model": Estimator(model, model, "first", tail)})
    columns: dict[str, list[float]] = {}
    for h in chosen:
        dynamics = _against_simulator(run, model, replace(tail, horizon=h), truth)
        for name in QUANTITIES:
            cell = "model", name, h
            kept = profile.interval(*cell)
            intervals = {
                name: (profile.estimate(*cell).value, kept.low, kept.high),
                f"{DYNAMICS}{name}": row_errors.ends(name, dynamics[name]),
            }
            for column, ends in intervals.items():
                for end, number in zip(ENDS, ends, strict=True):
                    columns.setdefault(f"{column}{end}", []).append(number)
    return columns


def _against_simulator(
    run: Run, model: System, tail: Tail, truth: SharedTruth
) -> Mapping[str, Estimate]:
    """The same gradient on the simulator in the truth's place."""
    here = truth.setting
    G, T = (
        Estimator(system, system, "first", tail)
        .gradients(here.policy, here.starts.states, here.seed, here.termination)
        .numpy()
        for system in (model, run.task.simulator)
    )
    return row_errors.moments_of(G, T, run.algorithm.batch)


def critic_of(run: Run, seed: int) -> nn.Module:
    """Of one seed, in float64; rows without critics are not measured."""
    critic = run.learner.critic_of(seed)
    assert critic is not None
    return critic.double().cpu()


def model_of(run: Run, seed: int) -> System:
    """What the rollouts of one seed, by its position, use: its own model, or the task's prior."""
    if run.dynamics is not None:
        return run.dynamics.system_of(seed)
    assert run.task.prior is not None
    return run.task.prior
