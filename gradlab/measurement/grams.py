"""Inner products between estimators, kept for later choices.

They are kept on some horizons: a first pass sums gradients over folds, a second one multiplies,
some samples at a time.

Under one truth for all, gradients at visited states are summed over the visits of their start,
and what belongs to the start itself counts as often as it has visits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.gradients import weighted_terms
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.policy_jacobian import parameter_blocks
from gradlab.gradients.rollout import Trajectory
from gradlab.gradients.setting import Setting, Starts, group_sums, grouping
from gradlab.gradients.trajectory import CostateTerms, TermRequest
from gradlab.statistics.grams import Cell, Kernels
from gradlab.statistics.moments import Moments, estimates
from gradlab.systems.system import System

Rows = Callable[[slice], Tensor]  # starts → gradients [n, P], weights included


@dataclass(frozen=True)
class TermSource:
    """Where gradients of some cells come from.

    Attributes:
        cells: [K] of them.
        rows: λ [K, T, n, width] and J of some of the starts, weights included, and those with other
            critics; the sum over T is a gradient.
        visits: how many of each start, where the T are samples of their own; 0: steps of a path.
        several: are there other critics?
    """

    cells: tuple[Cell, ...]
    rows: Callable[[slice], Sequence[CostateTerms]]
    visits: int = 0
    several: bool = False

    def some(self, kept: Collection[Cell]) -> TermSource:
        """Some of the cells."""
        chosen = [k for k, cell in enumerate(self.cells) if cell in kept]
        cells = tuple(self.cells[k] for k in chosen)
        return replace(
            self, cells=cells, rows=lambda rows: [each.some(chosen) for each in self.rows(rows)[:1]]
        )


HELD = 3e7  # bytes kept of all estimators together


@dataclass(frozen=True)
class TermCache:
    """λ and J of some estimators, block by block of their starts.

    Attributes:
        estimators: how many will be read, each of about the same size.
        known: a system, and its path from the starts with its own Jacobians, as a truth has it.
    """

    setting: Setting
    estimators: int
    known: tuple[System, Trajectory] | None = None
    asked: dict[tuple[int, int], TermRequest] = field(default_factory=dict, repr=False)
    found: dict[tuple[int, int, int], CostateTerms] = field(default_factory=dict, repr=False)

    def rows(self, estimator: Estimator, rows: slice) -> CostateTerms:
        """Of some of the starts, for all of the estimator's horizons."""
        place, every = (rows.start, rows.stop), tuple(horizons_of(estimator))
        key = id(estimator), *place
        if key not in self.found:
            if place not in self.asked:
                self.asked[place] = self._asked(rows)
            made = weighted_terms.costate_terms(estimator, self.asked[place].over(every))
            share = len(self.setting.starts.states) / max(rows.stop - rows.start, 1)
            if made.bytes * share * self.estimators > HELD:
                self.asked.clear()
                return made
            self.found[key] = made
        return self.found[key]

    def _asked(self, rows: slice) -> TermRequest:
        here = self.setting
        asked = TermRequest(here.policy, here.starts.block(rows), (), here.seed, here.termination)
        if self.known is not None:
            asked.know(self.known[0], self.known[1].rows(rows))
        return asked


def horizons_of(estimator: Estimator) -> range:
    """The horizons at which an estimator has a gradient."""
    return range(first_horizon(estimator), estimator.tail.horizon + 1)


def group_blocks(group: Tensor, size: int) -> Iterator[slice]:
    """Blocks of at least `size` rows that cut no group in two; one block where labels are not in
    order."""
    change = torch.ones(len(group), dtype=torch.bool)
    change[1:] = group[1:] != group[:-1]
    starts = change.nonzero().flatten().tolist()
    if bool((group[1:] < group[:-1]).any()):
        yield slice(0, len(group))
        return
    begin = 0
    for edge in [*starts[1:], len(group)]:
        if edge - begin >= size or edge == len(group):
            yield slice(begin, edge)
            begin = edge


FOLDS = 2
_HORIZONS = 8  # of one estimator, whose explicit gradients keep inner products: a tenth of the time
_CELLS = 24  # of all of them together, beside the best ones: products grow with their square
SAMPLES = 128  # whose costates are held at once
BYTES = 3e7  # of explicit gradients that are held at once: they stay in cache


def folds_of(begin: Starts) -> tuple[Tensor, NDArray[np.int64]]:
    """The fold of each sample [N] and of each group [G]: groups take folds in turn."""
    label, size = grouping(begin)
    fold = np.arange(len(size)) % FOLDS
    return torch.from_numpy(fold)[label], fold


