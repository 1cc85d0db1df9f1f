"""Bias and variance on the task while training goes on: a small `measure` of copies.

    shared truth → data, model, mixed, true_dynamics by horizon → choice;   a fresh path of the
    simulator under the policy → Lyapunov exponent, the prior's Jacobian error, the critic's size

Each measurement draws starts and noise of its own from (seed, number of the update), so that rows
are independent given the policy. Its price is known before it is made: first from one step and one
linearization, then from the last measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from gradlab.assembly import assembled, configuration, truth_values
from gradlab.choice.best import best
from gradlab.choice.field import Field, field
from gradlab.choice.weights import pair_cells
from gradlab.data.noise import child
from gradlab.gradients.inner_products import estimator_moments
from gradlab.gradients.oracles import effective_horizon
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
)
from gradlab.gradients.starts import Starts
from gradlab.hooks import silent
from gradlab.judgement import growth_of, judged_estimator
from gradlab.measurement import check_networks, estimators_at, starts_of
from gradlab.networks.interface import act
from gradlab.probe.measured_columns import CELLS, ENDS, STEPS
from gradlab.probe.quiet import doubled, undisturbed
from gradlab.probe.schema import ESTIMATORS
from gradlab.profile import Profile
from gradlab.shared_truth import shared_truth
from gradlab.statistics import chains, over_groups
from gradlab.statistics.intervals import Z, jackknife_se
from gradlab.statistics.mixing import mse_weights
from gradlab.statistics.moments import Array, combine
from gradlab.systems.ended import linearize_running, step_running
from gradlab.tasks import Task

STARTS = 64
LONGEST = 10  # horizon of the profile
CHECKS = 34.0  # rollouts of the simulator that a checked truth makes
MARGIN = 2.0  # times that, for estimators, choice and the path
REPEATS = 3


@dataclass(frozen=True)
class Question:
    """What is measured: a task and, for anything about gradients, the critic of its tail."""

    task: Task
    critic: nn.Module | None
    seed: int

    @property
    def horizon(self) -> int:
        return min(self.task.horizon, LONGEST)


def check(question: Question, policy: nn.Module) -> None:
    """Can the policy and the critic be measured on the task?

    Raises:
        InputError: names the network and what does not fit.
    """
    with undisturbed():
        critic = None if question.critic is None else doubled(question.critic)
        check_networks(question.task, doubled(policy), critic)


def first_price(
    question: Question, policy: nn.Module, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that a measurement will take, from a few single steps and linearizations.

    Running it on fewer starts would tell less: most of it is the truth's steps one after another,
    which cost about the same for any few starts.
    """
    task = question.task
    with undisturbed():
        copy = doubled(policy)
        begin = starts_of(task, STARTS, child(question.seed, "probe price"))
        noise = begin.policy_noise(copy, 0, 0)

        def step() -> None:
            with torch.no_grad():
                step_running(task.simulator, begin.states, act(copy, begin.states, noise), None)

        with torch.no_grad():
            action = act(copy, begin.states, noise)
        stepped = _seconds(step, clock)
        linearized = _seconds(
            lambda: linearize_running(task.simulator, begin.states, action, None), clock
        )
    return MARGIN * effective_horizon(task.discount) * (CHECKS * stepped + linearized)


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """The shortest of a few times: the first one also loads what is not loaded yet."""
    times = []
    for _ in range(REPEATS):
        begun = clock()
        work()
        times.append(clock() - begun)
    return min(times)


@dataclass(frozen=True)
class Past:
    """What earlier measurements have seen.

    Attributes:
        reward_max: the largest |reward|.
        scale: [ds, ds + da], σ_j/σ_i of the first path, by which Jacobian errors are scaled ever
            after: a new scale each time would look like a change of the model.
    """

    reward_max: float = 0.0
    scale: Array | None = None


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
        begin = starts_of(task, STARTS, seed)
        row: dict[str, Any] = {"starts": STARTS, "batch": batch}
        if critic is not None:
            profile = _profile(question, copy, critic, batch, seed)
            row |= _cells(profile, question.horizon) | _chosen(profile, batch)
            row |= _growth(profile) | _critic_gap(profile, question.horizon)
        linear = _path(task, copy, begin, seed)
        scale = _scale(linear) if past.scale is None else past.scale
        row |= _along(task, linear, critic, past.reward_max, scale)
        return row, Past(row["reward_max"], scale)


def _profile(
    question: Question, policy: nn.Module, critic: nn.Module, batch: int, seed: int
) -> Profile:
    """As `measure` has it, kernels included, without its checks and bounds."""
    task, H = question.task, question.horizon
    truth = shared_truth(task, policy, STARTS, H, batch, seed=seed)
    chosen = estimators_at(task, critic, None, H)
    found = estimator_moments(
        chosen, truth.policy, truth.begin, truth.reference, H, truth.termination, seed, silent
    )
    config = configuration(
        task, truth.policy, critic, truth.begin, H, batch, "matched", truth.termination, seed, ""
    )
    config |= {"actions": {name: each.actions for name, each in chosen.items()}}
    values = truth_values(truth.reference, "matched")
    profile = assembled(found.cells, H, batch, config, {}, values)
    return replace(profile, kernels=found.kernels)


