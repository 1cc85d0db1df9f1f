"""Sums of gradients over groups of starts, made and dropped block by block.

    X_g = Σ_{i∈g} G_i,    squares_g = Σ_{i∈g} |G_i|²      of every cell and each group g

A block is some whole groups; its noise is that of the whole batch. Explicit gradients of few
parameters are formed, of many the kernels over the steps of a sample (`gradients.path_gram`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.courses import Carried
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.groups import Floats, by_group, group_sums
from gradlab.gradients.path_gram import path_mean_gradients, path_squared_norms
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.measurement.moments.grams import Source, some_starts
from gradlab.measurement.moments.held import Held
from gradlab.measurement.moments.inner_products import WIDE, explicit_sources, horizons_of
from gradlab.measurement.moments.visited import Visits, gradients_at, visiting_source
from gradlab.statistics.kernels import Cell


@dataclass(frozen=True)
class Division:
    """N starts in groups of `group`, and blocks of `block` of them: whole groups.

    `peak` is the predicted memory of the process at its largest, in bytes.
    """

    starts: int
    group: int
    block: int
    peak: float = 0.0

    def blocks(self) -> list[slice]:
        n = self.starts
        return [slice(begin, min(begin + self.block, n)) for begin in range(0, n, self.block)]

    def groups(self, rows: slice) -> slice:
        """Of a block."""
        return slice(rows.start // self.group, -(-rows.stop // self.group))

    @property
    def labels(self) -> Tensor:
        """The group of each start, [N]."""
        return torch.arange(self.starts) // self.group

    @property
    def sizes(self) -> Floats:
        """Starts of each group."""
        return np.bincount(self.labels.numpy()).astype(np.float64)


@dataclass(frozen=True)
class Summed:
    """Of K cells and the groups of a block: X_g [g, K, P] and squares [K, g]."""

    cells: tuple[Cell, ...]
    visits: bool
    X: Tensor
    squares: Floats


@dataclass(frozen=True, eq=False)
class World:
    """What every block is made from: the estimators, all starts and all visited states."""

    setting: Setting
    staying: Mapping[str, Estimator]
    visiting: Mapping[str, Estimator]
    at: Starts
    samples: int
    division: Division
    horizons: Sequence[int]

    @property
    def repeats(self) -> int:
        return self.samples if self.visiting else 1

    @property
    def cells(self) -> list[Cell]:
        everyone = (*self.staying.items(), *self.visiting.items())
        return [(name, n) for name, estimator in everyone for n in horizons_of(estimator)]

    @property
    def kept(self) -> list[Cell]:
        """Cells whose inner products are kept."""
        return [cell for cell in self.cells if cell[1] in self.horizons]

    def block(self, rows: slice, path: LinearizedPath | None = None) -> Block:
        """One block; `path`: the simulator's, where it is known."""
        setting, S = self.setting, self.samples
        here = replace(setting, starts=setting.starts.block(rows))
        known = None if path is None else (setting.simulator, path)
        there = None
        if self.visiting:
            at = self.at.block(slice(S * rows.start, S * rows.stop))
            there = gradients_at(self.visiting, setting, at)
        held = Held(here, len(self.staying), known)
        label = self.division.labels[rows] - rows.start // self.division.group
        return Block(self, held, there, label)


@dataclass(frozen=True, eq=False)
class Block:
    """Gradients from the starts of one block."""

    world: World
    held: Held
    there: Visits | None
    label: Tensor

    def summed(self) -> Iterator[Summed]:
        """Every cell, an estimator at a time, those at visited states together."""
        rows = slice(0, len(self.label))
        for name, estimator in self.world.staying.items():
            horizons = tuple(horizons_of(estimator))
            terms = self.held.rows(estimator, rows, horizons)
            X, squares = path_sums(terms, self.label)
            yield Summed(tuple((name, n) for n in horizons), False, X, squares)
        if self.there is not None:
            X, squares = visit_sums(self.there, self.label, self.world.samples)
            yield Summed(tuple(self.there.keys), True, X, squares)

    def sources(self) -> list[Source]:
        """Per-sample gradients of the cells whose inner products are kept."""
        world = self.world
        everyone = len(world.staying) + len(world.visiting)
        sources = explicit_sources(world.staying, self.held, world.setting.horizon, everyone)
        if self.there is not None:
            sources.append(visiting_source(self.there, world.horizons, world.samples))
        return sources


def path_sums(terms: Carried, label: Tensor) -> tuple[Tensor, Floats]:
    """X_g [g, K, P] and squares [K, g] of gradients with θ in every action."""
    groups, (K, _, n, _) = int(label.max()) + 1, terms.costates.shape
    X = terms.costates.new_zeros(groups, K, terms.jacobian.size)
    if terms.jacobian.size <= WIDE:
        squares = terms.costates.new_zeros(K, n)
        for k in range(K):
            G = gram.path_gradients(*terms.until_end(k))
            squares[k], X[:, k] = (G * G).sum(dim=1), group_sums(G, label)
        return X, by_group(squares, label)
    for g, rows in enumerate(_members(label)):
        part = some_starts(terms, rows)
        X[g] = len(rows) * path_mean_gradients(part.jacobian, part.costates, part.ends)
    squares = path_squared_norms(terms.jacobian, terms.costates).clamp_min(0.0)
    return X, by_group(squares, label)


def visit_sums(there: Visits, label: Tensor, samples: int) -> tuple[Tensor, Floats]:
    """The same of gradients with θ in the first action, over the visits of each group's starts."""
    label = label.repeat_interleave(samples)
    squares = by_group(gram.squared_norms(there.jacobian, there.G), label)
    X = [
        len(rows) * gram.mean_gradients(there.jacobian.rows(rows), there.G[:, rows])
        for rows in _members(label)
    ]
    return torch.stack(X), squares


def _members(label: Tensor) -> Iterator[Tensor]:
    return ((label == g).nonzero()[:, 0] for g in range(int(label.max()) + 1))
