"""Columns of "measured" from one fresh path of the simulator under the policy.

A, B of the simulator → growth of ∂s_t/∂s_0 = M_{t−1} ⋯ M_0;   A, B of the model in use (the
prior, learned or not; else the simulator) → error, lost and dead entries;   rewards, critic
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
)
from gradlab.gradients.starts import Starts
from gradlab.networks.critics import judge
from gradlab.probe.lost_jacobians import lost
from gradlab.runs.probe.measured_columns import STEPS
from gradlab.statistics import chains, over_groups
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Array
from gradlab.systems.system import System
from gradlab.tasks import Task

FLOAT32 = float(np.log(np.finfo(np.float32).max))


def fresh_path(task: Task, policy: nn.Module, begin: Starts, seed: int) -> LinearizedPath:
    path, K = rollout_with_jacobians(task.simulator, policy, begin, STEPS, seed)
    return linearize_path(path, task.simulator, K, path.dynamics_noise)


def along(
    task: Task, linear: LinearizedPath, critic: nn.Module | None, reward_max: float, scale: Array
) -> dict[str, Any]:
    """Growth, rewards, critic and Jacobians along the path.

    Args:
        linear: with the simulator's Jacobians.
        reward_max: the largest |reward| of earlier paths.
        scale: [ds, ds + da], units in which errors of Jacobians are measured.
    """
    A, B, K = (each.numpy() for each in (linear.A, linear.B, linear.K[:-1]))
    skip = linear.flags.numpy() | ~np.isfinite(A).all((2, 3)) | ~np.isfinite(B).all((2, 3))
    row = _growth(A + B @ K, skip) | _rewards(linear, reward_max, task.discount)
    model = linear
    if task.prior is not None:
        model = _of_model(linear, task.simulator, task.prior)
        row |= _error(linear, model, skip, scale)
    return row | lost(model, linear.flags) | _dead(model) | _value(linear, critic)


def units(linear: LinearizedPath) -> Array:
    """Every state and action in its standard deviations along the path, [ds, ds + da]."""
    states, actions = (
        values[:-1].flatten(0, 1).numpy().std(0)
        for values in (linear.path.states, linear.path.actions)
    )
    rows, columns = (np.where(x > 0, x, 1.0) for x in (states, np.concatenate([states, actions])))
    return np.asarray(columns / rows[:, None])


def _of_model(linear: LinearizedPath, simulator: System, model: System) -> LinearizedPath:
    """The model's Jacobians along the simulator's path, at the noise that explains it."""
    noise = jacobian_noise(simulator, model, linear.path)
    return linearize_path(linear.path, model, linear.K, noise)


def _growth(M: Array, skip: chains.Flags) -> dict[str, Any]:
    """Exponent, norm and condition of the products of M [H, N, ds, ds]."""
    logs = chains.log_singular_values(M, skip)
    rate = over_groups.mean(chains.exponents(logs, skip)[:, :1])
    exponent = float(rate.value[0])
    with np.errstate(invalid="ignore"):
        norm, spread = logs[:, :, 0].mean(1), np.median(logs[-1, :, 0] - logs[-1, :, -1])
    beyond = (FLOAT32 - norm[-1]) / exponent if exponent > 0 else np.inf
    return {
        "lyapunov": exponent,
        "lyapunov_se": float(rate.se[0]),
        "lyapunov_horizon": 1 / exponent if exponent > 0 else np.inf,
        "chain_norm": norm / np.log(10),
        "chain_condition": float(spread / np.log(10)),
        "tenfold": float(np.log(10) / exponent) if exponent > 0 else np.inf,
        "float32_step": float(np.ceil(len(M) + beyond)),
    }


def _rewards(linear: LinearizedPath, reward_max: float, discount: float) -> dict[str, float]:
    rewards = linear.path.rewards.abs().nan_to_num(nan=torch.inf)
    largest = max(reward_max, float(rewards.max()))
    return {"reward_max": largest, "return_bound": largest / (1 - discount)}


def _error(
    true: LinearizedPath, guess: LinearizedPath, skip: chains.Flags, scale: Array
) -> dict[str, Any]:
    """ln of |ΔJ| / |J| over [A B] in these units."""
    J, J_ = (np.concatenate([x.A.numpy(), x.B.numpy()], 3) for x in (true, guess))
    usable = (~skip & np.isfinite(J_).all((2, 3)))[..., None, None]
    error, size = (
        np.where(usable, (x * scale) ** 2, 0.0).sum((0, 2, 3))[:, None] for x in (J_ - J, J)
    )
    ratio = over_groups.root_ratio(error, size, np.array([usable.sum()]))
    value = float(ratio.value[0])
    if not value > 0:
        return {"jacobian_error": -np.inf, "jacobian_error_se": 0.0}
    se = float(ratio.se[0]) / value
    return {"jacobian_error": float(np.log(value)), "jacobian_error_se": se}


def _dead(linear: LinearizedPath) -> dict[str, Any]:
    """Actions that move neither state nor reward, at any state of the path."""
    moved = (linear.B != 0).any(dim=2).any(dim=0).any(dim=0)
    paid = (linear.r_a != 0).any(dim=0).any(dim=0)
    return {"dead_action": (~(moved | paid)).double().numpy()}


def _value(linear: LinearizedPath, critic: nn.Module | None) -> dict[str, Any]:
    if critic is None:
        return {}
    with torch.no_grad():
        value = judge(critic, "Q", linear.path.states[0], linear.path.actions[0])
    values = value.numpy()
    left_out = (values.sum() - values) / (len(values) - 1)
    return {"value": float(values.mean()), "value_se": jackknife_se(left_out)}
