"""Bias and variance of policy gradients over every horizon: the measurement itself.

All estimators see the same starts and the same noise streams. First-action gradients are J_iᵀ g_i
with one J for everybody, so the Gram kernel Θ = J Jᵀ turns all of them, for every horizon, into
inner products at once; no gradient of the size of θ is formed.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab import provenance, records
from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.estimator import TERMINATIONS, Estimator, Tail, all_action_gradients
from gradlab.gradients.first_action import action_gradients
from gradlab.gradients.rollout import (
    LinearizedPath,
    Starts,
    as_starts,
    jacobian_noise,
    linearize_path,
    policy_noise_at,
    rollout,
    tail_gradient,
)
from gradlab.gradients.truth import Truth, matched_truth
from gradlab.hooks import Progress, silent
from gradlab.networks.interface import check_critic, check_policy
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import QUANTITIES, Estimate, Moments, PairSums, estimates
from gradlab.systems.system import System
from gradlab.tasks import Task

Floats = NDArray[np.float64]
COLUMNS = ("value", "se", "ci_low", "ci_high")


@dataclass(frozen=True, eq=False)
class Profile:
    """What `measure` found, as labelled arrays; needs no torch to be read.

    Attributes:
        estimators, quantities, horizons: the labels of the axes [E, Q, H + 1].
        columns: value, se, ci_low, ci_high, each [E, Q, H + 1]; NaN where not measured.
        count: samples behind each cell, [E, Q, H + 1]; 0 where not measured.
        method: how the interval was made, [E, Q, H + 1].
        left_out: each value with one group of starts left out, [E, Q, H + 1, G].
        config: what was asked for; environment: what it ran on; truth: `Truth` as plain values.
    """

    estimators: tuple[str, ...]
    quantities: tuple[str, ...]
    horizons: tuple[int, ...]
    columns: Mapping[str, Floats]
    count: NDArray[np.int64]
    method: NDArray[Any]
    left_out: Floats
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    truth: Mapping[str, Any]

    @property
    def batch(self) -> int:
        return int(self.config["batch"])

    def table(self) -> pd.DataFrame:
        """One row per estimator, horizon and quantity that was measured."""
        rows = [
            (estimator, horizon, quantity, e, q, h)
            for e, estimator in enumerate(self.estimators)
            for h, horizon in enumerate(self.horizons)
            for q, quantity in enumerate(self.quantities)
            if self.count[e, q, h]
        ]
        e, q, h = (np.array([row[k] for row in rows], dtype=int) for k in (3, 4, 5))
        return pd.DataFrame(
            {
                "estimator": [row[0] for row in rows],
                "horizon": [row[1] for row in rows],
                "quantity": [row[2] for row in rows],
                **{name: self.columns[name][e, q, h] for name in COLUMNS},
                "n": self.count[e, q, h],
                "method": [str(each) for each in self.method[e, q, h]],
            }
        )

    def estimate(self, estimator: str, quantity: str, horizon: int) -> Estimate:
        """One value with its left-out values, for statistics across cells."""
        cell = (
            self.estimators.index(estimator),
            self.quantities.index(quantity),
            self.horizons.index(horizon),
        )
        return Estimate(float(self.columns["value"][cell]), self.left_out[cell])

    def save(self, path: str | FilePath, overwrite: bool = False) -> FilePath:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        records.write(path, _to_record(self), overwrite)
        return FilePath(path)


def load(path: str | FilePath) -> Profile:
    """The profile in a file written by `Profile.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or not of a measurement.
    """
    return _from_record(records.read(path), FilePath(path))


def measure(
    task: Task,
    policy: nn.Module,
    critic: nn.Module | None,
    estimators: Mapping[str, Estimator] | None = None,
    horizon: int | None = None,
    starts: int | Tensor | Path = 256,
    batch: int = 256,
    truth: Literal["matched"] = "matched",
    termination: Literal["ignore", "mask"] = "ignore",
    seed: int = 0,
    *,
    progress: Progress = silent,
    command: str = "",
) -> Profile:
    """Bias, variance and mean squared error of policy gradients for every horizon 0 … H.

    Args:
        task: simulator, prior model (or None), start law and discount.
        policy: module, state [N, ds] → action [N, da]; measured as a float64 copy.
        critic: module, (state, action) → [N]; used where `estimators` is not given.
        estimators: named estimators; the horizon of each tail is replaced by 0 … H. By default
            data (J_0), model (prior × prior), mixed (simulator × prior) and true_dynamics, all
            with actions="first".
        horizon: H; None for the task's own.
        starts: number of starts drawn from the task's law, or a tensor [N, ds], or a path.
        batch: N′ at which the mean squared error is stated.
        truth: "matched" (see `gradlab.gradients.truth`).
        termination: "ignore" model rollouts run on, or "mask" rewards after a terminal state.
        progress: called as progress(stage, done, total).
        command: recorded in the file, so that a reader can repeat the run.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    begun = time.monotonic()
    H = task.horizon if horizon is None else horizon
    _check_arguments(H, batch, truth, termination)
    policy = copy.deepcopy(policy).double()
    begin = _starts(task, starts, seed)
    check_policy(policy, begin.states, task.simulator.action_dim)
    chosen = _estimators(task, critic, estimators, H)
    for estimator in chosen.values():
        _check_estimator(estimator, task, begin)
    reference = matched_truth(
        task.simulator, policy, begin, task.discount, H,
        all_actions=any(each.actions == "all" for each in chosen.values()),
        termination=termination, seed=seed, progress=progress,
    )  # fmt: skip
    moments = _moments(chosen, policy, begin, reference, H, termination, seed, progress)
    config = _config(task, policy, critic, begin, H, batch, truth, termination, seed, command)
    environment = provenance.environment() | {
        "precision": "float64",
        "wall_seconds": f"{time.monotonic() - begun:.1f}",
    }
    return _profile(moments, H, batch, config, environment, _truth_values(reference))


def _check_arguments(horizon: int, batch: int, truth: str, termination: str) -> None:
    if not isinstance(horizon, int) or horizon < 0:
        raise InputError(f"horizon is {horizon!r}, expected an integer ≥ 0")
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}, expected an integer ≥ 1")
    if truth != "matched":
        raise InputError(f"truth is {truth!r}, expected 'matched'")
    if termination not in TERMINATIONS:
        raise InputError(f"termination is {termination!r}, expected one of {TERMINATIONS}")


def _starts(task: Task, starts: int | Tensor | Path, seed: int) -> Starts:
    if isinstance(starts, int):
        if starts < 4:
            raise InputError(f"starts is {starts}, expected at least 4: intervals leave starts out")
        starts = task.starts(starts, stream(seed, "starts"))
    if isinstance(starts, Path):
        begin = as_starts(starts, task.simulator.state_dim)
    else:
        begin = as_starts(torch.as_tensor(starts).double(), task.simulator.state_dim)
    begin = Starts(begin.states.double(), begin.weight.double(), begin.group)
    groups = len(begin.group.unique())
    if groups < 4:
        raise InputError(f"starts has {groups} groups, expected at least 4 independent ones")
    return begin


def _estimators(
    task: Task, critic: nn.Module | None, given: Mapping[str, Estimator] | None, horizon: int
) -> dict[str, Estimator]:
    """The estimators at horizon H, with float64 copies of their critics."""
    if given is not None:
        if not given:
            raise InputError("estimators is empty: name at least one, or leave it out")
        return {name: _lengthened(each, horizon) for name, each in given.items()}
    if critic is None:
        raise InputError("critic is None: give a critic, or estimators with tails of their own")
    tail = Tail(horizon, copy.deepcopy(critic).double(), task.discount)
    simulator, prior = task.simulator, task.prior
    chosen = {"data": Estimator(simulator, None, "first", replace(tail, horizon=0))}
    if prior is not None:
        chosen["model"] = Estimator(prior, prior, "first", tail)
        chosen["mixed"] = Estimator(simulator, prior, "first", tail)
    return chosen | {"true_dynamics": Estimator(simulator, simulator, "first", tail)}


def _lengthened(estimator: Estimator, horizon: int) -> Estimator:
    critic = None if estimator.tail.critic is None else copy.deepcopy(estimator.tail.critic).double()
    longest = 0 if estimator.jacobians is None else horizon
    return replace(estimator, tail=replace(estimator.tail, critic=critic, horizon=longest))


def _check_estimator(estimator: Estimator, task: Task, begin: Starts) -> None:
    if estimator.tail.discount != task.discount:
        raise InputError(
            f"an estimator's discount is {estimator.tail.discount}, the task's is {task.discount}: "
            f"their gradients differ in scale; use one discount"
        )
    if estimator.states.state_dim != task.simulator.state_dim:
        raise InputError(
            f"an estimator's states have state_dim {estimator.states.state_dim}, the task's "
            f"simulator has {task.simulator.state_dim}"
        )
    if estimator.tail.critic is not None:
        check_critic(
            estimator.tail.critic, estimator.tail.value, begin.states, task.simulator.action_dim
        )


# Inner products ----------------------------------------------------------------------------------

Cells = dict[tuple[str, int], Moments]


def _moments(
    chosen: Mapping[str, Estimator],
    policy: nn.Module,
    begin: Starts,
    truth: Truth,
    horizon: int,
    termination: str,
    seed: int,
    progress: Progress,
) -> Cells:
    """Moments of every estimator at every horizon it has."""
    paths: dict[int, Path] = {}
    linear: dict[tuple[int, int], LinearizedPath] = {}
    first: dict[str, Tensor] = {}
    cells: Cells = {}
    for done, (name, estimator) in enumerate(chosen.items()):
        progress("estimators", done, len(chosen))
        along = _linearized(estimator, policy, begin, horizon, seed, paths, linear)
        tail = tail_gradient(along.path, estimator.tail.critic, estimator.tail.value)
        if estimator.actions == "first":
            discount, last = estimator.tail.discount, estimator.tail.horizon
            first[name] = action_gradients(along, tail, discount, termination)[: last + 1]
            continue
        for n in _horizons(estimator):
            shape = replace(estimator.tail, horizon=n)
            G = all_action_gradients(policy, along, tail, shape, termination)
            T = None if truth.all_actions is None else truth.all_actions * begin.weight[:, None]
            cells[name, n] = _explicit_moments(G, T, begin)
    cells |= _kernel_moments(chosen, first, policy, begin, truth, seed)
    progress("estimators", len(chosen), len(chosen))
    return {key: cells[key] for name in chosen for key in cells if key[0] == name}


def _linearized(
    estimator: Estimator,
    policy: nn.Module,
    begin: Starts,
    horizon: int,
    seed: int,
    paths: dict[int, Path],
    linear: dict[tuple[int, int], LinearizedPath],
) -> LinearizedPath:
    """The estimator's path and Jacobians, shared between estimators that have them in common."""
    states = estimator.states
    jacobians: System = states if estimator.jacobians is None else estimator.jacobians
    if id(states) not in paths:
        paths[id(states)] = rollout(states, policy, begin, horizon, seed)
    key = id(states), id(jacobians)
    if key not in linear:
        path = paths[id(states)]
        noise = jacobian_noise(states, jacobians, path)
        linear[key] = linearize_path(path, jacobians, policy, noise)
    return linear[key]


def _horizons(estimator: Estimator) -> range:
    """Horizons of an estimator; without a Q critic and an attached tail action there is no n = 0."""
    tail = estimator.tail
    starts_at_zero = (
        tail.critic is not None
        and tail.value == "Q"
        and (estimator.actions == "first" or tail.terminal_action == "attached")
    )
    return range(0 if starts_at_zero else 1, tail.horizon + 1)


def _kernel_moments(
    chosen: Mapping[str, Estimator],
    first: Mapping[str, Tensor],
    policy: nn.Module,
    begin: Starts,
    truth: Truth,
    seed: int,
) -> Cells:
    """Moments of all first-action estimators by one pass over the Gram kernel."""
    keys = [(name, n) for name in first for n in _horizons(chosen[name])]
    if not keys:
        return {}
    noise = policy_noise_at(policy, len(begin.states), seed, 0, begin.states)
    jacobian = gram.policy_jacobian(policy, begin.states, noise)
    G = torch.stack([first[name][n] for name, n in keys]) * begin.weight[:, None]
    label, size = _groups(begin)
    squares = _by_group(gram.squared_norms(jacobian, G), label)
    total, within = gram.products(jacobian, G, begin.group)
    gradient = _pair_sums(G, total, within, G, total, label)
    if truth.first is None:
        return {key: Moments(size, squares[k], _row(gradient, k)) for k, key in enumerate(keys)}
    T = (truth.first * begin.weight[:, None])[None]
    Y = G - T
    total_y, within_y = gram.products(jacobian, Y, begin.group)
    total_t, within_t = gram.products(jacobian, T, begin.group)
    difference = _pair_sums(Y, total_y, within_y, Y, total_y, label)
    reference = _pair_sums(T, total_t, within_t, T, total_t, label)
    cross = _pair_sums(G, total_t, within_t, T, total, label)
    return {
        key: Moments(
            size, squares[k], _row(gradient, k), _row(reference, 0), _row(difference, k), _row(cross, k)
        )
        for k, key in enumerate(keys)
    }


def _pair_sums(
    X: Tensor, total_z: Tensor, within_z: Tensor, Z: Tensor, total_x: Tensor, label: Tensor
) -> PairSums:
    """Pair sums of X with Z from Θ Z (over everybody, over one's group) and Θ X, [K, G] each."""
    own, left, right = (
        _by_group((a * b).sum(dim=2), label)
        for a, b in ((X, within_z), (X, total_z), (Z, total_x))
    )
    return PairSums(own, left, right)


def _row(sums: PairSums, k: int) -> PairSums:
    return PairSums(sums.own[k], sums.left[k], sums.right[k])


def _explicit_moments(G: Tensor, T: Tensor | None, begin: Starts) -> Moments:
    """Moments of explicit per-sample gradients [N, P]."""
    label, size = _groups(begin)
    squares = _by_group((G * G).sum(dim=1)[None], label)[0]
    g = _group_sums(G, label)
    if T is None:
        return Moments(size, squares, _explicit_pairs(g, g))
    t = _group_sums(T, label)
    y = g - t
    pairs = (_explicit_pairs(g, g), _explicit_pairs(t, t), _explicit_pairs(y, y))
    return Moments(size, squares, *pairs, _explicit_pairs(g, t))


def _explicit_pairs(x: Tensor, z: Tensor) -> PairSums:
    own, left, right = (x * z).sum(dim=1), x @ z.sum(dim=0), z @ x.sum(dim=0)
    return PairSums(own.numpy(), left.numpy(), right.numpy())


def _groups(begin: Starts) -> tuple[Tensor, Floats]:
    """Group labels 0 … G − 1 of the samples, and the size of each group."""
    _, label, size = begin.group.unique(return_inverse=True, return_counts=True)
    return label, size.double().numpy()


def _group_sums(x: Tensor, label: Tensor) -> Tensor:
    groups = int(label.max()) + 1
    if groups == len(x):
        return x
    return x.new_zeros(groups, x.shape[1]).index_add_(0, label, x)


def _by_group(values: Tensor, label: Tensor) -> Floats:
    """[K, N] → [K, G]."""
    groups = int(label.max()) + 1
    result = values.new_zeros(values.shape[0], groups).index_add_(1, label, values)
    return np.asarray(result.detach().numpy(), dtype=np.float64)


# The profile -------------------------------------------------------------------------------------


def _profile(
    cells: Cells,
    horizon: int,
    batch: int,
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    truth: Mapping[str, Any],
) -> Profile:
    names = tuple(dict.fromkeys(name for name, _ in cells))
    groups = len(next(iter(cells.values())).size)
    shape = (len(names), len(QUANTITIES), horizon + 1)
    columns = {name: np.full(shape, np.nan) for name in COLUMNS}
    count = np.zeros(shape, dtype=np.int64)
    method = np.full(shape, "", dtype=object)
    left_out = np.full((*shape, groups), np.nan)
    for (name, n), moments in cells.items():
        for quantity, estimate in estimates(moments, batch).items():
            cell = names.index(name), QUANTITIES.index(quantity), n
            found = interval(quantity, estimate)
            numbers = (estimate.value, found.se, found.low, found.high)
            for column, number in zip(COLUMNS, numbers, strict=True):
                columns[column][cell] = number
            count[cell] = int(moments.size.sum())
            method[cell] = found.method
            left_out[cell] = estimate.left_out
    horizons = tuple(range(horizon + 1))
    return Profile(
        names, QUANTITIES, horizons, columns, count, method, left_out, config, environment, truth
    )


def _truth_values(truth: Truth) -> dict[str, Any]:
    values = {
        key: value
        for key, value in truth.__dict__.items()
        if isinstance(value, str | int | float | bool)
    }
    return {
        "kind": "matched",
        "method": "simulator unrolled with its own Jacobians, checked by finite differences",
        "admissible": truth.admissible,
        **values,
    }


def _config(
    task: Task,
    policy: nn.Module,
    critic: nn.Module | None,
    begin: Starts,
    horizon: int,
    batch: int,
    truth: str,
    termination: str,
    seed: int,
    command: str,
) -> dict[str, Any]:
    return {
        "task": task.name,
        "task_parameters": dict(task.parameters),
        "policy_hash": provenance.network_hash(policy),
        "critic_hash": "" if critic is None else provenance.network_hash(critic),
        "horizon": horizon,
        "starts": len(begin.states),
        "groups": len(begin.group.unique()),
        "batch": batch,
        "discount": task.discount,
        "truth": truth,
        "termination": termination,
        "seed": seed,
        "command": command,
    }


AXES = ("estimator", "quantity", "horizon")


def _to_record(profile: Profile) -> records.Record:
    """One table "profile" over estimator, quantity, horizon, and the left-out values beside it."""
    text = np.array
    scales = {
        "estimator": records.Array(text(profile.estimators, dtype=object), ("estimator",)),
        "quantity": records.Array(text(profile.quantities, dtype=object), ("quantity",)),
        "horizon": records.Array(np.array(profile.horizons), ("horizon",), "steps"),
    }
    unit = "per quantity: gradient norm for mean_norm, its square for variance, bias2 and mse, 1 else"
    cells = {name: records.Array(profile.columns[name], AXES, unit) for name in COLUMNS}
    cells["n"] = records.Array(profile.count, AXES, "samples")
    cells["method"] = records.Array(profile.method, AXES)
    group = np.arange(profile.left_out.shape[3])
    jackknife = {
        **scales,
        "group": records.Array(group, ("group",)),
        "left_out": records.Array(profile.left_out, (*AXES, "group"), unit),
    }
    attributes: dict[str, records.Attribute] = {
        "kind": "profile",
        "command": str(profile.config.get("command", "")),
        "seed": int(profile.config.get("seed", 0)),
        "commit": profile.environment.get("commit", ""),
        "config": json.dumps(profile.config),
        "environment": json.dumps(profile.environment),
        "truth": json.dumps(profile.truth),
    }
    return records.Record(attributes, {"profile": scales | cells, "jackknife": jackknife})


def _from_record(record: records.Record, path: FilePath) -> Profile:
    try:
        if record.attributes["kind"] != "profile":
            raise InputError(f"{path} holds {record.attributes['kind']!r}, expected a measurement")
        table, jackknife = record.groups["profile"], record.groups["jackknife"]
        labels = [tuple(str(each) for each in table[name].values) for name in AXES[:2]]
        horizons = tuple(int(each) for each in table["horizon"].values)
        shape = (len(labels[0]), len(labels[1]), len(horizons))
        columns = {name: _floats(table[name], shape) for name in COLUMNS}
        groups = len(jackknife["group"].values)
        config, environment, truth = (
            _json_object(str(record.attributes[name])) for name in ("config", "environment", "truth")
        )
        return Profile(
            *labels, horizons, columns,
            np.asarray(table["n"].values, dtype=np.int64).reshape(shape),
            np.asarray(table["method"].values, dtype=object).reshape(shape),
            _floats(jackknife["left_out"], (*shape, groups)),
            config, {key: str(value) for key, value in environment.items()}, truth,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a complete measurement ({error}): make it again") from error


def _floats(array: records.Array, shape: tuple[int, ...]) -> Floats:
    return np.asarray(array.values, dtype=np.float64).reshape(shape)


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its configuration is not a JSON object")
    return value
