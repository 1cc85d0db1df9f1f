"""Bias and variance on the task while training goes on: a small `measure` of copies.

    shared truth → data, model, mixed, true_dynamics by horizon → choice;   a fresh path of the
    simulator under the policy → Lyapunov exponent, the model's Jacobian error, the critic's size

Each draws starts and noise of its own from (seed, number of the update). The truth is compared with
finite differences, most of the time, in measurements 1, 2, 4, 8, … and after a truth that did not
stand: the simulator around the states that are visited changes little between two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.choice.best import Candidates, best, candidates
from gradlab.choice.weights import pair_cells
from gradlab.data.trajectories import child
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import (
    Trajectory,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
)
from gradlab.gradients.start_laws import visitation
from gradlab.measurement.arguments import estimators_at
from gradlab.measurement.assembly import SharedTruth, shared_truth
from gradlab.measurement.resolve import starts_of
from gradlab.networks.mlp import judge
from gradlab.probe.arguments import Past, Question
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.runs.decision_rules import growth_of, judged_estimator
from gradlab.runs.probe.schema import CELLS, ENDS, ESTIMATORS, STEPS
from gradlab.runs.profile import Profile
from gradlab.statistics import chains, over_groups
from gradlab.statistics.comparison import log_ratio
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.statistics.mixing import mixture_weights
from gradlab.statistics.moments import Array, combine
from gradlab.tasks import Task


def _lost(linear: Trajectory, simulator_flags: Tensor) -> dict[str, Any]:
    """Counts over all states of the path, and the first loss in words.

    Args:
        linear: with the Jacobians of the model in use; simulator_flags: [H, N], where the
            simulator's certificate failed.
    """
    J = np.concatenate([linear.A.numpy(), linear.B.numpy()], 3)
    rewards = np.concatenate([linear.r_s.numpy(), linear.r_a.numpy()], 2)
    bad = ~(np.isfinite(J).all((2, 3)) & np.isfinite(rewards).all(2))
    where = ""
    if bad.any():
        step, start = (int(each) for each in np.argwhere(bad)[0])
        flagged = linear.flags[step, start] or simulator_flags[step, start]
        contact = ", its certificate flagged (contact or limit)" if flagged else ""
        where = f"first at step {step} of start {start}{contact}"
    return {
        "jacobian_states": bad.size, "jacobian_nonfinite": int(bad.sum()),
        "starts_lost": int(bad.any(0).sum()), "nonfinite_where": where,
    }  # fmt: skip


_FLOAT32 = float(np.log(np.finfo(np.float32).max))


def _along(
    task: Task, linear: Trajectory, critic: nn.Module | None, reward_max: float, scale: Array
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
    # Later rewards of a loop that grows are larger than any that was seen, by the square of its
    # growth where they are quadratic.
    growth = task.discount * float(np.exp(2 * max(row["lyapunov"], 0.0)))
    bound = largest / (1 - growth) if growth < 1 else np.inf
    row |= {"reward_max": largest, "return_bound": bound}
    model = linear
    if task.prior is not None:
        # Along the simulator's path, at the noise that explains it.
        noise = jacobian_noise(task.simulator, task.prior, linear.path)
        model = linearize_path(linear.path, task.prior, linear.K, noise)
        row |= _error(linear, model, skip, scale)
    return row | _lost(model, linear.flags) | _value(linear, critic)


def _units(linear: Trajectory) -> Array:
    """Every state and action in its standard deviations along the path, [ds, ds + da]."""
    states, actions = (
        values[:-1].flatten(0, 1).numpy().std(0)
        for values in (linear.path.states, linear.path.actions)
    )
    rows, columns = (np.where(x > 0, x, 1.0) for x in (states, np.concatenate([states, actions])))
    return np.asarray(columns / rows[:, None])


def _growth(M: Array, skip: chains.Flags) -> dict[str, Any]:
    """Exponent and norm of the products of M [H, N, ds, ds]."""
    logs = chains.log_singular_values(M, skip)
    rate = over_groups.mean(chains.exponents(logs, skip)[:, :1])
    exponent = float(rate.value[0])
    with np.errstate(invalid="ignore"):
        norm = logs[:, :, 0].mean(1)
    beyond = (_FLOAT32 - norm[-1]) / exponent if exponent > 0 else np.inf
    return {
        "lyapunov": exponent,
        "lyapunov_se": float(np.hypot(rate.se[0], chains.swing(chains.second_half(norm)))),
        "chain_norm": norm / np.log(10),
        "float32_step": float(np.ceil(len(M) + beyond)),
    }


def _error(true: Trajectory, guess: Trajectory, skip: chains.Flags, scale: Array) -> dict[str, Any]:
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


def _value(linear: Trajectory, critic: nn.Module | None) -> dict[str, Any]:
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
        starts = starts_of(task, STARTS, seed)
        path, K = rollout_with_jacobians(task.simulator, copy, starts, STEPS, seed)
        linear = linearize_path(path, task.simulator, K, path.dynamics_noise)
        scale = _units(linear) if past.scale is None else past.scale
        row |= _along(task, linear, critic, past.reward_max, scale)
        return row, Past(row["reward_max"], scale, past.count + 1, sound)


_WITHOUT_TRUTH = ("variance", "snr", "mean_norm")


def gradients(
    truth: SharedTruth, chosen: Mapping[str, Estimator], names: Sequence[str]
) -> dict[str, Any]:
    """Everything that follows from bias and variance.

    Args:
        names: of the estimators, the first axis of cells.
    """
    profile = truth.profile(chosen, kernels=True)
    name, H, batch = judged_estimator(profile), truth.setting.horizon, truth.batch
    norm = float(profile.truth.get("norm", np.nan))
    lost = norm == 0 and profile.truth.get("standard_error") != 0  # in noise: no exact zero
    row = _cells(profile, names, H) | {
        "truth_norm": np.nan if lost else norm,
        "truth_checked": int(truth.reference.checked),
    }
    fit = None if name is None else growth_of(profile, name)
    if fit is not None:
        row["growth"], row["growth_se"] = fit.slope, (fit.high - fit.low) / (2 * Z)
        row["growth_evidence"] = fit.evidence
    if not profile.truth["admissible"]:
        return row
    row |= _chosen(profile, names, H, batch)
    if "model" in profile.estimators:
        # Excess of the critic's bias over half of the model gradient's, paired.
        critic, model = (profile.estimate(each, "bias2", H) for each in ("true_dynamics", "model"))
        gap = combine(lambda of_critic, whole: of_critic - whole / 2, critic, model)
        row |= {"critic_gap": gap.value, "critic_gap_se": jackknife_se(gap.left_out)}
    if name is None:
        return row
    if "data" in profile.estimators and H > 0:
        # Loss of the longest horizon against no derivative of any dynamics, paired.
        whole, data = profile.estimate(name, "mse", H), profile.estimate("data", "mse", 0)
        if (ratio := log_ratio(whole, data)) is not None:
            loss = float(np.log(whole.value / data.value))
            row |= {"over_data": loss, "over_data_se": ratio.se}
    return row


def _cells(profile: Profile, names: Sequence[str], horizon: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for quantity in CELLS:
        defined = profile.truth["admissible"] or quantity in _WITHOUT_TRUTH
        sources = [(quantity, "value"), *((f"{quantity}_{end}", f"ci_{end}") for end in ENDS)]
        for column, source in sources:
            row[column] = np.full((len(names), horizon + 1), np.nan)
            for e, name in enumerate(names):
                if defined and name in profile.estimators:
                    at = profile.estimators.index(name), profile.quantities.index(quantity)
                    row[column][e] = profile.columns[source][at]
    return row


def _chosen(profile: Profile, names: Sequence[str], horizon: int, batch: int) -> dict[str, Any]:
    among = candidates(profile, None)
    choice = best(profile, among.cells, "mse")
    if choice is None:
        return {}
    kept = np.zeros((len(names), horizon + 1))
    for name, h in choice.kept:
        kept[list(names).index(name), h] = 1.0
    horizons = [h for _, h in choice.kept]
    row = {
        "chosen_estimator": list(names).index(choice.cell[0]),
        "chosen_horizon": choice.cell[1],
        "kept_low": min(horizons),
        "kept_high": max(horizons),
        "kept": kept,
    }
    return row | _pair(profile, among, batch)


def _pair(profile: Profile, among: Candidates, batch: int) -> dict[str, float]:
    """MPG's two: horizon 0 and the longest one, weighed by their measured errors."""
    two = pair_cells(profile, among)
    if among.kernels is None or len(two) < 2:
        return {}
    weights = mixture_weights(among.kernels.grams(two), batch, "mse")
    names = ("weight_zero", "weight_zero_low", "weight_zero_high")
    values = (weights.share[0], weights.low[0], weights.high[0])
    return {name: float(value) for name, value in zip(names, values, strict=True)}
