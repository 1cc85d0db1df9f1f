"""`compare_jacobians`: a model's Jacobians against the simulator's, at the same states and actions.

    ε_X = √(Σ ‖X̂ − X‖_F² / Σ ‖X‖_F²),  X ∈ {A, B, r_s, r_a},  over unflagged (s_t, a_t, ξ_t)

The model is differentiated at the noise that explains the simulator's transition where it can tell
(as RP-DR does), else at its mean. What failed its certificate or is not finite is masked and
counted. What an error does to the policy gradient is in `effects`.
A simulator's own derivatives are compared with differences of its step at states of the path.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.checks.jacobians import own_derivatives
from gradlab.data.trajectories import Path, finite_rows
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import trace
from gradlab.gradients.rollout import noise_mode, rollout, rollout_with_jacobians
from gradlab.gradients.setting import Starts, as_starts, group_count
from gradlab.gradients.start_laws import Blocks, Flags, Visited, visit
from gradlab.networks.interface import check_policy, double_copy, noise_dim
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.statistics import over_groups
from gradlab.systems.system import BLOCKS, System, check_system
from gradlab.tools.jacobians.errors import (
    DIRECTIONS,
    add_distance,
    add_effects,
    add_entries,
    add_errors,
    add_growth,
    add_model_error,
)
from gradlab.tools.jacobians.result import MEANING, JacobianRun
from gradlab.user_code import differentiating

_QUANTILES = {"median": 0.5, "95th percentile": 0.95, "largest": 1.0}


def _add_certificate(rows: RowCollector, visited: Visited) -> None:
    """Estimated relative error per block over unflagged samples, and shares along the rollout."""
    true, kept = visited.true, visited.true.usable
    for block in BLOCKS:
        errors = true.errors[block][kept]
        for name, quantile in _QUANTILES.items():
            value = float(np.quantile(errors, quantile)) if errors.size else np.nan
            estimate = number(value, np.nan, np.nan, errors.size, "certificate")
            rows.add("certificate", name, estimate, At(block=block))
    flags = {"flagged": true.flags & true.finite, "not finite": ~true.finite}
    if visited.guess is not None:
        flags["model not finite"] = ~visited.guess.finite
    H = len(true.flags)
    for name, flag in flags.items():
        rows.add("certificate", f"{name} share", _share(flag.mean(0, keepdims=True), visited))
        rows.add("time", f"{name} share", _share(flag, visited), At(step=np.arange(H)))
    terminal = ~visited.alive[:-1]
    rows.add("time", "terminated share", _share(terminal, visited), At(step=np.arange(H)))


def _counts(visited: Visited) -> dict[str, Any]:
    """Masked samples, and the first loss by name of start and step."""
    notes: dict[str, Any] = {
        "derivatives": "exact" if visited.true.step is None else "central differences",
        "samples": int(visited.kept.size),
        "compared": int(visited.kept.sum()),
        "flagged": int((visited.true.flags & visited.true.finite).sum()),
    }
    step = visited.true.step
    if step is not None:
        largest = float(np.nanmax(step))
        notes |= {"step": largest, "retried": int((step < largest).sum())}
    for name, blocks in (("simulator", visited.true), ("model", visited.guess)):
        if blocks is not None:
            notes[f"{name}_not_finite"] = int((~blocks.finite).sum())
            notes[f"{name}_first_loss"] = _first_loss(blocks)
    return notes


def _first_loss(blocks: Blocks) -> str:
    lost = np.argwhere(~blocks.finite)
    if not len(lost):
        return ""
    t, i = lost[0]
    output = int(np.argwhere(~np.isfinite(blocks.J[t, i]))[0, 0])
    return f"step {t}, start {i}, output {output}"


def _share(flags: Flags | Any, visited: Visited) -> over_groups.Estimates:
    """Share of flagged samples [K, N] with its interval over groups."""
    per_start = np.asarray(flags, dtype=np.float64).T
    sizes = over_groups.group_sums(np.ones(len(per_start)), visited.group)
    shares = over_groups.mean(over_groups.group_sums(per_start, visited.group) / sizes[:, None])
    low, high = np.clip(shares.low, 0, 1), np.clip(shares.high, 0, 1)
    return over_groups.Estimates(shares.value, shares.se, low, high, shares.n, shares.method)


def _tested(
    simulator: System, path: Path, states: Sequence[str], actions: Sequence[str]
) -> dict[str, Any]:
    """Notes of how a simulator's own derivatives compare with differences of its step."""
    found = own_derivatives(simulator, path)
    if found is None:
        return {"tested": "no"}
    row, column = [*(f"{each}'" for each in states), "reward"], [*states, *actions]
    return {
        "tested": "wrong" if found.wrong else "open" if found.off else "sound",
        "tested_states": found.states,
        "tested_off": found.off,
        "tested_at": f"{MEANING[found.block]} of {row[found.row]} by {column[found.column]}",
    }


