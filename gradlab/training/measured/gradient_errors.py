"""Errors of the gradient that a policy follows against the true one, measured while it trains.

    relative_mse, …           against the true gradient, the simulator's own unrolled to convergence
    dynamics_relative_mse, …  against the same estimator on the simulator: same horizon, same
                              critic, so that what remains is the model's doing alone

Bias², variance per start, MSE of a batch and cosine at every horizon of the mixture whose first
action carries θ, in float64. Starts are drawn from the task's law, the same ones in every
measurement of every run, so that runs are paired and a policy is not measured at
states where it has failed. Draws are apart from training's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.measurement.shared_truth import SharedTruth, shared_truth
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, PairSums, estimates
from gradlab.storage.journal_tables import Column, Table
from gradlab.systems.system import System
from gradlab.training.algorithms import Algorithm
from gradlab.training.parts.critics import Q
from gradlab.training.parts.weights import Floats
from gradlab.training.settings import Settings
from gradlab.training.state import Run

QUANTITIES = ("bias2", "variance", "mse", "relative_mse", "cosine")
ENDS = ("", "_low", "_high")
DYNAMICS = "dynamics_"


def measured(algorithm: Algorithm, settings: Settings) -> bool:
    """Whether a run measures gradients."""
    if _unmeasured(algorithm):
        return False
    if settings.gradient_every is None:
        return algorithm.model is not None
    return settings.gradient_every > 0


def check(algorithm: Algorithm, settings: Settings) -> None:
    """Raises InputError where measurements are wanted of an algorithm that has none."""
    why = _unmeasured(algorithm)
    if settings.gradient_every and why:
        raise InputError(
            f"gradient_every is {settings.gradient_every}, but the gradient that "
            f"{algorithm.name} follows is not measured: {why}; leave it out, or set it to 0"
        )


def horizons(algorithm: Algorithm) -> tuple[int, ...]:
    """Those whose gradient is measured."""
    if _unmeasured(algorithm):
        return ()
    return tuple(term.horizon for term in algorithm.terms if not term.way.every)


def _unmeasured(algorithm: Algorithm) -> str:
    """Why no gradient of an algorithm is measured; "" where one is."""
    if algorithm.critics == 0:
        return "it has no critic, which a gradient after some steps ends in"
    if algorithm.target.kind != Q:
        return "its critic values states, and the gradients that are measured end in Q(s, a)"
    if algorithm.target.soft:
        return "it is one of a soft return, whose truth would be another"
    if not algorithm.needs_model:
        return "it goes through no model"
    if all(term.way.every for term in algorithm.terms):
        return "θ is in all of its actions, and truths are unrolled for the first one"
    return ""


def table(algorithm: Algorithm, seeds: tuple[int, ...]) -> Table:
    dims = ("seed", "horizon")
    columns = [f"{start}{name}" for start in ("", DYNAMICS) for name in QUANTITIES]
    names = [f"{column}{end}" for column in columns for end in ENDS]
    scales = {"seed": seeds, "horizon": horizons(algorithm)}
    return Table("iteration", {name: Column(dims) for name in names}, scales)


def due(run: Run) -> bool:
    """Whether a measurement is due before this iteration."""
    settings, k = run.settings, run.iteration
    if not measured(run.algorithm, settings) or (run.dynamics and not run.dynamics.fitted):
        return False
    if settings.gradient_every is None:
        return k in settings.kept
    return k % settings.gradient_every == 0 or k == settings.iterations


def row(run: Run) -> dict[str, Any]:
    """One row of the table; NaN for a seed that left the finite numbers."""
    chosen, finite = horizons(run.algorithm), run.learner.finite()
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
            intervals = {
                name: _ends(name, profile.estimate("model", name, h)),
                f"{DYNAMICS}{name}": _ends(name, dynamics[name]),
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
    size = np.ones(len(G))
    moments = Moments(
        size, (G * G).sum(axis=1), _products(G, G), _products(T, T), _products(G - T, G - T),
        _products(G, T),
    )  # fmt: skip
    return estimates(moments, run.algorithm.batch)


def _products(X: Floats, Z: Floats) -> PairSums:
    """Of samples as groups of one, [N, P]."""
    return PairSums((X * Z).sum(axis=1), X @ Z.sum(axis=0), Z @ X.sum(axis=0))


def _ends(name: str, estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high."""
    bounds = interval(name, estimate)
    return estimate.value, bounds.low, bounds.high


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
