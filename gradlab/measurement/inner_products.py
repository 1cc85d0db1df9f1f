"""Moments of the estimators' gradients and inner products between them.

Gradients of the first action are J_iᵀ g_i with one J for everybody; of one sweep, all horizons.
Those with θ in every action have J at every step. Both are added up some samples at a time
(`measurement.accumulator`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.gradients.estimator import Estimator, OtherCritics
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.trajectory import CostateTerms, TermRequest
from gradlab.gradients.weighted_terms import first_costates
from gradlab.measurement.accumulator import accumulated
from gradlab.measurement.grams import (
    Rows,
    TermCache,
    TermSource,
    explicit_kernels,
    horizons_of,
    kept_cells,
)
from gradlab.progress import Progress, silent
from gradlab.statistics.grams import Cell, Kernels
from gradlab.statistics.moments import Moments
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
    kept: Collection[int] | None = None,
) -> Measured:
    """Moments of every estimator at every horizon it has, each kind against its own truth.

    Args:
        other_critics: the same estimators with other critics, for the variance across critics.
        batch: N′ at which errors decide whose inner products are kept.
        kept: horizons whose inner products are kept; None: `grams.kept_cells`.
    """
    begin, policy = setting.starts, setting.policy
    others = {} if other_critics is None else other_critics
    kinds: dict[str, tuple[list[TermSource], Rows | None]] = {}
    true = None
    first = {name: estimator for name, estimator in chosen.items() if not estimator.way.all_actions}
    if first:
        (sources, jacobian), T = first_action_sources(first, setting, 1, others, progress), None
        if truth.first is not None:
            G = truth.first.gradients * begin.weight[:, None]
            true = (jacobian.T @ G[None])[0] / len(G)
            T = _of_actions(jacobian, G)
        kinds["first"] = sources, T
    if every := {name: estimator for name, estimator in chosen.items() if name not in first}:
        T = None
        if truth.every is not None:
            true, T = truth.every.gradients.mean(dim=0), truth.every.gradients.__getitem__
        count = sum(1 + len(others.get(name, ())) for name in every)
        kinds["all"] = all_action_sources(every, TermCache(setting, count), others), T
    cells: Cells = {}
    means: _Means = {}
    kernels = []
    for kind, (sources, T) in kinds.items():
        found = moments_of(sources, policy, begin, T, progress)
        cells, means = cells | found[0], means | found[1]
        products = kept_cells(found[0], setting.horizon, batch, kept)
        if products:
            kernels.append(explicit_kernels(kind, sources, products, begin, T))
    return in_order(chosen, cells, tuple(kernels), means, true, begin, len(begin.states))


def _of_actions(jacobian: PolicyJacobian, g: Tensor) -> Rows:
    """Gradients J_iᵀ g_i of some of the samples."""
    return lambda rows: jacobian.rows(rows).gradients(g[None, rows])


def in_order(
    chosen: Mapping[str, Estimator], cells: Cells, kernels: tuple[Kernels, ...], means: _Means,
    true: Tensor | None, at: Starts, starts: int, visits: int = 1,
) -> Measured:  # fmt: skip
    """With cells in the order of the estimators."""
    ordered = {key: cells[key] for name in chosen for key in cells if key[0] == name}
    means = {key: means[key] for key in ordered}
    return Measured(ordered, kernels, means, true, at, starts, visits)


def moments_of(
    sources: Sequence[TermSource],
    policy: nn.Module,
    begin: Starts,
    truth: Rows | None,
    progress: Progress,
) -> tuple[Cells, _Means]:
    """Moments and means of all cells of these sources."""
    cells: Cells = {}
    means: _Means = {}
    for done, source in enumerate(sources):
        progress("estimators", done, len(sources))
        moments, mean = accumulated(source, policy, begin, truth)
        cells |= dict(zip(source.cells, moments, strict=True))
        means |= dict(zip(source.cells, mean, strict=True))
    progress("estimators", len(sources), len(sources))
    return cells, means


def all_action_sources(
    chosen: Mapping[str, Estimator], cache: TermCache, other_critics: OtherCritics
) -> list[TermSource]:
    """Gradients with θ in every action, at every horizon."""

    def source(name: str, estimator: Estimator) -> TermSource:
        several = estimator, *other_critics.get(name, ())
        cells = tuple((name, n) for n in horizons_of(estimator))
        return TermSource(
            cells, lambda rows: [cache.rows(e, rows) for e in several], several=len(several) > 1
        )

    return [source(name, estimator) for name, estimator in chosen.items()]


def first_action_sources(
    chosen: Mapping[str, Estimator],
    setting: Setting,
    visits: int,
    other_critics: OtherCritics,
    progress: Progress,
) -> tuple[list[TermSource], PolicyJacobian]:
    """Gradients with θ in the first action, at the visits of starts, and the one J that they share.

    Args:
        setting: whose starts are the visited states, visit after visit of each start.
    """
    asked = TermRequest(setting.policy, setting.starts, (), setting.seed, setting.termination)
    noise = setting.starts.policy_noise(setting.policy, setting.seed, 0)
    jacobian = policy_jacobian(setting.policy, setting.starts.states, noise)
    sample = torch.arange(jacobian.samples).reshape(-1, visits).T

    together: dict[int, list[tuple[list[Cell], list[Tensor]]]] = {}  # by the number of critics
    for done, (name, estimator) in enumerate(chosen.items()):
        progress("estimators", done, len(chosen))
        several, horizons = (estimator, *other_critics.get(name, ())), tuple(horizons_of(estimator))
        costates = [first_costates(one, asked.over(horizons)) for one in several]
        cells = [(name, n) for n in horizons]
        together.setdefault(len(several), []).append((cells, costates))

    def source(members: list[tuple[list[Cell], list[Tensor]]]) -> TermSource:
        cells = tuple(cell for cells, _ in members for cell in cells)
        costates = [  # [K, visits, n, da] with each critic
            torch.unflatten(torch.cat(parts), 1, (-1, visits)).transpose(1, 2)
            for parts in zip(*(several for _, several in members), strict=True)
        ]

        def rows(block: slice) -> list[CostateTerms]:
            some = jacobian.rows(sample[:, block].flatten())
            ends = (visits - 1,) * len(cells)
            return [CostateTerms(x[:, :, block], some, ends) for x in costates]

        return TermSource(cells, rows, visits, several=len(costates) > 1)

    return [source(members) for members in together.values()], jacobian
