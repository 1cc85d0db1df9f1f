"""From estimators to the inner products that every statistic is made of.

First-action gradients are J_iᵀ g_i with one J for everybody, so the Gram kernel Θ = J Jᵀ turns
all estimators and all horizons into inner products at once; no gradient of the size of θ is formed.
Gradients with θ in every action are explicit, some samples at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.gradients import gram
from gradlab.gradients.carried import carried, path_with_jacobians
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.first_action import action_gradients
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    tail_gradient,
)
from gradlab.gradients.starts import Starts
from gradlab.gradients.truth import Truth
from gradlab.hooks import Progress
from gradlab.statistics.moments import Moments, PairSums
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System

Floats = NDArray[np.float64]
Cells = dict[tuple[str, int], Moments]
SAMPLES = 128  # whose explicit gradients are held at once


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
    first = first_action_gradients(chosen, policy, begin, horizon, seed, termination, progress)
    T = None if truth.every is None else truth.every.gradients
    cells: Cells = {}
    for done, (name, estimator) in enumerate(chosen.items()):
        if estimator.actions == "first":
            continue
        progress("estimators", done, len(chosen))
        for n, moments in _explicit_moments(estimator, policy, begin, T, seed, termination).items():
            cells[name, n] = moments
    cells |= _kernel_moments(chosen, first, policy, begin, truth, seed)
    progress("estimators", len(chosen), len(chosen))
    return {key: cells[key] for name in chosen for key in cells if key[0] == name}


def first_action_gradients(
    chosen: Mapping[str, Estimator],
    policy: nn.Module,
    begin: Starts,
    horizon: int,
    seed: int,
    termination: str,
    progress: Progress,
) -> dict[str, Tensor]:
    """g_0 … g_n of every estimator with actions "first", [n + 1, N, da], weights not included."""
    paths: dict[int, tuple[Path, Tensor]] = {}
    linear: dict[tuple[int, int], LinearizedPath] = {}
    found: dict[str, Tensor] = {}
    for done, (name, estimator) in enumerate(chosen.items()):
        if estimator.actions != "first":
            continue
        progress("estimators", done, len(chosen))
        along = _linearized(estimator, policy, begin, horizon, seed, termination, paths, linear)
        tail = tail_gradient(along.path, estimator.tail.critic, estimator.tail.value, termination)
        last = estimator.tail.horizon
        found[name] = action_gradients(along, tail, estimator.tail.discount)[: last + 1]
    return found


def _linearized(
    estimator: Estimator,
    policy: nn.Module,
    begin: Starts,
    horizon: int,
    seed: int,
    termination: str,
    paths: dict[int, tuple[Path, Tensor]],
    linear: dict[tuple[int, int], LinearizedPath],
) -> LinearizedPath:
    """The estimator's path and Jacobians, shared between estimators that have them in common."""
    states = estimator.states
    jacobians: System = states if estimator.jacobians is None else estimator.jacobians
    if id(states) not in paths:
        # A rollout is shared, and so as long as the longest horizon; a recording is its own.
        length = estimator.tail.horizon if isinstance(states, Recorded) else horizon
        paths[id(states)] = path_with_jacobians(states, policy, begin, length, seed)
    key = id(states), id(jacobians)
    if key not in linear:
        path, K = paths[id(states)]
        noise = jacobian_noise(states, jacobians, path)
        linear[key] = linearize_path(path, jacobians, K, noise, termination)
    return linear[key]


def horizons_of(estimator: Estimator) -> range:
    """The horizons at which an estimator has a gradient."""
    return range(first_horizon(estimator), estimator.tail.horizon + 1)


def _kernel_moments(
    chosen: Mapping[str, Estimator],
    first: Mapping[str, Tensor],
    policy: nn.Module,
    begin: Starts,
    truth: Truth,
    seed: int,
) -> Cells:
    """Moments of all first-action estimators by one pass over the Gram kernel."""
    keys = [(name, n) for name in first for n in horizons_of(chosen[name])]
    if not keys:
        return {}
    noise = begin.policy_noise(policy, seed, 0)
    jacobian = policy_jacobian(policy, begin.states, noise)
    G = torch.stack([first[name][n] for name, n in keys]) * begin.weight[:, None]
    label, size = grouping(begin)
    squares = by_group(gram.squared_norms(jacobian, G), label)
    if truth.first is None:
        total, within = gram.products(jacobian, G, begin.group)
        gradient = pair_sums(G, total, within, G, total, label)
        return {key: Moments(size, squares[k], row(gradient, k)) for k, key in enumerate(keys)}
    T = (truth.first.gradients * begin.weight[:, None])[None]
    Y, parts = G - T, (len(G), len(G), 1)
    products = gram.products(jacobian, torch.cat([G, Y, T]), begin.group)  # Θ is formed once
    (total, total_y, total_t), (within, within_y, within_t) = (
        torch.split_with_sizes(each, parts) for each in products
    )
    gradient = pair_sums(G, total, within, G, total, label)
    difference = pair_sums(Y, total_y, within_y, Y, total_y, label)
    reference = pair_sums(T, total_t, within_t, T, total_t, label)
    cross = pair_sums(G, total_t, within_t, T, total, label)
    cells = {}
    for k, key in enumerate(keys):
        pairs = (row(gradient, k), row(reference, 0), row(difference, k), row(cross, k))
        cells[key] = Moments(size, squares[k], *pairs)
    return cells


