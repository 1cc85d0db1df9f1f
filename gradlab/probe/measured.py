"""Bias and variance on the task while training goes on: a small `measure` of copies.

    shared truth → data, model, mixed, true_dynamics by horizon → choice;   a fresh path of the
    simulator under the policy → Lyapunov exponent, the model's Jacobian error, the critic's size

Each measurement draws starts and noise of its own from (seed, number of the update), so that rows
are independent given the policy. Its price is known before it is made: `prices`, then from the last
measurement of its kind.

The truth is compared with finite differences, which is most of its price, in measurements number
1, 2, 4, 8, …, and in each that follows a truth which did not stand. What they can find, Jacobians
of the simulator that are not those of its steps, is a matter of the simulator around the states
that are visited, and these move little between two measurements.

Columns of "measured" from one fresh path of the simulator under the policy.

A, B of the simulator → growth of ∂s_t/∂s_0 = M_{t−1} ⋯ M_0;   A, B of the model in use (the
prior, learned or not; else the simulator) → error, lost and dead entries;   rewards, critic

Jacobians that are not finite in a few states: how many, where first, and what is next to it.

A user who masks such states wants to know what share of the batch goes with them, and whether a
contact or a limit makes them; who repairs them wants the state, and one beside it that works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.noise import child
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
)
from gradlab.gradients.start_laws import visitation
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.assembly import shared_truth
from gradlab.measurement.problem import starts_of
from gradlab.networks.mlp import judge
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.probe.measured_profile import gradients, rounding
from gradlab.probe.task_question import Past, Question
from gradlab.runs.probe.measured_columns import STEPS
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.statistics import chains, over_groups
from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Array
from gradlab.tasks import Task

_Flags = NDArray[np.bool_]


def _lost(linear: LinearizedPath, simulator_flags: Tensor) -> dict[str, Any]:
    """Counts over all states of the path, and the first loss in words.

    Args:
        linear: with the Jacobians of the model in use; simulator_flags: [H, N], where the
            simulator's certificate failed.
    """
    J = np.concatenate([linear.A.numpy(), linear.B.numpy()], 3)
    rewards = np.concatenate([linear.r_s.numpy(), linear.r_a.numpy()], 2)
    bad = ~(np.isfinite(J).all((2, 3)) & np.isfinite(rewards).all(2))
    flagged = linear.flags.numpy() | simulator_flags.numpy()
    return {
        "jacobian_states": bad.size,
        "jacobian_nonfinite": int(bad.sum()),
        "jacobian_flagged": int(flagged.sum()),
        "starts_lost": int(bad.any(0).sum()),
        "nonfinite_where": _where(linear.path.states.numpy(), J, bad, flagged),
    }


def _where(states: Array, J: Array, bad: _Flags, flagged: _Flags) -> str:
    """The first loss; empty where there is none."""
    if not bad.any():
        return ""
    step, start = (int(each) for each in np.argwhere(bad)[0])
    place = f"first at step {step} of start {start}"
    if not np.isfinite(states[step, start]).all():
        coordinate = int(np.flatnonzero(~np.isfinite(states[step, start]))[0])
        return f"{place}, where coordinate {coordinate} of the state itself is not finite"
    entry = np.argwhere(~np.isfinite(J[step, start]))
    what, ds = "∂r", J.shape[2]
    if len(entry):
        row, column = entry[0]
        what = f"∂s′{row}/∂{f's{column}' if column < ds else f'a{column - ds}'}"
    contact = ", its certificate flagged (contact or limit)" if flagged[step, start] else ""
    return f"{place}, {what}{contact}{_nearest(states, bad, step, start)}"


def _nearest(states: Array, bad: _Flags, step: int, start: int) -> str:
    """The closest state whose Jacobians are finite, in spreads of the states."""
    rows = states[: len(bad)]
    sound = ~bad & np.isfinite(rows).all(2)
    if not sound.any():
        return ""
    spread = rows[sound].std(0)
    gaps = (rows[sound] - rows[step, start]) / np.where(spread > 0, spread, 1.0)
    distance = np.sqrt((gaps**2).mean(1))
    t, n = np.argwhere(sound)[distance.argmin()]
    return (
        f"; finite at step {t} of start {n}, {distance.min():.2g} standard deviations of the "
        f"states away"
    )


_FLOAT32 = float(np.log(np.finfo(np.float32).max))


def _along(
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
    rewards = linear.path.rewards.abs().nan_to_num(nan=torch.inf)
    largest = max(reward_max, float(rewards.max()))
    row = _growth(A + B @ K, skip)
    row |= {"reward_max": largest, "return_bound": largest / (1 - task.discount)}
    model = linear
    if task.prior is not None:
        # Along the simulator's path, at the noise that explains it.
        noise = jacobian_noise(task.simulator, task.prior, linear.path)
        model = linearize_path(linear.path, task.prior, linear.K, noise)
        row |= _error(linear, model, skip, scale)
    # Actions that move neither state nor reward, at any state of the path.
    moved = (model.B != 0).any(dim=2).any(dim=0).any(dim=0)
    paid = (model.r_a != 0).any(dim=0).any(dim=0)
    row |= _lost(model, linear.flags) | {"dead_action": (~(moved | paid)).double().numpy()}
    return row | _value(linear, critic)


def _units(linear: LinearizedPath) -> Array:
    """Every state and action in its standard deviations along the path, [ds, ds + da]."""
    states, actions = (
        values[:-1].flatten(0, 1).numpy().std(0)
        for values in (linear.path.states, linear.path.actions)
    )
    rows, columns = (np.where(x > 0, x, 1.0) for x in (states, np.concatenate([states, actions])))
    return np.asarray(columns / rows[:, None])


def _growth(M: Array, skip: chains.Flags) -> dict[str, Any]:
    """Exponent, norm and condition of the products of M [H, N, ds, ds]."""
    logs = chains.log_singular_values(M, skip)
    rate = over_groups.mean(chains.exponents(logs, skip)[:, :1])
    exponent = float(rate.value[0])
    with np.errstate(invalid="ignore"):
        norm, spread = logs[:, :, 0].mean(1), np.median(logs[-1, :, 0] - logs[-1, :, -1])
    beyond = (_FLOAT32 - norm[-1]) / exponent if exponent > 0 else np.inf
    return {
        "lyapunov": exponent,
        "lyapunov_se": float(rate.se[0]),
        "lyapunov_horizon": 1 / exponent if exponent > 0 else np.inf,
        "chain_norm": norm / np.log(10),
        "chain_condition": float(spread / np.log(10)),
        "tenfold": float(np.log(10) / exponent) if exponent > 0 else np.inf,
        "float32_step": float(np.ceil(len(M) + beyond)),
    }


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


def _value(linear: LinearizedPath, critic: nn.Module | None) -> dict[str, Any]:
    if critic is None:
        return {}
    with torch.no_grad():
        value = judge(critic, "Q", linear.path.states[0], linear.path.actions[0])
    values = value.numpy()
    left_out = (values.sum() - values) / (len(values) - 1)
    return {"value": float(values.mean()), "value_se": jackknife_se(left_out)}


STARTS = 64
_SOUND = ("converged", "imprecise")


def measured(
    question: Question, policy: nn.Module, batch: int, update: int, past: Past
) -> tuple[dict[str, Any], Past]:
    """One row of the table "measured", and what the next one has to know.

    Args:
        batch: N′ of the loop's own batches.
    """
    with undisturbed():
        task, seed = question.task, child(question.seed, f"probe {update}")
        copy = doubled(policy)
        critic = None if question.critic is None else doubled(question.critic)
        row: dict[str, Any] = {"starts": STARTS, "batch": batch, "discount": task.discount}
        sound = True
        if critic is not None:
            # Where updates take their gradients: the matched truth there is that of the return.
            states = visitation(task, copy, STARTS, seed)
            truth = shared_truth(
                task, copy, states, question.horizon, batch, seed=seed, check=past.checks
            )
            sound = truth.reference.status in _SOUND
            chosen = estimators_at(truth.task, critic, None, question.horizon)
            row |= gradients(truth, chosen, ESTIMATORS)
            if past.checks:
                row |= rounding(truth, chosen)
        starts = starts_of(task, STARTS, seed)
        path, K = rollout_with_jacobians(task.simulator, copy, starts, STEPS, seed)
        linear = linearize_path(path, task.simulator, K, path.dynamics_noise)
        scale = _units(linear) if past.scale is None else past.scale
        row |= _along(task, linear, critic, past.reward_max, scale)
        return row, Past(row["reward_max"], scale, past.count + 1, sound)
