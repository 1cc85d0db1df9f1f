"""A rehearsal: for how many updates a gradient raises the return, before one is made.

    ΔJ_c(k) = J(θ_k) − J(θ_0),    θ_k = candidate c's own updates by the user's rule, k = 1 … refit

Every candidate makes its updates twice, by two draws of states and batches, each judged on its own
starts, the same for all candidates and lengths. What both draws show is said of a gradient:

    raises, lowers    the interval over the starts of each draw lies above, below 0

The gradient to follow is the highest one that fresh draws confirm, of the few that lead highest:

    mean of D draws ± t_{D−1} S / √D,    S the spread of their means, at least that of their starts

covers starts and draws alike, whichever of the two dominates, and nothing was chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.identity import Cell
from gradlab.runs.layout import stored
from gradlab.runs.realised import UNIT
from gradlab.statistics.comparison import Number
from gradlab.statistics.intervals import Interval, student
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.over_groups import (
    level_of,
    mean_interval,
    mean_interval_at,
)
from gradlab.statistics.selection import chosen_level, largest
from gradlab.wording import beside, signed

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Integers = NDArray[np.int64]
_COLUMNS = (
    "estimator", "horizon", "updates", "value", "ci_low", "ci_high", "may_be_best", "holds", "n",
)  # fmt: skip
_SURER = 1.4  # times narrower than an interval that just leaves a value has to be, mostly
_AFFORDABLE = 1e5  # judging starts
RATE = 3e-4  # of updates, at most, where nobody gives one
LOST = 1e100  # change of a return whose square is no number any more


@dataclass(frozen=True)
class Rule:
    """How updates were rehearsed, and how their returns were judged.

    Attributes:
        optimizer: "adam" or "sgd"; rate: its learning rate, of all candidates; assumed: nobody
            gave the rate.
        refit: updates between two fits of the critic; batch: states behind each gradient.
        horizon: T, steps that every return sums; termination: of these rollouts.
        steps: what the rehearsal took, in steps of the simulator.
    """

    optimizer: Annotated[str, stored()]
    rate: Annotated[float, stored()]
    assumed: Annotated[bool, stored()]
    refit: Annotated[int, stored()]
    batch: Annotated[int, stored()]
    horizon: Annotated[int, stored()]
    termination: Annotated[str, stored()]
    steps: Annotated[int, stored()]


@dataclass(frozen=True)
class Peak:
    """Where the return is highest: a candidate after some of its updates.

    Attributes:
        gain: change of the return there, whose interval counts that the place was chosen.
    """

    cell: Cell
    updates: int
    gain: Number


@dataclass(frozen=True, eq=False)
class Rehearsal(Rule):
    """Changes of the return along C candidates' own updates, at L lengths, by group of starts.

    Attributes:
        cells: estimator and horizon of each candidate; lengths: numbers of updates, rising.
        change: [C, L, G], J(θ_k) − J(θ_0) summed over each group; NaN from where on a gradient, or
            a return, left the finite numbers.
        before: [G], J(θ_0); size: [G], starts in each group; draw: [G], of which draw they judge.
        low, high: [C, L], ends of the 95% interval of each mean change alone; of two draws the
            lower and the upper one.
        peak: [C], updates after which the return is highest, 0 where no change is finite.
        peak_low, peak_high: [C], ends of the interval of the change there, length chosen.
        may_be_best: [C, L], may be the largest change of all, with 95% together.
        best_cell: place of the candidate with the largest change, −1 where none is finite.
        best_low, best_high: ends of its interval, candidate and length chosen.
        confirmed: [K], places of the candidates that fresh draws were to confirm, in this order.
        again: [K, L, D], their mean changes by draw; NaN after more updates than led highest;
            again_se: by the starts of each alone.
        again_judges: starts behind each of these; again_horizon: steps that the last ones sum.
    """

    cells: Annotated[tuple[Cell, ...], stored("cell", name=("estimator", "at"), unit=("", "steps"))]
    lengths: Annotated[tuple[int, ...], stored("length", name="updates", unit="updates")]
    change: Annotated[_Floats, stored("cell", "length", "group", unit=UNIT)]
    before: Annotated[_Floats, stored("group", unit=UNIT)]
    size: Annotated[_Floats, stored("group", unit="starts")]
    draw: Annotated[_Integers, stored("group")]
    low: Annotated[_Floats, stored("cell", "length", unit=UNIT)]
    high: Annotated[_Floats, stored("cell", "length", unit=UNIT)]
    peak: Annotated[tuple[int, ...], stored("cell", unit="updates")]
    peak_low: Annotated[_Floats, stored("cell", unit=UNIT)]
    peak_high: Annotated[_Floats, stored("cell", unit=UNIT)]
    may_be_best: Annotated[_Bools, stored("cell", "length")]
    best_cell: Annotated[int, stored()]
    best_low: Annotated[float, stored()]
    best_high: Annotated[float, stored()]
    confirmed: Annotated[_Integers, stored("trial", optional=True)]
    again: Annotated[_Floats, stored("trial", "length", "redraw", unit=UNIT, optional=True)]
    again_se: Annotated[_Floats, stored("trial", "length", "redraw", unit=UNIT, optional=True)]
    again_judges: Annotated[int, stored()] = 0
    again_horizon: Annotated[int, stored()] = 0

    @property
    def judges(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    @property
    def now(self) -> float:
        """The present policy's return from the same starts."""
        return float(self.before.sum()) / self.judges

    def present(self, change: Number) -> str:
        """The same, to the digits of a change of it."""
        return signed(beside(self.now, change.high - change.low))

    @property
    def best(self) -> Peak | None:
        """The largest change of all; None where none is finite. It is a reason to leave the
        present policy only where `gain.low` is above 0 (`hold`)."""
        if self.best_cell < 0:
            return None
        cell = self.cells[self.best_cell]
        return self._peak(cell, self.best_low, self.best_high)

    @property
    def hold(self) -> bool:
        """Keep the present policy: nothing that was rehearsed is shown to be above it."""
        return not self.best_low > 0

    @property
    def draws(self) -> int:
        """Of states and batches, by which every candidate was followed."""
        return int(self.draw.max()) + 1

    @property
    def leading(self) -> dict[int, int]:
        """Places of the candidates whose mean return lies above the present policy's in every draw,
        the highest first, each with the number of updates where it does so by most."""
        above = {}
        for c in range(len(self.cells)):
            means = [self._by_draw(c, k) for k in range(len(self.lengths))]
            up = [k for k, draws in enumerate(means) if all(each.value > 0 for each in draws)]
            if up:
                above[c] = max(up, key=lambda k: self._change(c, k).value)
        ranked = sorted(above, key=lambda c: -self._change(c, above[c]).value)
        return {c: self.lengths[above[c]] for c in ranked}

    @property
    def chosen(self) -> Cell | None:
        """The gradient to follow: the first that fresh draws confirm; None where they confirm none,
        and the policy is to be kept."""
        places = map(int, self.confirmed)
        return next((self.cells[c] for c in places if self.holds(self.cells[c])), None)

    def repeated(self, cell: Cell) -> bool:
        """Was it to be confirmed by fresh draws?"""
        return self.cells.index(cell) in self.confirmed

    def retried(
        self, place: int, again: _Floats, judges: int, horizon: int, se: _Floats | float = 0.0
    ) -> Rehearsal:
        """With what fresh draws [L, D] say of one candidate, each by so many starts, and their
        standard errors by these."""
        shape = (-1, *again.shape)
        return replace(
            self,
            confirmed=np.append(self.confirmed, place),
            again=np.concatenate([self.again.reshape(shape), again[None]]),
            again_se=np.concatenate([self.again_se.reshape(shape), np.full((1, *again.shape), se)]),
            again_judges=judges,
            again_horizon=horizon,
        )

    @property
    def comparable(self) -> bool:
        """Do the fresh draws sum as many steps as the returns of all candidates do?"""
        return self.again_horizon == self.horizon

    def promised(self, cell: Cell, updates: int, among: int = 1) -> Number:
        """Change of the return by fresh draws: covers starts and draws. `among` such intervals hold
        together. Draws are no less apart than their starts make them."""
        place = list(self.confirmed).index(self.cells.index(cell)), self.lengths.index(updates)
        means, se = self.again[place], self.again_se[place]
        spread = max(float(means.std(ddof=1)), float(np.sqrt(np.square(se).mean())))
        half = student(len(means) - 1, level_of(among)) * spread / len(means) ** 0.5
        value = float(means.mean())
        return Number(value, value - half, value + half, self.again_judges * len(means))

    def peak_of(self, cell: Cell) -> Peak | None:
        """Where the return along one candidate is highest; None where it was lost. Of one that was
        to be confirmed: the most updates that it holds for, else as many as led highest at first,
        with the change by the fresh draws, for which nothing was chosen."""
        place = self.cells.index(cell)
        if self.repeated(cell):
            updates = self.holds(cell) or max(self._redrawn(cell), default=0)
            return Peak(cell, updates, self.promised(cell, updates)) if updates else None
        if not self.peak[place]:
            return None
        return self._peak(cell, float(self.peak_low[place]), float(self.peak_high[place]))

    def holds(self, cell: Cell) -> int | None:
        """For how many updates a gradient holds; None where no length is shown to be above the
        present policy. Of one that fresh draws were to confirm: the most that they do."""
        place = self.cells.index(cell)
        if not self.repeated(cell):
            return self.peak[place] if self.peak_low[place] > 0 else None
        *shorter, most = self._redrawn(cell) or (0,)
        if not most or self.promised(cell, most).low > 0:
            return most or None
        raised = (k for k in shorter if self.promised(cell, k, len(shorter)).low > 0)
        return max(raised, default=None)

    def _redrawn(self, cell: Cell) -> tuple[int, ...]:
        """Numbers of updates whose return every fresh draw knows."""
        return tuple(k for k in self.lengths if np.isfinite(self.promised(cell, k).value))

    def at_least(self, cell: Cell) -> bool:
        """Does it hold to the end of the longest rehearsal, so that it may for longer?"""
        return self.holds(cell) == self.lengths[-1]

    def lowered_after(self, cell: Cell) -> int | None:
        """The fewest rehearsed updates along it that are shown to lower the return, or lost it;
        None where none are."""
        return next(iter(self.falls(cell)), None)

    def falls(self, cell: Cell) -> tuple[int, ...]:
        """All such numbers of updates."""
        high = self.high[self.cells.index(cell)]
        fallen = (high < 0) | np.isnan(high)
        return tuple(n for n, each in zip(self.lengths, fallen, strict=True) if each)

    def missing(self, least: float) -> int | None:
        """Judging starts with which each gradient would be confirmed, or shown to bring less than
        `least`; 0 where that is decided; None where no affordable number is known.

        Errors shrink at least with the root of the starts, since draws grow with them.
        """
        narrower = max((self._narrower(c, least) for c in range(len(self.cells))), default=0.0)
        if not narrower:
            return 0
        more = self.judges * max(_SURER * narrower, _SURER) ** 2
        return int(more) if more <= _AFFORDABLE else None

    def _narrower(self, c: int, least: float) -> float:
        """How many times narrower an interval has to be that decides on a candidate; 0: none."""
        cell, k = self.cells[c], self.peak[c] and self.lengths.index(self.peak[c])
        if self.repeated(cell):
            peak = None if self.holds(cell) else self.peak_of(cell)
            numbers = [] if peak is None else [peak.gain]
        else:  # it did not lead, or behind three others
            ends = [(mean.value, mean_interval(mean)) for mean in self._by_draw(c, k)]
            numbers = [Number(value, each.low, each.high, self.judges) for value, each in ends]
        wanted = []
        for gain in numbers:
            apart = max(abs(gain.value), abs(least - gain.value))
            brings = gain.high >= least and gain.high > 0  # not where it was lost
            half = (gain.high - gain.low) / 2
            wanted.append((half / apart if apart else np.inf) if brings else 0.0)
        return min(wanted, default=0.0)

    def after(self, cell: Cell, updates: int) -> Number:
        """Change of the return after one of the lengths, with an interval that holds those of all
        draws."""
        c, k = self.cells.index(cell), self.lengths.index(updates)
        low, high = float(self.low[c, k]), float(self.high[c, k])
        return Number(self._change(c, k).value, low, high, self.judges)

    def as_good(self, cell: Cell, best: Cell, updates: int, enough: float) -> bool:
        """Is it not shown, on the same starts, to change the return by less than a share of what
        another candidate does in so many updates?"""
        k = self.lengths.index(updates)
        own, most = (self.change[self.cells.index(each), k] for each in (cell, best))
        return bool(mean_interval(sample_mean(own - enough * most, self.size)).high >= 0)

    def not_excluded(self) -> tuple[Cell, ...]:
        """Candidates that may have the largest change, with 95% together."""
        return tuple(
            cell for cell, kept in zip(self.cells, self.may_be_best, strict=True) if kept.any()
        )

    def table(self) -> pd.DataFrame:
        """One row per candidate and length.

        Columns: estimator, horizon, updates, value, ci_low, ci_high (change of the return),
        may_be_best, holds (is this the length that the gradient holds for?), n.
        """
        rows = []
        for c, cell in enumerate(self.cells):
            for k, length in enumerate(self.lengths):
                number, best = self.after(cell, length), bool(self.may_be_best[c, k])
                holds = self.holds(cell) == length
                rows.append((*cell, length, *number.estimate, best, holds, number.n))
        return pd.DataFrame(rows, columns=_COLUMNS)

    def _peak(self, cell: Cell, low: float, high: float) -> Peak:
        c = self.cells.index(cell)
        value = self._change(c, self.lengths.index(self.peak[c])).value
        return Peak(cell, self.peak[c], Number(value, low, high, self.judges))

    def _by_draw(self, c: int, k: int) -> list[Estimate]:
        return means_by_draw(self.change[c, k], self.size, self.draw)

    def _change(self, c: int, k: int) -> Estimate:
        return sample_mean(self.change[c, k], self.size)