_HORIZON = 25
FEWEST = 4  # groups of starts that an interval needs
_MEMORY = 8e9  # bytes of Jacobians that are held at once


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
    names = (
        _names("state_names", state_names, "s", simulator.state_dim),
        _names("action_names", action_names, "a", simulator.action_dim),
    )
    check_model(simulator, model)
    policy = double_copy("policy", policy)
    starts = _checked_starts(states, simulator, policy)
    stored = None if starts.path is None else starts.path.horizon
    H = validation.whole("horizon", horizon if horizon is not None else stored or _HORIZON, 1)
    if stored is not None and stored < H:
        raise InputError(f"horizon is {H}, but the path has {stored} steps: ask for fewer")
    validation.number("discount", discount, above=0, most=1)
    width, each = simulator.state_dim + simulator.action_dim + 1, 5 * H + DIRECTIONS
    needed = 8 * each * len(starts.states) * width**2
    if needed > _MEMORY:
        raise InputError(
            f"horizon {H} with {len(starts.states)} starts needs about {needed / 1e9:.0f} GB, more "
            f"than {_MEMORY / 1e9:.0f} GB: lower one of them"
        )
    recorded = None
    if data is not None:
        recorded = (
            finite_rows("data states", data[0], simulator.state_dim).numpy(),
            finite_rows("data actions", data[1], simulator.action_dim).numpy(),
        )

    path, K = _path(simulator, policy, starts, H, seed)
    visited = visit(simulator, model, path, K, progress)
    rows, notes = RowCollector(), _counts(visited)
    _add_certificate(rows, visited)
    add_entries(rows, visited, *names)
    if visited.guess is not None:
        add_errors(rows, visited)
        if any(p.requires_grad for p in policy.parameters()):  # else there is no gradient in θ
            add_effects(rows, visited, path, policy, discount, *names)
        if recorded is not None:
            add_distance(rows, visited, *recorded)
    add_growth(rows, visited, discount, progress)
    if model is not None and starts.path is None:
        own = rollout(model, policy, starts, H, seed)
        notes |= add_model_error(rows, visited, own.states.numpy())
    if visited.true.step is None:
        notes |= _tested(simulator, path, *names)
    config = {
        "starts": len(starts.states), "groups": group_count(starts.group), "horizon": H,
        "discount": discount, "seed": seed, "policy_hash": provenance.network_hash(policy),
        "simulator": type(simulator).__name__,
        "model": None if model is None else type(model).__name__,
        "data": None if recorded is None else len(recorded[0]),
        "model_noise": None if model is None else noise_mode(simulator, model),
    } | dict(settings or {})  # fmt: skip
    return JacobianRun(rows.columns, *names, config, provenance.environment(begun), notes)


def _checked_starts(states: Tensor | Path, simulator: System, policy: nn.Module) -> Starts:
    validation.instance("states", states, (Tensor, Path, np.ndarray), "a tensor [N, ds] or a Path")
    starts = as_starts(
        states.double()
        if isinstance(states, Path)
        else finite_rows("states", states, simulator.state_dim),
        simulator.state_dim,
    )
    check_policy(policy, starts.states, simulator.action_dim)
    groups = group_count(starts.group)
    if groups < FEWEST:
        raise InputError(f"states has {groups} independent starts, expected at least {FEWEST}")
    return starts


def check_model(simulator: System, model: System | None) -> None:
    if model is None:
        return
    check_system("model", model)
    for name in ("state_dim", "action_dim"):
        wanted, got = getattr(simulator, name), getattr(model, name, None)
        if got != wanted:
            raise InputError(f"model has {name} {got}, but the simulator has {wanted}")


def _names(name: str, given: Sequence[str], short: str, width: int) -> tuple[str, ...]:
    """Of coordinates: those given, or short ones."""
    if given and len(given) != width:
        raise InputError(f"{name} has {len(given)} entries, but the simulator has {width}")
    return tuple(given) or tuple(f"{short}{k}" for k in range(width))


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
