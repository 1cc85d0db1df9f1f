"""The plan of a trial, and its models: fitted and priced.

    equal steps   epochs(arm) = E · steps per epoch of the baseline / steps per epoch of the arm
    equal time    epochs(baseline) = E · cost(arm)
    held_out_nll  mean ½ ((ŷ − m)²/v + log v + log 2π) per output, in nats, on held-out rows
    held_out_mse  mean (ŷ − m)², of one step in standardised coordinates

The cost of a step, held-out evaluation included, is in steps of the baseline; a pair of models
costs both fits and predicts by its first. A longer fit goes on from a shorter one's state.

Values of every model of a trial: predictions, Jacobians, growth and gradients.

    prediction   ŝ_0 = s_0,  ŝ_{t+1} = μ(ŝ_t, a_t) along the simulator's path under its actions:
                 √(Σ |(ŝ_t − s_t)/σ|² / Σ |(s_0 − s_t)/σ|²), 1 as for predicting no change
    Jacobians    √(Σ ‖X̂ − X‖² / Σ ‖X‖²) of A, B, r_s, r_a at the simulator's states
    growth       finite-time exponent of A + BK along the model's own closed loop
    gradients    θ in the first action, states and Jacobians of the model, against one shared truth

A flagged difference, inside whose stencil a contact switches, is no derivative at all: masked, and
counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradlab.data import trajectories
from gradlab.data.trajectories import Trajectories
from gradlab.errors import Failure, InputError
from gradlab.fitting.derivative_losses import (
    LOSSES,
    DirectionalDerivative,
    Sobolev,
    named_loss,
)
from gradlab.fitting.fitted import Descent, Prepared, descend, doubled, finished, prepared
from gradlab.fitting.losses import (
    LOG_2PI,
    Loss,
    MultiStep,
    OneStepError,
    outputs,
    rows_of_fit,
)
from gradlab.fitting.model_settings import ModelSettings
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import jacobian_noise, rollout_with_jacobians
from gradlab.gradients.setting import Tail
from gradlab.gradients.start_laws import Blocks, Visited, blocks, jacobian_squares, visit
from gradlab.measurement.assembly import SharedTruth
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.progress import Progress, silent
from gradlab.runs.decision_rules import least_error_at, usable_prefix
from gradlab.statistics import chains
from gradlab.statistics.moments import Array
from gradlab.systems.system import System, step_running
from gradlab.tools.remedies.result import (
    ABOUT,
    BASELINE,
    SIMULATOR,
    STEPS,
    TIME,
    ModelPair,
    ModelValue,
    longer,
)
from gradlab.user_code import is_user_function

_MEMBERS = 7  # of the arm "ensemble", as in PETS, MBPO and DDPPO


@dataclass(frozen=True, eq=False)
class FitRecipe:
    """How a model is fitted."""

    settings: ModelSettings
    loss: Loss


class FittedPart(NamedTuple):
    """A model by its recipe and the epochs that it was fitted for."""

    recipe: str
    epochs: int


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A fitted model, float64 and in eval mode, and the notes of its fit."""

    ensemble: GaussianEnsemble
    notes: Mapping[str, Any]


def recipe(
    name: str, settings: ModelSettings, gradient_loss: DirectionalDerivative, simulator: System
) -> FitRecipe:
    """The baseline's recipe with one thing changed."""
    ds, da = simulator.state_dim, simulator.action_dim
    changes: Mapping[str, Any] = {
        "spectral": {"spectral": "all_but_last"},
        "double-parameters": {"hidden": doubled(settings.hidden, (ds + da, 2 * (ds + 1)))},
        "ensemble": {"members": _MEMBERS},
    }
    if name in changes:
        changed = replace(settings, **changes[name])
        if changed == settings:
            raise InputError(f"arm {name}: the baseline's settings have that already")
        return FitRecipe(changed, OneStepError("nll"))
    if is_user_function(name):
        return FitRecipe(settings, named_loss(name))
    losses: Mapping[str, Loss] = {
        **LOSSES,
        BASELINE: OneStepError("nll"),
        "dd": replace(gradient_loss, prediction="nll"),
        "multistep-dd": replace(
            gradient_loss, prediction="mse", as_printed=False, steps=MultiStep.steps
        ),
        "sobolev": Sobolev(simulator, prediction="nll"),
    }
    return FitRecipe(settings, losses[name])