def _cells(profile: Profile, horizon: int) -> dict[str, Any]:
    shape = (len(ESTIMATORS), horizon + 1)
    names = [*CELLS, *(f"{name}_{end}" for name in CELLS for end in ENDS), "bias2_se", "cosine_se"]
    row = {name: np.full(shape, np.nan) for name in names}
    for e, name in enumerate(ESTIMATORS):
        if name not in profile.estimators:
            continue
        at = profile.estimators.index(name)
        for quantity in CELLS:
            q = profile.quantities.index(quantity)
            row[quantity][e] = profile.columns["value"][at, q]
            for end in ENDS:
                row[f"{quantity}_{end}"][e] = profile.columns[f"ci_{end}"][at, q]
            if f"{quantity}_se" in row:
                row[f"{quantity}_se"][e] = profile.columns["se"][at, q]
    if not profile.truth["admissible"]:
        for name in names:
            if name.split("_")[0] not in ("variance", "snr", "mean"):
                row[name][:] = np.nan
    return row | {"truth_norm": float(profile.truth.get("norm", np.nan))}


def _chosen(profile: Profile, batch: int) -> dict[str, Any]:
    """The parts of `gradlab.choose` that a running loop can use; the rest costs more than these."""
    if not profile.truth["admissible"]:
        return {}
    among = field(profile, None)
    found = best(profile, among, "mse")
    if found is None:
        return {}
    name, horizon = found.cell
    kept = [h for _, h in found.kept]
    row = {
        "chosen_estimator": ESTIMATORS.index(name),
        "chosen_horizon": horizon,
        "kept_low": min(kept),
        "kept_high": max(kept),
    }
    return row | _pair(profile, among, batch)


def _pair(profile: Profile, among: Field, batch: int) -> dict[str, float]:
    """MPG's two: horizon 0 and the longest one, weighed by their measured errors."""
    two = pair_cells(profile, among)
    if among.kernels is None or len(two) < 2:
        return {}
    weights = mse_weights(among.kernels.grams(two), batch)
    names = ("weight_zero", "weight_zero_low", "weight_zero_high")
    found = (weights.share[0], weights.low[0], weights.high[0])
    return {name: float(value) for name, value in zip(names, found, strict=True)}


def _growth(profile: Profile) -> dict[str, Any]:
    name = judged_estimator(profile)
    found = None if name is None else growth_of(profile, name)
    if found is None:
        return {}
    return {
        "growth": found.slope,
        "growth_se": (found.high - found.low) / (2 * Z),
        "growth_evidence": found.evidence,
    }


def _critic_gap(profile: Profile, horizon: int) -> dict[str, Any]:
    """How far the critic's bias exceeds half of the model gradient's, paired."""
    if "model" not in profile.estimators or not profile.truth["admissible"]:
        return {}
    critic, model = (
        profile.estimate(name, "bias2", horizon) for name in ("true_dynamics", "model")
    )
    gap = combine(lambda of_critic, whole: of_critic - whole / 2, critic, model)
    return {"critic_gap": gap.value, "critic_gap_se": jackknife_se(gap.left_out)}


def _path(task: Task, policy: nn.Module, begin: Starts, seed: int) -> LinearizedPath:
    path, K = rollout_with_jacobians(task.simulator, policy, begin, STEPS, seed)
    return linearize_path(path, task.simulator, K, path.dynamics_noise)


def _along(
    task: Task,
    linear: LinearizedPath,
    critic: nn.Module | None,
    reward_max: float,
    scale: Array,
) -> dict[str, Any]:
    A, B, K = (each.numpy() for each in (linear.A, linear.B, linear.K[:-1]))
    skip = linear.flags.numpy() | ~np.isfinite(A).all((2, 3)) | ~np.isfinite(B).all((2, 3))
    logs = chains.log_singular_values(A + B @ K, skip)
    rate = over_groups.mean(chains.exponents(logs, skip)[:, :1])
    exponent = float(rate.value[0])
    rewards = linear.path.rewards.abs().nan_to_num(nan=torch.inf)
    largest = max(reward_max, float(rewards.max()))
    row = {
        "lyapunov": exponent,
        "lyapunov_se": float(rate.se[0]),
        "lyapunov_horizon": 1 / exponent if exponent > 0 else np.inf,
        "reward_max": largest,
        "return_bound": largest / (1 - task.discount),
    }
    differentiated = linear
    if task.prior is not None:
        xi = jacobian_noise(task.simulator, task.prior, linear.path)
        differentiated = linearize_path(linear.path, task.prior, linear.K, xi)
        row |= _jacobian_error(linear, differentiated, skip, scale)
    return row | _dead(differentiated) | _value(linear, critic)


def _scale(linear: LinearizedPath) -> Array:
    """Every state and action in its standard deviations along the path, [ds, ds + da]."""
    states, actions = (
        values[:-1].flatten(0, 1).numpy().std(0)
        for values in (linear.path.states, linear.path.actions)
    )
    rows, columns = (np.where(x > 0, x, 1.0) for x in (states, np.concatenate([states, actions])))
    return np.asarray(columns / rows[:, None])


def _jacobian_error(
    true: LinearizedPath, guess: LinearizedPath, skip: chains.Flags, scale: Array
) -> dict[str, Any]:
    """ln of |ΔJ| / |J| over [A B] in these units."""
    J, J_ = (np.concatenate([x.A.numpy(), x.B.numpy()], 3) for x in (true, guess))
    usable = (~skip & np.isfinite(J_).all((2, 3)))[..., None, None]
    error, size = (
        np.where(usable, (x * scale) ** 2, 0.0).sum((0, 2, 3))[:, None] for x in (J_ - J, J)
    )
    found = over_groups.root_ratio(error, size, np.array([usable.sum()]))
    value = float(found.value[0])
    if not value > 0:
        return {"jacobian_error": -np.inf, "jacobian_error_se": 0.0}
    se = float(found.se[0]) / value
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
        value = critic(linear.path.states[0], linear.path.actions[0]).numpy()
    total = value.sum()
    left_out = (total - value) / (len(value) - 1)
    return {"value": float(value.mean()), "value_se": jackknife_se(left_out)}
