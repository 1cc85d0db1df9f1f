"""A rehearsal: for how many updates a gradient raises the return, before one is made.

    ΔJ_c(k) = J(θ_k) − J(θ_0),    θ_k = candidate c's own updates by the user's rule, k = 1 … refit

Returns are of fresh starts, each on the same noise for every candidate and length. A gradient holds
for the number of updates after which its return is highest, if that is shown to be above the
present policy's although the length was chosen (`statistics.selection`). The gradient of choice is
rehearsed once more, with states, batches and judging starts of its own, its plain step beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.realised import UNIT, Cell
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.number import Number, decide
from gradlab.statistics.over_groups import mean_interval, mean_interval_at
from gradlab.statistics.selection import chosen_level, largest
from gradlab.storage.codec import scalar, stored
from gradlab.wording import beside, signed

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
RATE = 3e-4  # of updates, at most, where nobody gives one
LOST = 1e100  # change of a return whose square is no number any more


@dataclass(frozen=True)
class Rule:
    """How updates were rehearsed, and how their returns were judged.

    Attributes:
        optimizer: "adam" or "sgd"; rate: its learning rate, of all candidates; assumed: nobody
            gave the rate.
        refit: updates between two fits of the critic; batch: states behind each gradient.
        horizon: T, steps that a return sums; termination: of these rollouts.
        left_out: candidates that were too dear.
        steps: what the rehearsal took, in steps of the simulator.
    """

    optimizer: str
    rate: float
    assumed: bool
    refit: int
    batch: int
    horizon: int
    termination: str
    left_out: int
    steps: int


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
class Rehearsal:
    """Changes of the return along C candidates' own updates, at L lengths, by group of starts.

    Attributes:
        cells: estimator and horizon of each candidate; lengths: numbers of updates, rising.
        change: [C, L, G], J(θ_k) − J(θ_0) summed over each group; NaN from where on a gradient, or
            a return, left the finite numbers.
        before: [G], J(θ_0); size: [G], starts in each group.
        low, high: [C, L], ends of the 95% interval of each mean change alone.
        peak: [C], updates after which the return is highest, 0 where no change is finite.
        peak_low, peak_high: [C], ends of the interval of the change there, length chosen.
        may_be_best: [C, L], may be the largest change of all, with 95% together.
        best_cell: place of the candidate with the largest change, −1 where none is finite.
        best_low, best_high: ends of its interval, candidate and length chosen.
        again_cell: place of the candidate that was rehearsed once more, −1 where none was.
        again: [L, G], its changes then; step: [G], what one plain step of the update's length along
            it changed. NaN where none was, and after more updates than the first rehearsal chose.
        again_horizon: steps that the returns of these two sum, 0 where it is not known.
        parted: updates after which its returns with a critic that is fitted at every update differ
            from those with the frozen one, where the former are `again`; 0 where they do not.
        optimizer … steps: see `Rule`.
    """

    cells: Annotated[tuple[Cell, ...], stored("cell", name=("estimator", "at"), unit=("", "steps"))]
    lengths: Annotated[tuple[int, ...], stored("length", name="updates", unit="updates")]
    change: Annotated[_Floats, stored("cell", "length", "group", unit=UNIT)]
    before: Annotated[_Floats, stored("group", unit=UNIT)]
    size: Annotated[_Floats, stored("group", unit="starts")]
    low: Annotated[_Floats, stored("cell", "length", unit=UNIT)]
    high: Annotated[_Floats, stored("cell", "length", unit=UNIT)]
    peak: Annotated[tuple[int, ...], stored("cell", unit="updates")]
    peak_low: Annotated[_Floats, stored("cell", unit=UNIT)]
    peak_high: Annotated[_Floats, stored("cell", unit=UNIT)]
    may_be_best: Annotated[_Bools, stored("cell", "length")]
    best_cell: Annotated[int, scalar("plain")]
    best_low: Annotated[float, scalar("plain", text=True)]
    best_high: Annotated[float, scalar("plain", text=True)]
    optimizer: Annotated[str, scalar("plain")]
    rate: Annotated[float, scalar("plain", text=True)]
    assumed: Annotated[bool, scalar("plain")]
    refit: Annotated[int, scalar("plain")]
    batch: Annotated[int, scalar("plain")]
    horizon: Annotated[int, scalar("plain")]
    termination: Annotated[str, scalar("plain")]
    left_out: Annotated[int, scalar("plain")]
    steps: Annotated[int, scalar("plain")]
    again: Annotated[_Floats, stored("length", "group", unit=UNIT, optional=True)]
    step: Annotated[_Floats, stored("group", unit=UNIT, optional=True)]
    again_cell: Annotated[int, scalar("plain")] = -1
    again_horizon: Annotated[int, scalar("plain")] = 0
    parted: Annotated[int, scalar("plain")] = 0

    @property
    def judges(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    def present(self, change: Number) -> str:
        """The present policy's return from the same starts, to the digits of a change of it."""
        mean = float(self.before.sum()) / self.judges
        return signed(beside(mean, change.high - change.low))

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
    def too_long(self) -> bool:
        """Nothing is shown to be above the present policy, and every candidate ends below it, or
        lost; or the best has its highest return after one update and ends below it: with a smaller
        rate that may differ."""
        if self.hold:
            return not (self.high[:, -1] >= 0).any()
        return self.peak[self.best_cell] == 1 and not self.high[self.best_cell, -1] >= 0

    def choice(self, largest_gain: Cell) -> Cell | None:
        """What the first rehearsals say to follow: the highest return of all, where that is shown
        to be above the present policy's, although it was chosen; else the gradient of largest gain
        in one step, where its own is; None where all is to be held."""
        if not self.hold and self.best is not None:
            return self.best.cell
        alone = largest_gain in self.cells and self.holds(largest_gain) is not None
        return largest_gain if alone else None

    @property
    def chosen(self) -> Cell | None:
        """The gradient of choice, which was rehearsed once more; of a file that knows no second
        rehearsal the one of the highest return."""
        if self.again_cell >= 0:
            return self.cells[self.again_cell]
        return None if self.best is None or self.hold else self.best.cell

    def repeated(self, cell: Cell) -> bool:
        """Was it rehearsed once more?"""
        return self.again_cell >= 0 and self.cells[self.again_cell] == cell

    @property
    def plain_step(self) -> Number:
        """What the plain step of the second rehearsal changed, with 95%."""
        changed = sample_mean(self.step, self.size)
        ends = mean_interval(changed)
        return Number(changed.value, ends.low, ends.high, self.judges)

    def peak_of(self, cell: Cell) -> Peak | None:
        """Where the return along one candidate is highest; None where it was lost. Of one that was
        rehearsed once more: the most updates that it holds for, else those of the first rehearsal,
        with the change of the second, for which nothing was chosen, and an interval that holds
        that of the first, too, where both are above 0."""
        place = self.cells.index(cell)
        updates = self.peak[place]
        if not updates:
            return None
        if self.repeated(cell):
            updates = self.holds(cell) or updates
            second, ends = self._second(updates), self._second_ends(updates)
            if not np.isfinite(second.value):
                return None
            low, high = ends.low, ends.high
            first = self.after(cell, updates)
            if not self.parted and low > 0 and first.low > 0:
                # Two draws of states and batches: what they have apart is in no interval of starts.
                low, high = min(low, first.low), max(high, first.high)
            return Peak(cell, updates, Number(second.value, low, high, self.judges))
        return self._peak(cell, float(self.peak_low[place]), float(self.peak_high[place]))

    def holds(self, cell: Cell) -> int | None:
        """For how many updates a gradient holds; None where no length is shown to be above the
        present policy. Of one that was rehearsed once more: the most, up to the length of the
        highest return, that the second shows as well."""
        place = self.cells.index(cell)
        updates = self.peak[place] if self.peak_low[place] > 0 else None
        if updates is None or not self.repeated(cell):
            return updates
        shorter = [length for length in self.lengths if length < updates]
        if self._second_ends(updates).low > 0:
            return updates
        raised = (k for k in shorter if self._second_ends(k, len(shorter)).low > 0)
        return max(raised, default=None)

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

    def more(self, cell: Cell) -> int | None:
        """Further starts that would show whether it holds, 0 where that is decided; None where no
        affordable number would."""
        peak = self.peak_of(cell)
        return None if peak is None else decide(peak.gain, 0.0).more

    def after(self, cell: Cell, updates: int) -> Number:
        """Change of the return after one of the lengths, with its interval alone."""
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
        return pd.DataFrame(
            [
                {
                    "estimator": cell[0],
                    "horizon": cell[1],
                    "updates": length,
                    "value": (number := self.after(cell, length)).value,
                    "ci_low": number.low,
                    "ci_high": number.high,
                    "may_be_best": bool(self.may_be_best[c, k]),
                    "holds": self.holds(cell) == length,
                    "n": number.n,
                }
                for c, cell in enumerate(self.cells)
                for k, length in enumerate(self.lengths)
            ]
        )

    def _peak(self, cell: Cell, low: float, high: float) -> Peak:
        c = self.cells.index(cell)
        value = self._change(c, self.lengths.index(self.peak[c])).value
        return Peak(cell, self.peak[c], Number(value, low, high, self.judges))

    def _second(self, updates: int) -> Estimate:
        return sample_mean(self.again[self.lengths.index(updates)], self.size)

    def _second_ends(self, updates: int, among: int = 1) -> Interval:
        return mean_interval(self._second(updates), among)

    def _change(self, c: int, k: int) -> Estimate:
        return sample_mean(self.change[c, k], self.size)


