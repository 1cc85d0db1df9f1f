"""From estimators to the inner products that every statistic is made of.

First-action gradients are J_iᵀ g_i with one J for everybody, so the Gram kernel Θ = J Jᵀ turns
all estimators and all horizons into inner products at once; no gradient of the size of θ is formed.
Gradients with θ in every action are explicit, one horizon at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator, all_action_gradients
from gradlab.gradients.first_action import action_gradients
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    Starts,
    jacobian_noise,
    linearize_path,
    policy_noise_at,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.truth import Truth
from gradlab.hooks import Progress
from gradlab.statistics.moments import Moments, PairSums
from gradlab.systems.system import System

Floats = NDArray[np.float64]
Cells = dict[tuple[str, int], Moments]


def estimator_moments(
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
    paths: dict[int, tuple[Path, Tensor]] = {}
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
            T = None if truth.every is None else truth.every.gradients
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
    paths: dict[int, tuple[Path, Tensor]],
    linear: dict[tuple[int, int], LinearizedPath],
) -> LinearizedPath:
    """The estimator's path and Jacobians, shared between estimators that have them in common."""
    states = estimator.states
    jacobians: System = states if estimator.jacobians is None else estimator.jacobians
    if id(states) not in paths:
        paths[id(states)] = rollout_with_jacobians(states, policy, begin, horizon, seed)
    key = id(states), id(jacobians)
    if key not in linear:
        path, K = paths[id(states)]
        noise = jacobian_noise(states, jacobians, path)
        linear[key] = linearize_path(path, jacobians, K, noise)
    return linear[key]


def _horizons(estimator: Estimator) -> range:
    """Horizons of an estimator: no n = 0 where that would leave no θ to differentiate."""
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
    jacobian = policy_jacobian(policy, begin.states, noise)
    G = torch.stack([first[name][n] for name, n in keys]) * begin.weight[:, None]
    label, size = _groups(begin)
    squares = _by_group(gram.squared_norms(jacobian, G), label)
    total, within = gram.products(jacobian, G, begin.group)
    gradient = _pair_sums(G, total, within, G, total, label)
    if truth.first is None:
        return {key: Moments(size, squares[k], _row(gradient, k)) for k, key in enumerate(keys)}
    T = (truth.first.gradients * begin.weight[:, None])[None]
    Y = G - T
    total_y, within_y = gram.products(jacobian, Y, begin.group)
    total_t, within_t = gram.products(jacobian, T, begin.group)
    difference = _pair_sums(Y, total_y, within_y, Y, total_y, label)
    reference = _pair_sums(T, total_t, within_t, T, total_t, label)
    cross = _pair_sums(G, total_t, within_t, T, total, label)
    cells = {}
    for k, key in enumerate(keys):
        pairs = (_row(gradient, k), _row(reference, 0), _row(difference, k), _row(cross, k))
        cells[key] = Moments(size, squares[k], *pairs)
    return cells


def _pair_sums(
    X: Tensor, total_z: Tensor, within_z: Tensor, Z: Tensor, total_x: Tensor, label: Tensor
) -> PairSums:
    """Pair sums of X with Z from Θ Z (over everybody, over one's group) and Θ X, [K, G] each."""
    own, left, right = (
        _by_group((a * b).sum(dim=2), label) for a, b in ((X, within_z), (X, total_z), (Z, total_x))
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
    _, label, size = np.unique(begin.group.numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(label), size.astype(np.float64)


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