def kept_cells(
    cells: Mapping[Cell, Moments],
    longest: int,
    batch: int,
    given: Collection[int] | None = None,
) -> list[Cell]:
    """Cells whose inner products are kept: horizons spread over 0 … longest, both included, and
    each estimator's best by error at batch size N′, by gain and by one batch's direction.

    Args:
        given: horizons in the place of these.
    """
    if given is not None:
        return [cell for cell in cells if cell[1] in given]
    names = {name for name, _ in cells}
    count = max(min(_HORIZONS, _CELLS // max(len(names), 1)), 2)
    kept = {round(n) for n in np.linspace(0, longest, count).tolist()}
    chosen = {cell for cell in cells if cell[1] in kept}
    found = {cell: estimates(moments, batch) for cell, moments in cells.items()}
    for name, quantity in product(names, ("mse", "gain", "cosine_batch")):
        sign = -1 if quantity == "mse" else 1
        values = {
            cell: sign * each[quantity].value
            for cell, each in found.items()
            if cell[0] == name and quantity in each and np.isfinite(each[quantity].value)
        }
        chosen |= {max(values, key=lambda cell: values[cell])} if values else set()
    return [cell for cell in cells if cell in chosen]


def explicit_kernels(
    kind: str,
    sources: Sequence[TermSource],
    kept: Collection[Cell],
    begin: Starts,
    truth: Rows | None,
    repeats: int = 1,
) -> Kernels:
    """Inner products of some cells.

    Args:
        truth: of the same starts; repeats: visits of each start.
    """
    sources = [some for source in sources if (some := source.some(kept)).cells]
    sums = _fold_sums(sources, begin, truth, repeats)
    own, within, total = _products(sources, begin, truth, repeats, sums)
    _, size = grouping(begin)
    alone = repeats == 1 and len(size) == len(begin.states)
    _, fold = folds_of(begin)
    cells = tuple(cell for source in sources for cell in source.cells)
    own = within if alone else own
    return Kernels(kind, cells, truth is not None, size * repeats, own, within, total, fold)


def _fold_sums(
    sources: Sequence[TermSource], begin: Starts, truth: Rows | None, repeats: int
) -> Tensor:
    """Sums over folds, [folds, M, P]."""
    fold, _ = folds_of(begin)
    sums = []
    for source in sources:
        parts = [
            torch.stack([_of_fold(terms, fold[rows] == f) for f in range(FOLDS)])
            for rows in group_blocks(begin.group, SAMPLES)
            for terms in source.rows(rows)[:1]
        ]
        sums.append(torch.stack(parts).sum(dim=0) * (1 if source.visits else repeats))
    if truth is not None:
        own = []
        for rows in group_blocks(begin.group, SAMPLES):
            T = truth(rows)
            own.append(torch.stack([T[fold[rows] == f].sum(dim=0) for f in range(FOLDS)]))
        sums.append(repeats * torch.stack(own).sum(dim=0)[:, None])
    return torch.cat(sums, dim=1)


def _products(
    sources: Sequence[TermSource], begin: Starts, truth: Rows | None, repeats: int, sums: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """own, within [G, M, M] and total [folds, G, M, M], from sums [folds, M, P].

    Some starts and some parameters at a time: inner products are sums over parameters, and a block
    that stays in cache is formed, multiplied by itself and by the sums, and forgotten.
    """
    label, size = grouping(begin)
    M = sums.shape[1]
    own, within = sums.new_zeros(2, len(size), M, M)
    total = sums.new_zeros(FOLDS, len(size), M, M)
    for rows in group_blocks(begin.group, SAMPLES):
        carried = [source.rows(rows)[0] for source in sources]
        T = None if truth is None else truth(rows)
        groups, here = torch.unique(label[rows], return_inverse=True)
        n = rows.stop - rows.start
        alone = torch.equal(here, torch.arange(n))
        inner, squares = sums.new_zeros(n, M, M), sums.new_zeros(len(groups), M, M)
        along = sums.new_zeros(len(groups) * M, FOLDS * M)
        for part in parameter_blocks([terms.jacobian for terms in carried], BYTES / (8 * M * n)):
            U = _joined(sources, carried, T, repeats, part)
            pairs = U @ U.transpose(1, 2)
            inner += pairs
            X = group_sums(U.flatten(1), here).reshape(len(groups), *U.shape[1:])
            squares += pairs if alone else X @ X.transpose(1, 2)
            along += X.flatten(0, 1) @ sums[:, :, part].flatten(0, 1).T
        inner /= repeats
        _among_visits(inner, sources, carried)
        within.index_add_(0, label[rows], inner)
        own[groups] = squares
        total[:, groups] = along.reshape(len(groups), M, FOLDS, M).permute(2, 0, 1, 3)
    return own.numpy(), within.numpy(), total.numpy()


def _joined(
    sources: Sequence[TermSource],
    carried: Sequence[CostateTerms],
    truth: Tensor | None,
    repeats: int,
    part: slice,
) -> Tensor:
    """Some parameters of the gradients of every cell, and of the truth's, [n, M, p]."""
    parts = []
    for source, terms in zip(sources, carried, strict=True):
        each = [terms.gradients(k, part) for k in range(len(terms.costates))]
        parts.append(torch.stack(each, dim=1) * (1 if source.visits else repeats))
    if truth is not None:
        parts.append(repeats * truth[:, None, part])
    return torch.cat(parts, dim=1)


def _among_visits(
    inner: Tensor, sources: Sequence[TermSource], carried: Sequence[CostateTerms]
) -> None:
    """Puts Σ_visits x_ik · Θ_ii x_il in the place of the products of sums over visits."""
    # All visiting sources share one J, and stand together.
    visiting = [k for k, source in enumerate(sources) if source.visits]
    if not visiting:
        return
    at = np.cumsum([0, *(len(source.cells) for source in sources)])
    place = slice(int(at[visiting[0]]), int(at[visiting[-1] + 1]))
    x = torch.cat([carried[k].costates for k in visiting])
    theta = carried[visiting[0]].jacobian.gram()
    theta = theta.reshape(*x.shape[1:3], *theta.shape[1:])
    inner[:, place, place] = torch.einsum("ktna,tnab,ltnb->nkl", x, theta, x)


def _of_fold(terms: CostateTerms, inside: Tensor) -> Tensor:
    """Sums of the gradients of some of the starts, [K, P]."""
    return replace(terms, costates=terms.costates * inside[:, None]).sums()