def fitted(
    recipes: Mapping[str, FitRecipe],
    part: FittedPart,
    data: Trajectories,
    descents: dict[str, Prepared],
    progress: Progress,
) -> FittedModel:
    """The model of one part.

    Args:
        descents: recipe → where its shorter fits have ended, from where this one goes on.
    """
    recipe = recipes[part.recipe]
    settings = replace(recipe.settings, epochs=part.epochs)
    try:
        if part.recipe not in descents:
            descents[part.recipe] = prepared(data, settings, recipe.loss)
        descent, constant = descents[part.recipe]
        descend(descent, settings, progress)
        fit = finished(descent, settings, recipe.loss, constant)
    except (InputError, Failure) as error:
        raise type(error)(f"arm {part.recipe}: {error}") from error
    notes = {
        "seconds": float(fit.curves["seconds"][-1]),
        "best_epoch": list(fit.best_epoch),
        "dropped": {str(member): epoch for member, epoch in fit.dropped.items()},
        "constant": list(fit.constant),
        "repeated": fit.repeated,
        "training_rows": fit.training_rows,
        "held_out_rows": fit.held_out_rows,
        "norms": {layer.name: max(layer.values) for layer in fit.norms},
    }
    return FittedModel(fit.ensemble.double().eval().requires_grad_(False), notes)


@torch.no_grad()
def price_values(
    name: str, parts: Sequence[FittedModel], recipe: FitRecipe, data: Trajectories, cost: float
) -> list[ModelValue]:
    """Held-out likelihood and squared error, averaged over members, and what the fit took.

    Args:
        recipe: of the part that predicts; cost: of a step, in steps of the baseline.
    """
    ensemble = parts[0].ensemble
    rows, _, held, _ = rows_of_fit(data, recipe.settings)
    inputs = rows.inputs[held]
    mean, log_variance = outputs(ensemble, inputs.expand(ensemble.members, *inputs.shape))
    square = (mean - rows.targets[held]).square()
    terms = square * (-log_variance).exp() + log_variance + LOG_2PI
    prices = {
        "held_out_nll": float(0.5 * terms.mean()),
        "held_out_mse": float(square.mean()),
        "fit_seconds": sum(float(part.notes["seconds"]) for part in parts),
        "step_cost": cost,
    }
    return [ModelValue(name, quantity, value) for quantity, value in prices.items()]


_REPEATS = 7
_TIMED = 5000  # rows of a timed epoch, at most


@dataclass(frozen=True)
class TrialPlan:
    """What a trial makes, and what is compared.

    Attributes:
        models: name → its one part, or the parts that predict and that give Jacobians.
        costs: arm → seconds of a step in steps of the baseline.
    """

    models: Mapping[str, tuple[FittedPart, ...]]
    pairs: tuple[ModelPair, ...]
    costs: Mapping[str, float]

    @property
    def parts(self) -> list[FittedPart]:
        """Every fit once, the shorter ones of a recipe first."""
        return sorted({part for parts in self.models.values() for part in parts})


def fits_of(arm: str) -> tuple[str, ...]:
    """Recipes behind an arm beside the baseline."""
    if arm not in ABOUT and not is_user_function(arm):
        names = ", ".join(ABOUT)
        raise InputError(f"arm {arm!r} is unknown, expected some of {names}, or file.py:loss")
    return {"two-model": ("dd",)}.get(arm, (arm,))


def steps_per_epoch(recipes: Mapping[str, FitRecipe], data: Trajectories) -> dict[str, int]:
    """Steps of the optimiser in an epoch of each recipe."""
    return {name: _descent(name, recipe, data).steps for name, recipe in recipes.items()}


