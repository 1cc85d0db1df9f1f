"""`compare_jacobians`: a model's Jacobians against the simulator's, at the same states and actions.

    ε_X = √(Σ ‖X̂ − X‖_F² / Σ ‖X‖_F²),   X ∈ {A, B, r_s, r_a},   over every unflagged (s_t, a_t, ξ_t)
                                          that the policy visits on the simulator

The model is differentiated at the noise that explains the simulator's transition where it can tell
(as RP-DR does), else at its mean; its prediction is always the mean. A sample whose simulator
Jacobian failed its certificate, or where anything is not finite, is masked and counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.groups import group_count
from gradlab.gradients.policy_jacobian import trace
from gradlab.gradients.rollout import noise_mode, rollout, rollout_with_jacobians
from gradlab.gradients.starts import Starts, as_starts
from gradlab.jacobians.certificate import add_certificate, counts
from gradlab.jacobians.effects import add_effects
from gradlab.jacobians.errors import add_distance, add_entries, add_errors
from gradlab.jacobians.growth import add_growth, add_measured_growth, add_model_error
from gradlab.jacobians.rows import Rows
from gradlab.jacobians.visited import Visited, visit
from gradlab.networks.interface import check_policy, double_copy, noise_dim
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.jacobians import JacobianRun
from gradlab.runs.profile import Profile
from gradlab.systems.system import System, check_system
from gradlab.user_code.grad_mode import differentiating

HORIZON = 25
FEWEST = 4  # groups of starts that an interval needs
MEMORY = 8e9  # bytes of Jacobians that are held at once


@differentiating
def compare_jacobians(
    simulator: System,
    model: System | None,
    states: Tensor | Path,
    policy: nn.Module,
    data: tuple[Tensor, Tensor] | None = None,
    *,
    horizon: int | None = None,
    discount: float = 1.0,
    seed: int = 0,
    state_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
    profile: Profile | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> JacobianRun:
    """Errors of the model's Jacobians along the simulator's rollout, and growth of their products.

    Args:
        simulator: the truth, with its certificate.
        model: a model of it, or None: certificate and growth alone.
        states: starts [N, ds], rolled out under the policy, or a path, taken as it was recorded.
        policy: module, state [N, ds] → action [N, da]; used as a float64 copy.
        data: states [M, ds] and actions [M, da] that the model was fitted to.
        horizon: steps; None for the path's own, or 25.
        discount: γ of the gradient whose variance and errors are predicted.
        seed: of every draw.
        state_names, action_names: one per coordinate; s0 … and a0 … where not given.
        profile: a measurement of the same policy, whose variance growth is shown beside.
        settings: recorded in the file as they are (task, command).
        progress: called as progress(stage, done, total).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    begun = time.monotonic()
    progress = check_progress(progress)
    check_system("simulator", simulator)
    validation.instance(
        "policy", policy, nn.Module, "a torch.nn.Module: state [N, ds] → action [N, da]"
    )
    names = _names(simulator, state_names, action_names)
    check_model(simulator, model)
    policy = double_copy("policy", policy)
    starts = _checked_starts(states, simulator, policy)
    H = _horizon(horizon, starts)
    if not 0 < discount <= 1:
        raise InputError(f"discount is {discount!r}, expected a number above 0, at most 1")
    _check_memory(simulator, H, len(starts.states))
    _check_profile(profile, policy)
    recorded = _checked_data(data, simulator)

    path, K = _path(simulator, policy, starts, H, seed)
    visited = visit(simulator, model, path, K, progress)
    rows, notes = _rows(visited, names, discount, recorded, progress), counts(visited)
    add_measured_growth(rows, profile)
    if model is not None and starts.path is None:
        own = rollout(model, policy, starts, H, seed)
        notes |= add_model_error(rows, visited, own.states.numpy())
    config = {
        "starts": len(starts.states),
        "groups": group_count(starts.group),
        "horizon": H,
        "discount": discount,
        "seed": seed,
        "policy_hash": provenance.network_hash(policy),
        "simulator": type(simulator).__name__,
        "model": None if model is None else type(model).__name__,
        "data": None if recorded is None else len(recorded[0]),
        "model_noise": None if model is None else noise_mode(simulator, model),
    }
    environment = provenance.environment() | {
        "precision": "float64",
        "wall_seconds": f"{time.monotonic() - begun:.1f}",
    }
    return JacobianRun(rows.columns, *names, config | dict(settings or {}), environment, notes)


def _rows(
    visited: Visited,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    discount: float,
    recorded: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None,
    progress: Progress,
) -> Rows:
    """What the Jacobians along the path say by themselves."""
    rows = Rows()
    add_certificate(rows, visited)
    add_entries(rows, visited, *names)
    if visited.guess is not None:
        add_errors(rows, visited)
        add_effects(rows, visited, discount, *names)
        if recorded is not None:
            add_distance(rows, visited, *recorded)
    add_growth(rows, visited, discount, progress)
    return rows