def pair_sums(
    X: Tensor, total_z: Tensor, within_z: Tensor, Z: Tensor, total_x: Tensor, label: Tensor
) -> PairSums:
    """Pair sums of X with Z from Θ Z (over everybody, over one's group) and Θ X, [K, G] each."""
    own, left, right = (
        by_group((a * b).sum(dim=2), label) for a, b in ((X, within_z), (X, total_z), (Z, total_x))
    )
    return PairSums(own, left, right)


def row(sums: PairSums, k: int) -> PairSums:
    """One of K pairs."""
    return PairSums(sums.own[k], sums.left[k], sums.right[k])


def _explicit_moments(
    estimator: Estimator,
    policy: nn.Module,
    begin: Starts,
    T: Tensor | None,
    seed: int,
    termination: str,
) -> dict[int, Moments]:
    """Moments of every horizon from explicit gradients, some samples at a time.

    A first pass sums gradients and their inner products within groups, a second one takes each
    group's products with the sums; only sums of all horizons [K, P] are kept.
    """
    horizons = tuple(horizons_of(estimator))
    blocks = list(_group_blocks(begin.group))

    def gradients(rows: slice) -> Iterator[tuple[int, Tensor, Tensor]]:
        found = carried(estimator, policy, begin.block(rows), horizons, seed, termination)
        label = grouping(begin.block(rows))[0]
        for k in range(len(horizons)):
            yield k, gram.path_gradients(found.jacobian, found.costates[k]), label

    P = sum(p.numel() for p in policy.parameters())
    sums = begin.states.new_zeros(len(horizons), P)
    squares: list[list[Tensor]] = [[] for _ in horizons]
    for rows in blocks:
        for k, G, label in gradients(rows):
            sums[k] += G.sum(dim=0)
            squares[k].append(group_sums((G * G).sum(dim=1, keepdim=True), label)[:, 0])
    truth_sum = None if T is None else T.sum(dim=0)
    pairs: list[list[list[PairSums]]] = [[] for _ in horizons]
    for rows in blocks:
        for k, G, label in gradients(rows):
            g = group_sums(G, label)
            found = [_pairs(g, g, sums[k], sums[k])]
            if T is not None and truth_sum is not None:
                t, difference = group_sums(T[rows], label), sums[k] - truth_sum
                found += [
                    _pairs(t, t, truth_sum, truth_sum),
                    _pairs(g - t, g - t, difference, difference),
                    _pairs(g, t, sums[k], truth_sum),
                ]
            pairs[k].append(found)
    _, size = grouping(begin)
    return {
        n: Moments(size, torch.cat(squares[k]).numpy(), *_concatenated(pairs[k]))
        for k, n in enumerate(horizons)
    }


def _group_blocks(group: Tensor) -> Iterator[slice]:
    """Blocks of rows that cut no group in two; one block where labels are not in order."""
    change = torch.ones(len(group), dtype=torch.bool)
    change[1:] = group[1:] != group[:-1]
    starts = change.nonzero().flatten().tolist()
    if bool((group[1:] < group[:-1]).any()):
        yield slice(0, len(group))
        return
    begin = 0
    for edge in [*starts[1:], len(group)]:
        if edge - begin >= SAMPLES or edge == len(group):
            yield slice(begin, edge)
            begin = edge


def _pairs(x: Tensor, z: Tensor, sum_x: Tensor, sum_z: Tensor) -> PairSums:
    own, left, right = (x * z).sum(dim=1), x @ sum_z, z @ sum_x
    return PairSums(own.numpy(), left.numpy(), right.numpy())


def _concatenated(blocks: list[list[PairSums]]) -> list[PairSums]:
    return [
        PairSums(
            np.concatenate([each.own for each in kind]),
            np.concatenate([each.left for each in kind]),
            np.concatenate([each.right for each in kind]),
        )
        for kind in zip(*blocks, strict=True)
    ]


def grouping(begin: Starts) -> tuple[Tensor, Floats]:
    """Group labels 0 … G − 1 of the samples, and the size of each group."""
    _, label, size = np.unique(begin.group.numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(label), size.astype(np.float64)


def group_sums(x: Tensor, label: Tensor) -> Tensor:
    """[N, P] → [G, P], in the order of the labels."""
    if torch.equal(label, torch.arange(len(x))):
        return x
    return x.new_zeros(int(label.max()) + 1, x.shape[1]).index_add_(0, label, x)


def by_group(values: Tensor, label: Tensor) -> Floats:
    """[K, N] → [K, G], in the order of the labels."""
    groups = int(label.max()) + 1
    result = values.new_zeros(values.shape[0], groups).index_add_(1, label, values)
    return np.asarray(result.detach().numpy(), dtype=np.float64)
