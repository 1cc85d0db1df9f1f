"""Realised gains: the change of the return by steps along gradients, on fresh starts.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),     J = E_ζ Σ_{t<T} γᵗ r_t,     share(d) = κ ΔJ(d) / ΔJ(truth)

η is the length of the user's update, a quarter and three times of it for what matters most; a start
sees the same noise before and after. κ = |E g| / |ḡ| ≤ 1 is what the noise of the mean of N samples
leaves of its gain to first order. Without a truth shares are of the largest gain at that length.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.identity import Cell
from gradlab.runs.jumps import Jumps
from gradlab.runs.layout import stored
from gradlab.statistics.intervals import Interval, Z, student
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import level_of, mean_interval, mean_interval_at, ratio_of_means
from gradlab.statistics.selection import RankSet, chosen_level, largest

_Share = tuple[float, Interval]
_Promised = tuple[float, tuple[float, float]]  # a share to first order, and its interval's ends
_TRUTH = "truth"  # in the place of an estimator's name
TRUE_CELL: Cell = (_TRUTH, 0)
# Directions that are no truth and no estimator, and are stepped along where the return jumps.
PATHWISE, SCORE = "pathwise", "score function"
_REFERENCES: tuple[Cell, ...] = (TRUE_CELL, (PATHWISE, 0), (SCORE, 0))
UNIT = "discounted return"
_COLUMNS = (
    "estimator", "horizon", "status", "step", "moves", "update", "value", "ci_low", "ci_high",
    "share", "share_low", "share_high", "n",
)  # fmt: skip
_LINEAR = 0.1  # largest even part of the return's change over its odd part


_Floats = NDArray[np.float64]
Status = Literal["stepped", "zero", "not finite", "lost"]
_Reason = Literal["step", "jump", "boundary", "law"]
_PRECISE = 0.9  # least κ of a truth whose own gain says what is possible
# A truth's own gain may miss its norm by what its standard error may be: shares, of its direction
# alone, hold all the same.
_SCALE = 0.25
_GROUPS = 64  # behind intervals of predictions, whose own number a table does not hold


@dataclass(frozen=True)
class Disagreement:
    """A cell whose realised gain is not what it is to first order, and the likeliest reason.

    Attributes:
        realised, predicted: shares of the best possible gain, with simultaneous intervals; of the
            truth itself, shares of η |∇J|.
        reason: "step": the return bends within the step; "jump": it jumps; "boundary": episodes
            end, and pathwise gradients do not see that; "law": gradient and returns are of
            different problems.
    """

    cell: Cell
    realised: float
    realised_ends: tuple[float, float]
    predicted: float
    predicted_ends: tuple[float, float]
    reason: _Reason


@dataclass(frozen=True, eq=False)
class Realised:
    """Changes of the discounted return by steps of S lengths along C directions, by group.

    Attributes:
        cells: estimator and horizon of each direction; (`_TRUTH`, 0) is first where there is one.
            `_REFERENCES` are directions beside those of estimators.
        status: "stepped"; "zero" or "not finite": there is no direction; "lost": a rollout left
            the finite numbers.
        gain: [C, S, G], J(θ + η d) − J(θ) summed over each group of starts; NaN where no step of
            that length was taken.
        before: [G], J(θ); size: [G], starts in each group.
        lengths: [S], η, rising; moves: [S], by which share of their size they move actions.
        kept: [C], |E g| / |ḡ| of each direction; NaN where unknown.
        norm: |∇J|; NaN where unknown.
        horizon: T, steps that a return sums; termination: of these rollouts.
        ended: share of the starts whose episode ends before T.
        judges: starts that returns are of; steps: simulator steps that were taken for it.
        at: place of the user's update among the lengths.
    """

    cells: Annotated[tuple[Cell, ...], stored("cell", name=("estimator", "at"), unit=("", "steps"))]
    status: Annotated[tuple[Status, ...], stored("cell")]
    gain: Annotated[_Floats, stored("cell", "length", "group", unit=UNIT)]
    before: Annotated[_Floats, stored("group", unit=UNIT)]
    size: Annotated[_Floats, stored("group", unit="starts")]
    lengths: Annotated[_Floats, stored("length", name="length", unit="norm of θ")]
    moves: Annotated[tuple[float, ...], stored("length", unit="share of an action's size")]
    kept: Annotated[_Floats, stored("cell")]
    norm: Annotated[float, stored()]
    horizon: Annotated[int, stored()]
    termination: Annotated[str, stored()]
    ended: Annotated[float, stored()]
    steps: Annotated[int, stored()]
    at: Annotated[int, stored(name="update_length")]

    @property
    def judges(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    @property
    def stepped(self) -> tuple[Cell, ...]:
        """Cells of estimators with a gain."""
        return tuple(cell for cell in self.cells if self._moved(cell) and cell not in _REFERENCES)

    def among(self, names: Collection[str]) -> Realised:
        """The same of some estimators, and of what they are compared with."""
        here = [k for k, c in enumerate(self.cells) if c in _REFERENCES or c[0] in names]
        return replace(
            self,
            cells=tuple(self.cells[k] for k in here),
            status=tuple(self.status[k] for k in here),
            gain=self.gain[np.array(here, dtype=int)],
            kept=self.kept[np.array(here, dtype=int)],
        )

    def of_competing(self, names: Collection[str]) -> Realised:
        """The same of what competes; of all that was tried where that is at most the data's."""
        own = self.among(names)
        return own if any(h for _, h in own.stepped) else self

    def status_of(self, cell: Cell) -> Status:
        return self.status[self.cells.index(cell)]

    def change(self, cell: Cell, length: int | None = None) -> Estimate:
        """Mean change of the return by a step of one of the lengths, the update's by default."""
        k = self.at if length is None else length
        return sample_mean(self.gain[self.cells.index(cell), k], self.size)

    def taken(self, cell: Cell, length: int) -> bool:
        """Was a step of this length taken along the cell's direction?"""
        return bool(np.isfinite(self.gain[self.cells.index(cell), length]).all())

    def ends(self, cell: Cell, length: int | None = None, among: int = 1) -> Interval:
        """Interval of `change`: at 95% alone, or at 95% together with those of other cells."""
        return mean_interval(self.change(cell, length), among)

    def chosen_ends(self, cell: Cell) -> Interval:
        """Interval of `change` that holds in 95% although the cell was chosen for its gain: with
        those of all cells that may have the largest (`statistics.selection.chosen_level`)."""
        ranks = self._ranked()
        if ranks is None:
            return self.ends(cell)
        kept = ranks.kept | np.array([other == cell for other in self.stepped])
        changes = [self.change(other) for other in self.stepped]
        return mean_interval_at(self.change(cell), chosen_level(changes, kept))

    @property
    def reference(self) -> Cell | None:
        """Whose gain the shares are of: the truth, or without one the direction of largest gain at
        the update's length; None where that is not shown to be above 0."""
        if TRUE_CELL in self.cells:
            return TRUE_CELL
        moved = [cell for cell in self.cells if self._moved(cell)]
        best = max(moved, key=lambda cell: self.change(cell).value, default=None)
        shown = best is not None and self.ends(best, among=len(moved)).low > 0
        return best if shown else None

    def share(self, cell: Cell, length: int | None = None, among: int = 1) -> _Share | None:
        """Of the gain of the `reference`; None where that is not clearly above 0, or mostly noise.

        The best direction is found again with every group left out, so that the interval knows of
        the choice.
        """
        reference, k = self.reference, self.at if length is None else length
        if reference is None or not (self._moved(cell) and self._moved(reference)):
            return None
        if not (self.taken(cell, k) and self.taken(reference, k)):
            return None
        if reference == TRUE_CELL:
            return self._share(self.change(cell, k), self.change(TRUE_CELL, k), among)
        tried = [self.change(c, k) for c in self.cells if self._moved(c) and self.taken(c, k)]
        best = combine(lambda *values: np.stack(values).max(axis=0), *tried)
        own = self.change(cell, k)
        ends = ratio_of_means(own, best, among)
        return None if ends is None or not best.value > 0 else (own.value / best.value, ends)

    def _share(self, own: Estimate, true: Estimate, among: int) -> _Share | None:
        kept = self.kept_of(TRUE_CELL)
        ends = ratio_of_means(own, true, among)
        if ends is None or not (true.value > 0 and kept >= _PRECISE):
            return None
        scaled = Interval(kept * ends.low, kept * ends.high, kept * ends.se, ends.method)
        return kept * own.value / true.value, scaled

    @property
    def best_is_known(self) -> bool:
        """Is there a truth whose step gains, so that gains are shares of the best possible?"""
        return TRUE_CELL in self.cells and self.share(TRUE_CELL) is not None

    def kept_of(self, cell: Cell) -> float:
        """κ of a direction; 1 where its noise is unknown."""
        kept = float(self.kept[self.cells.index(cell)])
        return kept if np.isfinite(kept) else 1.0

    def helps(self, cell: Cell) -> bool:
        """Does the user's update raise the return? With 95% for all cells together."""
        return self._moved(cell) and self._simultaneous(cell).low > 0

    def harms(self, cell: Cell) -> bool:
        """Does the user's update lower the return? With 95% for all cells together."""
        return self._moved(cell) and self._simultaneous(cell).high < 0

    def _moved(self, cell: Cell) -> bool:
        return self.status_of(cell) == "stepped"

    def _simultaneous(self, cell: Cell) -> Interval:
        return self.ends(cell, among=len(self.stepped))

    def best(self) -> Cell | None:
        """The largest gain of the user's update; None where nothing was stepped."""
        ranks = self._ranked()
        return None if ranks is None else self.stepped[ranks.best]

    def not_excluded(self) -> tuple[Cell, ...]:
        """Cells that may have the largest gain, the best one among them, with 95% together."""
        ranks = self._ranked()
        if ranks is None:
            return ()
        return tuple(cell for cell, kept in zip(self.stepped, ranks.kept, strict=True) if kept)

    def _ranked(self) -> RankSet | None:
        if not self.stepped or len(self.size) < 2:
            return None
        return largest([self.change(cell) for cell in self.stepped])

    def disagreements(
        self, gains: pd.DataFrame, jumps: Jumps | None = None
    ) -> tuple[Disagreement, ...]:
        """Cells whose realised share and prediction exclude one another, the truth's among them.

        They differ beyond both simultaneous intervals, and by more than a step in the linear range
        may bend (`_LINEAR`); the truth's own gain by more than `_SCALE`. A report of what was
        promised and what was brought: an update's length is where its return bends and jumps.

        Args:
            gains: rows of a profile's table; those with quantity "gain" are read.
            jumps: what a trial at that length found, where there was one.
        """
        predicted = self._predicted(gains)
        results = []
        for cell, promised in predicted.items():
            among = len(predicted)
            realised = self._realised_share(cell, among)
            allowed = _SCALE if cell == TRUE_CELL else _LINEAR
            if realised is not None and _apart(realised, promised, allowed):
                above = realised[0] > promised[0]
                reason = self._reason(cell, promised, allowed, among, jumps, above)
                own = realised[1].low, realised[1].high
                results.append(Disagreement(cell, realised[0], own, *promised, reason))
        return tuple(results)

    def _predicted(self, gains: pd.DataFrame) -> dict[Cell, _Promised]:
        """Shares to first order of these very directions, each with simultaneous ends."""
        rows = gains[gains["quantity"] == "gain"] if len(gains) else gains
        columns = (rows[name] for name in ("estimator", "horizon", "value", "ci_low", "ci_high"))
        shares: dict[Cell, tuple[float, float, float]] = {}
        kept = self.kept_of(TRUE_CELL) if TRUE_CELL in self.cells else 0.0
        if self.norm > 0 and kept >= _PRECISE:
            # |T̄|² − |E T|² is its sampling variance, all of it: no less than that along itself.
            error = Z * (1 - kept**2) ** 0.5
            shares[TRUE_CELL] = kept, kept - error, kept + error
        for name, horizon, *values in zip(*columns, strict=True):
            cell = str(name), int(horizon)
            if cell in self.stepped and np.isfinite(values).all():
                value, low, high = (self.kept_of(cell) * float(each) for each in values)
                shares[cell] = value, low, high
        wider = student(_GROUPS, level_of(len(shares))) / student(_GROUPS)
        return {
            cell: (value, (value + wider * (low - value), value + wider * (high - value)))
            for cell, (value, low, high) in shares.items()
        }

    def _realised_share(self, cell: Cell, among: int, to_zero: bool = False) -> _Share | None:
        """At the update's length, or extrapolated along a line from two lengths to none."""
        if to_zero and self._two_lengths(cell) is None:
            return None
        own = self._per_length(cell, to_zero)
        if cell == TRUE_CELL:
            scaled = combine(lambda x: x / self.norm, own)
            return scaled.value, mean_interval(scaled, among)
        if TRUE_CELL not in self.cells or not self._moved(TRUE_CELL):
            return None
        return self._share(own, self._per_length(TRUE_CELL, to_zero), among)

    def _two_lengths(self, cell: Cell) -> tuple[int, int] | None:
        """The two shortest lengths of which steps were taken."""
        here = [k for k in range(len(self.lengths)) if self.taken(cell, k)]
        return (here[0], here[1]) if len(here) > 1 else None

    def _per_length(self, cell: Cell, to_zero: bool) -> Estimate:
        sums = self.gain[self.cells.index(cell)] / self.lengths[:, None]
        two = self._two_lengths(cell) if to_zero else None
        if two is None:
            return sample_mean(sums[self.at], self.size)
        a, b = self.lengths[list(two)]
        return sample_mean((b * sums[two[0]] - a * sums[two[1]]) / (b - a), self.size)

    def _reason(
        self, cell: Cell, promised: _Promised, allowed: float, among: int, jumps: Jumps | None,
        above: bool,
    ) -> _Reason:  # fmt: skip
        """`allowed`: as at the update's length, so also where that is extrapolated to none;
        `above`: it brought more than predicted, of what the truth's own step brought."""
        if jumps is not None and jumps.kind in ("harmful", "open", "rough"):
            return "jump"
        if jumps is not None and jumps.bends:
            return "step"
        shortened = self._realised_share(cell, among, to_zero=True)
        if shortened is None and self._bends(TRUE_CELL, among):
            return "step"  # taken at one length only: like the truth's own
        bends = self._bends(cell, among) or self._bends(TRUE_CELL, among)
        if shortened is not None and bends and not _apart(shortened, promised, allowed):
            return "step"
        if above and cell != TRUE_CELL and self._bends(TRUE_CELL, among):
            return "step"  # the truth's own, as long, brought too little to be a measure
        if self.termination == "mask" and self.ended > 0:
            return "boundary"
        return "law"

    def _bends(self, cell: Cell, among: int) -> bool:
        """Does the gain per length differ between lengths, beyond the interval of that?"""
        two = self._two_lengths(cell) if cell in self.cells else None
        if two is None:
            return False
        per_length = self.gain[self.cells.index(cell)] / self.lengths[:, None]
        change = per_length[two[1]] - per_length[two[0]]
        ends = mean_interval(sample_mean(change, self.size), among)
        return not ends.low <= 0 <= ends.high

    def table(self) -> pd.DataFrame:
        """One row per cell and length.

        Columns: estimator, horizon, status ("not taken": by no step of that length), step, moves,
        update (is it the user's?), value, ci_low, ci_high (change of the return), share, share_low,
        share_high (of the gain of the `reference`), n.
        """
        rows = [self._row(cell, k) for cell in self.cells for k in range(len(self.lengths))]
        return pd.DataFrame(rows, columns=_COLUMNS)

    def _row(self, cell: Cell, length: int) -> tuple[object, ...]:
        status: str = self.status_of(cell)
        ends = Interval(np.nan, np.nan, np.nan, "")
        value, share = np.nan, (np.nan, ends)
        if status == "stepped" and not self.taken(cell, length):
            status = "not taken"
        if status == "stepped":
            value, ends = self.change(cell, length).value, self.ends(cell, length)
            share = self.share(cell, length) or share
        step = float(self.lengths[length]), self.moves[length], length == self.at
        shared = share[0], share[1].low, share[1].high
        return (*cell, status, *step, value, ends.low, ends.high, *shared, self.judges)


def _apart(realised: _Share, promised: _Promised, allowed: float) -> bool:
    """Do they exclude one another, by more than is allowed?"""
    (value, ends), (wanted, (low, high)) = realised, promised
    return abs(value - wanted) > allowed and (ends.low > high or ends.high < low)