def measured_costs(recipes: Mapping[str, FitRecipe], data: Trajectories) -> dict[str, float]:
    """Recipe → cost of a step: medians of ratios of epochs that were timed in turn."""
    few = trajectories.first(data, min(len(data), _TIMED))
    descents = {name: _descent(name, recipe, few) for name, recipe in recipes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in descents}
    for _ in range(_REPEATS + 1):
        for name, descent in descents.items():
            begun = time.perf_counter()
            descent.run_epoch()
            descent.evaluated()
            seconds[name].append((time.perf_counter() - begun) / descent.steps)
    pairs = {name: zip(of_arm, seconds[BASELINE], strict=True) for name, of_arm in seconds.items()}
    return {name: median([a / b for a, b in ratios][1:]) for name, ratios in pairs.items()}


def costs_of(arms: Sequence[str], recipes: Mapping[str, float]) -> dict[str, float]:
    """Arm → cost, from those of its recipes."""
    costs = {arm: sum(recipes[name] for name in fits_of(arm)) for arm in arms}
    if "two-model" in costs:
        costs["two-model"] += 1.0
    return costs


def planned(
    arms: Sequence[str], epochs: int, steps: Mapping[str, int], costs: Mapping[str, float]
) -> TrialPlan:
    """The models of all arms. `epochs`: E of the baseline; steps: of an epoch of each recipe;
    costs: of a step of each arm."""

    def alike(name: str) -> FittedPart:
        return FittedPart(name, max(1, round(epochs * steps[BASELINE] / steps[name])))

    base = FittedPart(BASELINE, epochs)
    models: dict[str, tuple[FittedPart, ...]] = {BASELINE: (base,)}
    pairs: list[ModelPair] = []
    for arm in arms:
        parts = tuple(alike(name) for name in fits_of(arm))
        models[arm] = (base, *parts) if arm == "two-model" else parts
        models[longer(arm)] = (FittedPart(BASELINE, max(1, round(epochs * costs[arm]))),)
        pairs += [ModelPair(arm, STEPS, BASELINE, arm), ModelPair(arm, TIME, longer(arm), arm)]
    return TrialPlan(models, tuple(pairs), costs)


def _descent(name: str, recipe: FitRecipe, data: Trajectories) -> Descent:
    try:
        return prepared(data, recipe.settings, recipe.loss)[0]
    except InputError as error:
        raise InputError(f"arm {name}: {error}") from error


_GRADIENT = ("bias2", "variance", "mse", "relative_mse", "cosine")


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all models of a trial are measured on.

    Attributes:
        path: of the simulator under the policy, from the truth's starts.
        visited: the simulator's Jacobians along it.
        compared: bool [H, N], samples whose Jacobians are.
        critic: of every gradient's tail, or None.
    """

    truth: SharedTruth
    path: trajectories.Path
    visited: Visited
    compared: NDArray[np.bool_]
    critic: nn.Module | None


def bench(truth: SharedTruth, critic: nn.Module | None, progress: Progress = silent) -> _Bench:
    """Roll the simulator out and differentiate it, once for all models."""
    simulator = truth.task.simulator
    here = truth.setting
    path, K = rollout_with_jacobians(simulator, here.policy, here.starts, here.horizon, here.seed)
    visited = visit(simulator, None, path, K, progress)
    if visited.true.step is None:  # exact, so that a flag tells of a clip, not of a failure
        trusted = replace(visited.true, flags=np.zeros_like(visited.true.flags))
        visited = replace(visited, true=trusted)
    return _Bench(truth, path, visited, visited.true.usable, critic)


def simulator_values(bench: _Bench) -> list[ModelValue]:
    """What models are shown beside: the simulator's exponent, and the error of no change."""
    squares = _distances(bench, bench.visited.states[:1])
    scale = np.ones_like(squares) * bench.visited.states.shape[2]
    values = _root_ratios(SIMULATOR, "no_change", squares, scale)
    return [*values, *_exponent(SIMULATOR, bench, bench.visited.true, bench.visited.K)]