def _checked_starts(states: Tensor | Path, simulator: System, policy: nn.Module) -> Starts:
    starts = as_starts(_double(states), simulator.state_dim)
    check_policy(policy, starts.states, simulator.action_dim)
    groups = group_count(starts.group)
    if groups < FEWEST:
        raise InputError(f"states has {groups} independent starts, expected at least {FEWEST}")
    return starts


def _check_profile(profile: Profile | None, policy: nn.Module) -> None:
    if profile is None:
        return
    measured, given = profile.config.get("policy_hash"), provenance.network_hash(policy)
    if measured != given:
        raise InputError(
            f"profile is of the policy {measured}, but this one is {given}: measure this one"
        )


def check_model(simulator: System, model: System | None) -> None:
    """
    Raises:
        InputError: the model's dimensions are not the simulator's.
    """
    if model is None:
        return
    check_system("model", model)
    for name in ("state_dim", "action_dim"):
        wanted, got = getattr(simulator, name), getattr(model, name, None)
        if got != wanted:
            raise InputError(f"model has {name} {got}, but the simulator has {wanted}")


def _names(
    simulator: System, state_names: Sequence[str], action_names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    named = []
    for name, given, short, width in (
        ("state_names", state_names, "s", simulator.state_dim),
        ("action_names", action_names, "a", simulator.action_dim),
    ):
        texts = isinstance(given, list | tuple) and all(isinstance(n, str) and n for n in given)
        if not texts or len(set(given)) < len(given):
            raise InputError(f"{name} is {validation.shown(given)}, expected names that differ")
        if given and len(given) != width:
            raise InputError(f"{name} has {len(given)} entries, but the simulator has {width}")
        named.append(tuple(given) or tuple(f"{short}{k}" for k in range(width)))
    return named[0], named[1]


def _double(states: Tensor | Path) -> Tensor | Path:
    validation.instance("states", states, (Tensor, Path, np.ndarray), "a tensor [N, ds] or a Path")
    if isinstance(states, Path):
        return states.double()
    return _numbers("states", states)


def _numbers(name: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values).double()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} holds no numbers: {error}") from None


def _horizon(wanted: int | None, starts: Starts) -> int:
    recorded = None if starts.path is None else starts.path.horizon
    H = wanted if wanted is not None else recorded or HORIZON
    check_horizon(H)
    if recorded is not None and recorded < H:
        raise InputError(f"horizon is {H}, but the path has {recorded} steps: ask for fewer")
    return H


def check_horizon(horizon: int) -> None:
    """
    Raises:
        InputError: no positive integer.
    """
    validation.whole("horizon", horizon, 1)


def _check_memory(simulator: System, horizon: int, starts: int) -> None:
    ds, da = simulator.state_dim, simulator.action_dim
    needed = 8 * 5 * horizon * starts * (ds + da + 1) ** 2
    if needed > MEMORY:
        raise InputError(
            f"horizon {horizon} with {starts} starts needs about {needed / 1e9:.0f} GB, more than "
            f"{MEMORY / 1e9:.0f} GB: lower one of them"
        )


def _checked_data(
    data: tuple[Tensor, Tensor] | None, simulator: System
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError(f"data is {validation.shown(data)}, expected (states, actions)")
    columns: list[np.ndarray[Any, Any]] = []
    for name, values, width in (
        ("states", data[0], simulator.state_dim),
        ("actions", data[1], simulator.action_dim),
    ):
        array = _numbers(f"data {name}", values).detach().numpy()
        rows = len(columns[0]) if columns else len(array) if array.ndim else 0
        if array.ndim != 2 or array.shape[1] != width or len(array) != rows:
            want = f"[{rows}, {width}]"
            raise InputError(f"data {name} have shape {array.shape}, expected {want}")
        if not np.isfinite(array).all() or len(array) < 2:
            raise InputError(f"data {name} need at least 2 rows, all finite: clean them")
        columns.append(array)
    return columns[0], columns[1]


def _path(
    simulator: System, policy: nn.Module, starts: Starts, horizon: int, seed: int
) -> tuple[Path, Tensor]:
    """The path with K = ∂π/∂s along it: rolled out, or as recorded."""
    if starts.path is None:
        return rollout_with_jacobians(simulator, policy, starts, horizon, seed)
    path = starts.path.cut(horizon)
    width = noise_dim(policy)
    if path.policy_noise.shape[2] != width:
        raise InputError(
            f"the path has policy noise of width {path.policy_noise.shape[2]}, the policy draws "
            f"{width}: give the policy that made the path"
        )
    gains = [trace(policy, path.states[t], path.policy_noise[t]).K for t in range(horizon + 1)]
    return path, torch.stack(gains)