def means_by_draw(change: _Floats, size: _Floats, draw: _Integers) -> list[Estimate]:
    """The mean of sums over groups [G], over those of each draw alone."""
    return [sample_mean(change[draw == d], size[draw == d]) for d in range(int(draw.max()) + 1)]


def judged(
    cells: Sequence[Cell],
    lengths: Sequence[int],
    change: _Floats,
    before: _Floats,
    size: _Floats,
    rule: Rule,
    draw: _Integers | None = None,
) -> Rehearsal:
    """What changes of the return say: intervals, the length that each holds for, the best of all.

    Args:
        change: [C, L, G]; before, size: [G], G ≥ 2, as of `Rehearsal`.
        draw: [G], two groups or more of each; None: there was one.
    """
    draw = np.zeros(len(size), dtype=np.int64) if draw is None else draw
    change = np.where(np.abs(change) < LOST, change, np.nan)
    changes = [[sample_mean(sums, size) for sums in row] for row in change]
    ends = [
        [[mean_interval(mean) for mean in means_by_draw(sums, size, draw)] for sums in row]
        for row in change
    ]
    peaks = [_chosen(row) for row in changes]
    everything = _chosen([each for row in changes for each in row])
    best = everything.place // len(lengths) if everything.place >= 0 else -1
    return Rehearsal(
        cells=tuple(cells),
        lengths=tuple(lengths),
        change=change,
        before=before,
        size=size,
        draw=draw,
        low=np.array([[[each.low for each in draws] for draws in row] for row in ends]).min(2),
        high=np.array([[[each.high for each in draws] for draws in row] for row in ends]).max(2),
        peak=tuple(lengths[each.place] if each.place >= 0 else 0 for each in peaks),
        peak_low=np.array([each.ends.low for each in peaks]),
        peak_high=np.array([each.ends.high for each in peaks]),
        may_be_best=everything.kept.reshape(len(cells), len(lengths)),
        best_cell=best,
        best_low=everything.ends.low,
        best_high=everything.ends.high,
        confirmed=np.empty(0, dtype=np.int64),
        again=np.empty((0, 0, 0)),
        again_se=np.empty((0, 0, 0)),
        **vars(rule),
    )


@dataclass(frozen=True)
class _Chosen:
    """The largest of several changes: its place, which others may be, its interval as chosen."""

    place: int
    kept: _Bools
    ends: Interval


def _chosen(changes: Sequence[Estimate]) -> _Chosen:
    finite = [bool(np.isfinite(each.value)) for each in changes]
    if not any(finite):
        none = Interval(np.nan, np.nan, np.nan, "lost")
        return _Chosen(-1, np.zeros(len(changes), dtype=bool), none)
    ranks = largest(changes)
    level = chosen_level(changes, ranks.kept)
    return _Chosen(ranks.best, ranks.kept, mean_interval_at(changes[ranks.best], level))