def model_values(name: str, system: System, bench: _Bench) -> list[ModelValue]:
    """Predictions, Jacobian errors and growth of one model."""
    here = bench.truth.setting
    own, K = rollout_with_jacobians(system, here.policy, here.starts, here.horizon, here.seed)
    chained = blocks(system, own, own.dynamics_noise, silent, "")
    state, predicted = bench.path.states[0], []
    with torch.no_grad():
        for t in range(bench.path.horizon):
            state = step_running(system, state, bench.path.actions[t], None).state
            predicted.append(state.numpy())
    error = _distances(bench, np.stack(predicted))
    change = _distances(bench, bench.visited.states[:1])
    visited, simulator = bench.visited, bench.truth.task.simulator
    guess = blocks(system, bench.path, jacobian_noise(simulator, system, bench.path), silent, "")
    compared = jacobian_squares(replace(visited, guess=guess))
    values = []
    kept = bench.compared & guess.usable
    for block, (miss, size) in compared.items():
        if kept.any() and size[kept].any():  # not a block that is 0
            value = _root_ratio(miss[kept], size[kept])
            values.append(ModelValue(name, "jacobian_error", value, block))
    return [
        *_root_ratios(name, "prediction_error", error, change),
        *values,
        *_exponent(name, bench, chained, K[:-1].numpy()),
    ]


def gradient_values(
    systems: Mapping[str, System], bench: _Bench, progress: Progress = silent
) -> list[ModelValue]:
    """Errors of the gradient through each model at horizons 1 … H, and what follows."""
    truth = bench.truth
    tail = Tail(truth.setting.horizon, bench.critic, truth.task.discount)
    estimators = {name: Estimator(model, model, "first", tail) for name, model in systems.items()}
    profile = truth.profile(estimators, progress=progress)
    values = []
    for name in systems:
        e = profile.estimators.index(name)
        for quantity in _GRADIENT:
            counts = profile.count[e, profile.quantities.index(quantity)]
            over = [h for h in profile.horizons[1:] if counts[profile.horizons.index(h)]]
            estimates = [profile.estimate(name, quantity, h).value for h in over]
            values += [
                ModelValue(name, quantity, value, at=h)
                for h, value in zip(over, estimates, strict=True)
            ]
            if quantity == "mse" and over:
                values += [
                    ModelValue(name, "least_mse", float(np.nanmin(estimates))),
                    ModelValue(name, "usable_horizon", float(usable_prefix(profile, name))),
                    ModelValue(name, "best_horizon", float(least_error_at(profile, name))),
                ]
    return values


def _distances(bench: _Bench, predicted: Array) -> Array:
    """[H, N], squared distances from the path's states at steps 1 … H, in its deviations."""
    scale = bench.visited.spread[0][:-1]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((((predicted - bench.visited.states[1:]) / scale) ** 2).sum(2))


def _root_ratios(name: str, quantity: str, error: Array, size: Array) -> list[ModelValue]:
    """√(Σ error / Σ size) of every step, arrays [H, N]."""
    ratios = map(_root_ratio, error, size)
    return [ModelValue(name, quantity, each, at=t) for t, each in enumerate(ratios, 1)]


def _root_ratio(error: Array, size: Array) -> float:
    """√(Σ error / Σ size) over samples [M]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.sqrt(error.sum() / size.sum()))


def _exponent(name: str, bench: _Bench, chained: Blocks, K: Array) -> list[ModelValue]:
    """The largest exponent, averaged over starts; none of a single step."""
    ds = bench.visited.states.shape[2]
    if len(K) < 2:
        return []
    M = chained.J[..., :ds, :ds] + chained.J[..., :ds, ds:] @ K
    skip = ~chained.usable
    rates = chains.exponents(chains.log_singular_values(M, skip), skip)[:, 0]
    known = rates[np.isfinite(rates)]
    return [ModelValue(name, "lyapunov", float(known.mean()))] if len(known) else []
