"""Values of every model of a trial: predictions, Jacobians, growth and gradients.

    prediction   ŝ_0 = s_0,  ŝ_{t+1} = μ(ŝ_t, a_t) along the simulator's path under its actions:
                 √(Σ |(ŝ_t − s_t)/σ|² / Σ |(s_0 − s_t)/σ|²), 1 as for predicting no change
    Jacobians    √(Σ ‖X̂ − X‖² / Σ ‖X‖²) of A, B, r_s, r_a at the simulator's states
    growth       finite-time exponent of A + BK along the model's own closed loop
    gradients    θ in the first action, states and Jacobians of the model, against one shared truth

Points on a clip, a limit or beyond a joint's limit stand apart from smooth ones, and so does what
the simulator flags. A flagged difference, inside whose stencil a contact switches, is no derivative
at all: masked, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradlab.data.trajectories import Path
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import jacobian_noise, rollout_with_jacobians
from gradlab.gradients.setting import Tail
from gradlab.gradients.start_laws import Blocks, Visited, blocks, jacobian_squares, visit
from gradlab.measurement.assembly import SharedTruth
from gradlab.progress import Progress, silent
from gradlab.runs.decision_rules import least_error_at, usable_prefix
from gradlab.statistics import chains
from gradlab.statistics.moments import Array
from gradlab.statistics.over_groups import group_sums
from gradlab.systems.differentiable import mujoco_environment
from gradlab.systems.system import System, step_running
from gradlab.tasks import Task
from gradlab.tools.remedies.result import ALL, CLIPPED, SIMULATOR, SMOOTH, Key, ModelValue

_GRADIENT = ("bias2", "variance", "mse", "relative_mse", "cosine")


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all models of a trial are measured on.

    Attributes:
        path: of the simulator under the policy, from the truth's starts.
        visited: the simulator's Jacobians along it.
        regions: name → samples [H, N] whose Jacobians are compared.
        critic: of every gradient's tail, or None.
    """

    truth: SharedTruth
    path: Path
    visited: Visited
    regions: Mapping[str, NDArray[np.bool_]]
    critic: nn.Module | None


def bench(truth: SharedTruth, critic: nn.Module | None, progress: Progress = silent) -> _Bench:
    """Roll the simulator out and differentiate it, once for all models."""
    simulator = truth.task.simulator
    here = truth.setting
    path, K = rollout_with_jacobians(simulator, here.policy, here.starts, here.horizon, here.seed)
    visited = visit(simulator, None, path, K, progress)
    at = regions(truth.task, visited)
    if visited.true.step is None:  # exact, so that a flag tells of a clip, not of a failure
        trusted = replace(visited.true, flags=np.zeros_like(visited.true.flags))
        visited = replace(visited, true=trusted)
    return _Bench(truth, path, visited, at, critic)


def regions(task: Task, visited: Visited) -> dict[str, NDArray[np.bool_]]:
    """All samples that are compared, and those off and on a clip or limit.

    A clip shows in the Jacobian: a state that stays whatever changes, an action without effect,
    where elsewhere there is one.
    """
    J, ds, exact = visited.true.J, visited.states.shape[2], visited.true.step is None
    usable = visited.true.finite if exact else visited.true.usable
    still = np.concatenate([(J[..., :ds, :] == 0).all(3), (J[..., ds:] == 0).all(2)], axis=2)
    clipped = visited.true.flags | (still & ~np.all(still, axis=(0, 1))).any(axis=2)
    if task.action_limit is not None:
        clipped |= (np.abs(visited.actions) >= np.array(task.action_limit)).any(axis=2)
    environment = mujoco_environment(task.simulator)
    if environment is not None:
        states = torch.from_numpy(visited.states[:-1][usable])
        clipped[usable] |= environment.beyond_limits(states).numpy()
    return {ALL: usable, SMOOTH: usable & ~clipped, CLIPPED: usable & clipped}


def simulator_values(bench: _Bench) -> list[ModelValue]:
    """What models are shown beside: the simulator's exponent, and the error of no change."""
    squares = _distances(bench, bench.visited.states[:1])
    scale = np.ones_like(squares) * bench.visited.states.shape[2]
    values = _root_ratios(SIMULATOR, "no_change", squares, scale, bench.visited.group)
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
    for region, inside in bench.regions.items():
        kept = inside & guess.usable
        for block, (miss, size) in compared.items():
            if not kept.any() or not size[kept].any():
                continue  # nothing there, or a block that is 0
            wrong, whole = (np.where(kept, part, 0.0).sum(0) for part in (miss, size))
            value = root_ratio(wrong, whole, visited.group)
            values.append(ModelValue(name, Key("jacobian_error", block, region=region), *value))
    return [
        *_root_ratios(name, "prediction_error", error, change, bench.visited.group),
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
            estimates = [profile.estimate(name, quantity, h) for h in over]
            values += [
                ModelValue(name, Key(quantity, at=h), estimate.value, estimate.left_out)
                for h, estimate in zip(over, estimates, strict=True)
            ]
            if quantity == "mse" and over:
                least = float(np.nanmin([error.value for error in estimates]))
                left_out = np.min([error.left_out for error in estimates], axis=0)
                values += [
                    ModelValue(name, Key("least_mse"), least, left_out),
                    ModelValue(name, Key("usable_horizon"), float(usable_prefix(profile, name))),
                    ModelValue(name, Key("best_horizon"), float(least_error_at(profile, name))),
                ]
    return values


def _distances(bench: _Bench, predicted: Array) -> Array:
    """[H, N], squared distances from the path's states at steps 1 … H, in its deviations."""
    scale = bench.visited.spread[0][:-1]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((((predicted - bench.visited.states[1:]) / scale) ** 2).sum(2))


def _root_ratios(
    name: str, quantity: str, error: Array, size: Array, group: NDArray[np.int64]
) -> list[ModelValue]:
    """√(Σ error / Σ size) of every step, arrays [H, N]."""
    return [
        ModelValue(name, Key(quantity, at=t + 1), *root_ratio(error[t], size[t], group))
        for t in range(len(error))
    ]


def root_ratio(error: Array, size: Array, group: NDArray[np.int64]) -> tuple[float, Array]:
    """√(Σ error / Σ size) over samples [M], and the same with each group left out."""
    X, Z = group_sums(error, group), group_sums(size, group)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.sqrt(X.sum() / Z.sum()))
        left_out = np.sqrt(np.maximum(X.sum() - X, 0.0) / (Z.sum() - Z))
    return value, np.asarray(left_out)


def _exponent(name: str, bench: _Bench, chained: Blocks, K: Array) -> list[ModelValue]:
    """The largest exponent, averaged over groups of starts; none of a single step."""
    ds, group = bench.visited.states.shape[2], bench.visited.group
    if len(K) < 2:
        return []
    M = chained.J[..., :ds, :ds] + chained.J[..., :ds, ds:] @ K
    skip = ~chained.usable
    rates = chains.exponents(chains.log_singular_values(M, skip), skip)[:, 0]
    finite = np.isfinite(rates)
    if not finite.any():
        return []
    sums = group_sums(np.where(finite, rates, 0.0), group)
    count = group_sums(finite.astype(np.float64), group)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (sums.sum() - sums) / (count.sum() - count)
    value = float(sums.sum() / count.sum())
    return [ModelValue(name, Key("lyapunov"), value, np.asarray(left_out))]


def counted(bench: _Bench) -> dict[str, int]:
    """Samples of each region, and those that were masked."""
    counts = {name: int(region.sum()) for name, region in bench.regions.items()}
    return counts | {"masked": int((~bench.visited.true.usable).sum())}