def differ(change: _Floats, size: _Floats) -> _Bools:
    """[L] of changes [L, G]: is their mean shown to differ from 0, all lengths together?"""
    ends = [mean_interval(sample_mean(sums, size), len(change)) for sums in change]
    return np.array([not each.low <= 0 <= each.high for each in ends])


def judged(
    cells: Sequence[Cell],
    lengths: Sequence[int],
    change: _Floats,
    before: _Floats,
    size: _Floats,
    rule: Rule,
) -> Rehearsal:
    """What changes of the return say: intervals, the length that each holds for, the best of all.

    Args:
        change: [C, L, G]; before, size: [G], G ≥ 2, as of `Rehearsal`.
    """
    change = np.where(np.abs(change) < LOST, change, np.nan)
    changes = [[sample_mean(sums, size) for sums in row] for row in change]
    ends = [[mean_interval(each) for each in row] for row in changes]
    peaks = [_chosen(row) for row in changes]
    everything = _chosen([each for row in changes for each in row])
    best = everything.place // len(lengths) if everything.place >= 0 else -1
    return Rehearsal(
        cells=tuple(cells),
        lengths=tuple(lengths),
        change=change,
        before=before,
        size=size,
        low=np.array([[each.low for each in row] for row in ends]),
        high=np.array([[each.high for each in row] for row in ends]),
        peak=tuple(lengths[each.place] if each.place >= 0 else 0 for each in peaks),
        peak_low=np.array([each.ends.low for each in peaks]),
        peak_high=np.array([each.ends.high for each in peaks]),
        may_be_best=everything.kept.reshape(len(cells), len(lengths)),
        best_cell=best,
        best_low=everything.ends.low,
        best_high=everything.ends.high,
        again=np.empty((0, 0)),
        step=np.empty(0),
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
