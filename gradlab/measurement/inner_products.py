"""Inner products of the estimators' gradients, from which every statistic is computed.

First-action gradients are J_iᵀ g_i with one J for everybody, so the Gram kernel Θ = J Jᵀ turns
all estimators and all horizons into inner products at once; no gradient of the size of θ is formed.
Gradients with θ in every action are added up some samples at a time (`measurement.accumulator`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.courses import Carried, TermRequest
from gradlab.gradients.estimator import Estimator, OtherCritics, first_horizon
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    action_gradients,
    tail_gradient,
)
from gradlab.gradients.setting import (
    Setting,
    Starts,
    by_group,
    grouping,
)
from gradlab.measurement.accumulator import accumulated
from gradlab.measurement.grams import (
    FOLDS,
    GramSource,
    Held,
    action_kernels,
    explicit_kernels,
    folds_of,
    kept_cells,
)
from gradlab.measurement.sketches import (
    Sketch,
    TrueSketch,
    grouped,
    jacobian_sketch,
    sketch_for,
    tails_and_signs,
    true_sketch,
)
from gradlab.progress import Progress, silent
from gradlab.statistics.grams import Kernels
from gradlab.statistics.moments import Moments, PairSums
from gradlab.truth.truth import Truth

Cells = dict[tuple[str, int], Moments]
_Means = dict[tuple[str, int], Tensor]


@dataclass(frozen=True, eq=False)
class Measured:
    """Moments of every cell, and for each truth what yields inner products between cells.

    Attributes:
        means: mean ascent gradient [P] of every cell over all samples, weights included.
        truth_mean: of the truth, the one with θ in every action where there are two; None where
            there is none.
        at: where gradients with θ in the first action were taken.
        starts: how many of the starts were used; visits: states visited from each, for gradients
            with θ in the first action.
    """

    cells: Cells
    kernels: tuple[Kernels, ...]
    means: _Means
    truth_mean: Tensor | None
    at: Starts
    starts: int
    visits: int = 1


def estimator_moments(
    chosen: Mapping[str, Estimator],
    setting: Setting,
    truth: Truth,
    progress: Progress = silent,
    other_critics: OtherCritics | None = None,
    batch: int = 256,
) -> Measured:
    """Moments of every estimator at every horizon it has, and their kernels.

    Args:
        other_critics: the same estimators with other critics, for the variance across critics.
        batch: N′ at which errors decide whose inner products are kept.
    """
    begin, horizon = setting.starts, setting.horizon
    other_critics = {} if other_critics is None else other_critics
    everyone = dict(chosen)
    for name, others in other_critics.items():
        everyone |= {_with_critic(name, k): estimator for k, estimator in enumerate(others)}
    first = first_action_gradients(everyone, setting, progress)
    cells, kernels, means, true = _kernel_moments(chosen, first, setting, truth, other_critics)
    explicit = {name: estimator for name, estimator in chosen.items() if name not in first}
    count = sum(1 + len(other_critics.get(name, ())) for name in explicit)
    held = Held(setting, count)
    in_every = explicit_cells(explicit, held, truth, progress, other_critics)
    cells, means = cells | in_every[0], means | in_every[1]
    if truth.every is not None:
        true = truth.every.gradients.mean(dim=0)
    if explicit:
        kept = kept_cells(in_every[0], horizon, len(explicit), batch)
        sources = explicit_sources(explicit, held, kept)
        T = None if truth.every is None else truth.every.gradients
        kernels.append(explicit_kernels("all", sources, begin, T))
    progress("estimators", len(chosen), len(chosen))
    ordered = {key: cells[key] for name in chosen for key in cells if key[0] == name}
    means = {key: means[key] for key in ordered}
    return Measured(ordered, tuple(kernels), means, true, begin, len(begin.states))


def explicit_cells(
    chosen: Mapping[str, Estimator],
    held: Held,
    truth: Truth,
    progress: Progress,
    other_critics: OtherCritics,
) -> tuple[Cells, _Means]:
    """Moments and means of estimators with θ in every action."""
    T = None if truth.every is None else truth.every.gradients
    policy, begin = held.setting.policy, held.setting.starts
    cells: Cells = {}
    means: _Means = {}
    for done, (name, estimator) in enumerate(chosen.items()):
        progress("estimators", done, len(chosen))
        several, horizons = (estimator, *other_critics.get(name, ())), tuple(horizons_of(estimator))

        def rows(
            some: slice,
            several: Sequence[Estimator] = several,
            horizons: tuple[int, ...] = horizons,
        ) -> list[Carried]:
            return [held.rows(one, some, horizons) for one in several]

        moments, mean = accumulated(rows, policy, begin, T, formed=len(several) > 1)
        keys = [(name, n) for n in horizons]
        cells |= dict(zip(keys, moments, strict=True))
        means |= dict(zip(keys, mean, strict=True))
    return cells, means


def explicit_sources(
    chosen: Mapping[str, Estimator], held: Held, kept: Collection[tuple[str, int]]
) -> list[GramSource]:
    """Their gradients at the horizons whose inner products are kept."""

    def source(name: str, estimator: Estimator) -> GramSource:
        horizons = tuple(n for n in horizons_of(estimator) if (name, n) in kept)
        rows = partial(held.rows, estimator, horizons=horizons)
        return GramSource(tuple((name, n) for n in horizons), rows)

    return [source(name, estimator) for name, estimator in chosen.items()]


def _with_critic(name: str, k: int) -> str:
    return f"{name}\0{k}"


def first_action_gradients(
    chosen: Mapping[str, Estimator], setting: Setting, progress: Progress = silent
) -> dict[str, Tensor]:
    """g_0 … g_n of every estimator with actions "first", [n + 1, N, da], weights not included."""
    asked = TermRequest(setting.policy, setting.starts, (), setting.seed, setting.termination)
    gradients: dict[str, Tensor] = {}
    for done, (name, estimator) in enumerate(chosen.items()):
        if estimator.way.every:
            continue
        progress("estimators", done, len(chosen))
        along, tail = asked.trajectory(estimator).linear, estimator.tail
        values = tail_gradient(along.path, tail.critic, tail.value, setting.termination)
        gradients[name] = action_gradients(along, values, tail.discount)
    return gradients


def horizons_of(estimator: Estimator) -> range:
    """The horizons at which an estimator has a gradient."""
    return range(first_horizon(estimator), estimator.tail.horizon + 1)


def _kernel_moments(
    chosen: Mapping[str, Estimator],
    first: Mapping[str, Tensor],
    setting: Setting,
    truth: Truth,
    other_critics: OtherCritics,
) -> tuple[Cells, list[Kernels], _Means, Tensor | None]:
    """Moments of all first-action estimators by one pass over the Gram kernel, and the means of
    their gradients and of the truth."""
    keys = [(name, n) for name in chosen if name in first for n in horizons_of(chosen[name])]
    if not keys:
        return {}, [], {}, None
    policy, begin = setting.policy, setting.starts
    noise = begin.policy_noise(policy, setting.seed, 0)
    jacobian = policy_jacobian(policy, begin.states, noise)
    weight = begin.weight[:, None]
    G = torch.stack([first[name][n] for name, n in keys]) * weight
    T = G[:0] if truth.first is None else (truth.first.gradients * weight)[None]
    D = [
        _across_critics(first, name, n, len(other_critics.get(name, ()))) * weight
        for name, n in keys
    ]
    parts = [len(G), len(T), *map(len, D)]
    every, fold = torch.cat([G, T, *D]), folds_of(begin)[0]
    folds, inside = gram.fold_products(jacobian, every, begin.group, fold, FOLDS)  # Θ formed once
    kept = len(G) + len(T)
    kernels = action_kernels(
        keys, every[:kept], folds[:, :kept], inside[:kept], gram.diagonal(jacobian), begin
    )
    total, within = (torch.split_with_sizes(part, parts) for part in (folds.sum(dim=0), inside))
    label, size = grouping(begin)
    squares = by_group(gram.squared_norms(jacobian, G), label)
    gradient = pair_sums(G, total[0], within[0], G, total[0], label)
    critics = [
        _mean_pairs(pair_sums(d, t, w, d, t, label))
        for d, t, w in zip(D, total[2:], within[2:], strict=True)
    ]
    cells = {
        key: Moments(size, squares[k], row(gradient, k), critics=critics[k])
        for k, key in enumerate(keys)
    }
    if len(T):
        cells = _against_truth(cells, G, T, total, within, label)
    cells = _sketched(cells, jacobian, G, T, label, sketch_for(policy))
    means = gram.mean_gradients(jacobian, every[:kept])
    true = means[-1] if len(T) else None
    return cells, [kernels], dict(zip(keys, means, strict=False)), true


def _against_truth(
    cells: Cells,
    G: Tensor,
    T: Tensor,
    total: Sequence[Tensor],
    within: Sequence[Tensor],
    label: Tensor,
) -> Cells:
    """The same moments with those of the truth; Θ (G − T) is Θ G − Θ T."""
    Y, total_Y, within_Y = G - T, total[0] - total[1], within[0] - within[1]
    difference = pair_sums(Y, total_Y, within_Y, Y, total_Y, label)
    reference = row(pair_sums(T, total[1], within[1], T, total[1], label), 0)
    cross = pair_sums(G, total[1], within[1], T, total[0], label)
    return {
        key: replace(moments, truth=reference, difference=row(difference, k), cross=row(cross, k))
        for k, (key, moments) in enumerate(cells.items())
    }


def _across_critics(first: Mapping[str, Tensor], name: str, n: int, others: int) -> Tensor:
    """Action gradients with each critic less their mean, over √(C − 1), [C, N, da]; [0, N, da]."""
    every = torch.stack([first[name][n], *(first[_with_critic(name, k)][n] for k in range(others))])
    return (every - every.mean(dim=0)) / others**0.5 if others else every[:0]


def _mean_pairs(sums: PairSums) -> PairSums | None:
    """Sum over critics; None where there is one."""
    if not len(sums.own):
        return None
    return PairSums(sums.own.sum(axis=0), sums.left.sum(axis=0), sums.right.sum(axis=0))


def _sketched(
    cells: Cells, jacobian: PolicyJacobian, G: Tensor, T: Tensor, label: Tensor, sketch: Sketch
) -> Cells:
    """The same moments with tails and signs."""
    J = jacobian_sketch(sketch, jacobian)
    size = next(iter(cells.values())).size
    truth: TrueSketch | None = None
    if len(T):
        truth = true_sketch(grouped(torch.einsum("na,nas->ns", T[0], J), label), size)
    sketched: Cells = {}
    for g, (key, moments) in zip(G, cells.items(), strict=True):
        sums = grouped(torch.einsum("na,nas->ns", g, J), label)
        tails, signs = tails_and_signs(sums, size, truth)
        sketched[key] = replace(moments, tails=tails, signs=signs)
    return sketched


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
