"""Moments and kernels from more starts than fit into memory at once, all against one truth.

    X_g = Σ_{i∈g} G_i,    squares_g = Σ_{i∈g} |G_i|²      of every cell and each group g of N/256

A first pass adds up X_g over all groups, a second one multiplies each with those sums; they are
kept between the passes where they fit (`KEPT`), else made again. A block is some whole groups, its
noise that of the whole batch. Statistics leave out groups instead of starts: the same means,
standard errors known to 1/√(2 · 255) = 4%, and no strata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.courses import Carried
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.gram import path_mean_gradients, path_squared_norms
from gradlab.gradients.rollout import LinearizedPath, check_rollouts
from gradlab.gradients.setting import Floats, Setting, Starts, by_group, group_sums
from gradlab.measurement.grams import (
    FOLDS,
    GramSource,
    Held,
    kept_horizons,
    some_starts,
    within_starts,
)
from gradlab.measurement.inner_products import WIDE, Measured, explicit_sources, horizons_of
from gradlab.measurement.sketches import (
    TrueSketch,
    explicit_sketch,
    sketch_for,
    tails_and_signs,
    true_sketch,
)
from gradlab.measurement.visited import (
    SAMPLES,
    Visits,
    affordable,
    gradients_at,
    steps_beside,
    visited,
    visiting_source,
)
from gradlab.progress import Progress, silent
from gradlab.statistics.grams import Cell, GroupProducts, Kernels
from gradlab.statistics.moments import Moments, PairSums
from gradlab.truth.by_blocks import BlockedTruth
from gradlab.truth.truth import Truth


@dataclass(frozen=True)
class Division:
    """N starts in groups of `group`, and blocks of `block` of them: whole groups."""

    starts: int
    group: int
    block: int

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
class _Summed:
    """Of K cells and the groups of a block: X_g [g, K, P] and squares [K, g]."""

    cells: tuple[Cell, ...]
    visits: bool
    X: Tensor
    squares: Floats


@dataclass(frozen=True, eq=False)
class _World:
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

    def block(self, rows: slice, path: LinearizedPath | None = None) -> _Block:
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
        return _Block(self, held, there, label)


@dataclass(frozen=True, eq=False)
class _Block:
    """Gradients from the starts of one block."""

    world: _World
    held: Held
    there: Visits | None
    label: Tensor

    def summed(self) -> Iterator[_Summed]:
        """Every cell, an estimator at a time, those at visited states together."""
        rows = slice(0, len(self.label))
        for name, estimator in self.world.staying.items():
            horizons = tuple(horizons_of(estimator))
            terms = self.held.rows(estimator, rows, horizons)
            X, squares = path_sums(terms, self.label)
            yield _Summed(tuple((name, n) for n in horizons), False, X, squares)
        if self.there is not None:
            X, squares = visit_sums(self.there, self.label, self.world.samples)
            yield _Summed(tuple(self.there.keys), True, X, squares)

    def sources(self) -> list[GramSource]:
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


KEPT = 1e9  # bytes of group sums between the passes
STAGE = "blocks of starts"


@dataclass(frozen=True)
class _True:
    """The truth by group: pair sums with itself, and its sketch."""

    pairs: PairSums
    sketch: TrueSketch


@final
class _Sums:
    """What the passes add up, for C cells in G groups, M of them kept, and the truth."""

    def __init__(self, world: _World, size: int) -> None:
        self.world, self.sketch = world, sketch_for(world.setting.policy)
        C, M, G = len(world.cells), len(world.kept), len(world.division.sizes)
        new = world.setting.starts.states.new_zeros
        self.place = {cell: c for c, cell in enumerate(world.cells)}
        self.of_kept = {cell: k for k, cell in enumerate(world.kept)}
        self.fold = np.arange(G) % FOLDS
        self.total, self.truth = new(C, size), new(G, size)
        self.folds = new(FOLDS, M + 1, size)
        self.squares = np.empty((C, G))
        self.sketches = np.empty((C, G, self.sketch.width))
        self.within, self.own = np.empty((2, G, M + 1, M + 1))
        self.products = np.empty((FOLDS, G, M + 1, M + 1))
        # own, X·ΣX, |Y|², Y·ΣY, X·T, X·ΣT, T·ΣX of each cell and group
        self.pairs = np.full((7, C, G), np.nan)

    def cells_of(self, part: _Summed) -> slice:
        first = self.place[part.cells[0]]
        return slice(first, first + len(part.cells))

    def add(self, groups: slice, part: _Summed) -> None:
        """First pass: one estimator of one block."""
        cells = self.cells_of(part)
        self.total[cells] += part.X.sum(dim=0)
        self.squares[cells, groups] = part.squares
        for g, X in enumerate(part.X, groups.start):
            self.sketches[cells, g] = explicit_sketch(self.sketch, X).numpy()
            for cell, k, repeats in self._kept(part):
                self.folds[self.fold[g], k] += repeats * X[cell]

    def add_truth(self, groups: slice, T: Tensor, label: Tensor) -> None:
        """First pass: true gradients [n, P] of one block."""
        self.truth[groups] = sums = group_sums(T, label)
        for g, t in enumerate(sums, groups.start):
            self.folds[self.fold[g], -1] += self.world.repeats * t

    def add_within(self, groups: slice, block: _Block, T: Tensor | None) -> None:
        """First pass: products of single samples of one block."""
        world = self.world
        inner = within_starts(block.sources(), T, len(block.label), world.repeats)
        M = inner.shape[1]
        summed = group_sums(inner.flatten(1), block.label).reshape(-1, M, M)
        self.within[groups, :M, :M] = summed.numpy()

    @cached_property
    def truths(self) -> dict[int, _True]:
        """The truth by group, counted once for each start and for each visit."""
        made = {}
        for weight in {1, self.world.samples}:
            T = weight * self.truth
            own, side = T.square().sum(dim=1).numpy(), (T @ T.sum(dim=0)).numpy()
            sketch = true_sketch(
                explicit_sketch(self.sketch, T).numpy(), weight * self.world.division.sizes
            )
            made[weight] = _True(PairSums(own, side, side), sketch)
        return made

    def _kept(self, part: _Summed) -> list[tuple[int, int, int]]:
        """Cells of a part that are kept: place in it, among the kept, and how often they count."""
        repeats = 1 if part.visits else self.world.repeats
        return [
            (at, self.of_kept[cell], repeats)
            for at, cell in enumerate(part.cells)
            if cell in self.of_kept
        ]

    def multiply(self, groups: slice, parts: Iterable[_Summed]) -> None:
        """Second pass: one block."""
        U = self.folds.new_zeros(groups.stop - groups.start, *self.folds.shape[1:])
        U[:, -1] = self.world.repeats * self.truth[groups]
        for part in parts:
            for cell, k, repeats in self._kept(part):
                U[:, k] = repeats * part.X[:, cell]
            cells, weight = self.cells_of(part), self.world.samples if part.visits else 1
            total, true = self.total[cells], weight * self.truth.sum(dim=0)
            for g, X in enumerate(part.X, groups.start):
                t = weight * self.truth[g]
                Y = X - t
                products = (
                    (X * X).sum(dim=1), (X * total).sum(dim=1), (Y * Y).sum(dim=1),
                    (Y * (total - true)).sum(dim=1), X @ t, X @ true, total @ t,
                )  # fmt: skip
                self.pairs[:, cells, g] = torch.stack(products).numpy()
        self.own[groups] = (U @ U.transpose(1, 2)).numpy()
        for f, sums in enumerate(self.folds):
            self.products[f, groups] = (U @ sums.T).numpy()


def blocked_moments(
    chosen: Mapping[str, Estimator],
    setting: Setting,
    pilot: Truth,
    division: Division,
    progress: Progress = silent,
) -> tuple[Truth, Measured]:
    """The truth of all starts, and moments of every estimator at every horizon against it.

    Args:
        setting: with all starts, each of them independent.
        pilot: the truth of the first starts (`truth.by_blocks.pilot_truth`).
    """
    visiting = {name: estimator for name, estimator in chosen.items() if not estimator.way.every}
    staying = {name: estimator for name, estimator in chosen.items() if name not in visiting}
    begin, samples = affordable(setting, pilot, SAMPLES)
    setting, division = replace(setting, starts=begin), replace(division, starts=len(begin.states))
    at = visited(setting, steps_beside(setting, pilot), samples, pilot) if visiting else begin
    check_rollouts(replace(setting, starts=at), setting.horizon)
    horizons = kept_horizons(setting.horizon, len(chosen))
    world = _World(setting, staying, visiting, at, samples, division, horizons)
    true = None if pilot.every is None else BlockedTruth(setting, pilot)
    sums = _passes(world, true, progress)
    for shared in (begin, at):  # the noise of all blocks, which is most of the memory by now
        shared.draws.clear()
    truth = pilot
    if true is not None and pilot.every is not None:
        truth = true.judged(len(pilot.every.gradients))
    moments = dict(zip(world.cells, _moments(sums, truth.every is not None), strict=True))
    ordered = {key: moments[key] for name in chosen for key in moments if key[0] == name}
    counts = {name: len(at.states) if name in visiting else len(begin.states) for name in chosen}
    means = {key: sums.total[sums.place[key]] / counts[key[0]] for key in ordered}
    measured = Measured(
        ordered, (_kernels(sums, truth.every is not None),), means,
        None if truth.every is None or true is None else true.mean,
        at, len(begin.states), samples,
    )  # fmt: skip
    return truth, measured


def _passes(world: _World, true: BlockedTruth | None, progress: Progress) -> _Sums:
    """Both passes over all blocks."""
    policy, division = world.setting.policy, world.division
    size = sum(p.numel() for p in policy.parameters())
    sums, blocks = _Sums(world, size), division.blocks()
    keep = 8 * len(world.cells) * len(division.sizes) * size <= KEPT
    kept: list[list[_Summed]] = []
    for done, rows in enumerate(blocks):
        progress(STAGE, done, 2 * len(blocks))
        # The truth and products within starts need single samples.
        T, path = (None, None) if true is None else true.block(rows)
        block, groups = world.block(rows, path), world.division.groups(rows)
        if T is not None:
            sums.add_truth(groups, T, block.label)
        sums.add_within(groups, block, T)
        made = block.summed()
        parts = list(made) if keep else made
        for part in parts:
            sums.add(division.groups(rows), part)
        if keep:
            kept.append(list(parts))
    for done, rows in enumerate(blocks):
        progress(STAGE, len(blocks) + done, 2 * len(blocks))
        again = kept[done] if keep else world.block(rows).summed()
        sums.multiply(division.groups(rows), again)
    progress(STAGE, 2 * len(blocks), 2 * len(blocks))
    return sums


def _moments(sums: _Sums, truth: bool) -> list[Moments]:
    """Of every cell."""
    world, sizes = sums.world, sums.world.division.sizes
    moments = []
    for c, (name, _) in enumerate(world.cells):
        weight = world.samples if name in world.visiting else 1
        own, left, error, error_left, cross, cross_left, cross_right = sums.pairs[:, c]
        size, tails_of = weight * sizes, sums.sketches[c]
        gradient = PairSums(own, left, left)
        if not truth:
            tails, signs = tails_and_signs(tails_of, size, None)
            moments.append(Moments(size, sums.squares[c], gradient, signs=signs, tails=tails))
            continue
        reference = sums.truths[weight]
        tails, signs = tails_and_signs(tails_of, size, reference.sketch)
        moments.append(
            Moments(
                size,
                sums.squares[c],
                gradient,
                reference.pairs,
                PairSums(error, error_left, error_left),
                PairSums(cross, cross_left, cross_right),
                signs=signs,
                tails=tails,
            )
        )
    return moments


def _kernels(sums: _Sums, truth: bool) -> Kernels:
    """Inner products of the kept cells, and of the truth where it stands."""
    world = sums.world
    few = slice(None, None if truth else -1)
    own, within, products = (
        block[..., few, few] for block in (sums.own, sums.within, sums.products)
    )
    size = world.repeats * world.division.sizes
    parts = GroupProducts(size, own, within, products, sums.fold)
    return Kernels("objective", tuple(world.kept), truth, parts)
