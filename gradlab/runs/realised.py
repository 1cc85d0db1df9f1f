"""Realised gains: the change of the return by steps along gradients, on fresh starts.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),     J = E_ζ Σ_{t<T} γᵗ r_t,     share(d) = κ ΔJ(d) / ΔJ(truth)

Every step has the same length η, of which there are two; starts made none of the gradients, and a
start sees the same noise before and after, so that differences are paired. A direction is the mean
of N samples, whose noise turns it away: κ = |E g| / |ḡ| ≤ 1 is what that leaves of its gain to
first order, and so the part of the best possible gain that the sampled truth itself has. A cell's
own prediction to first order is gain · κ of that cell. Without a truth gains stay in units of the
return, and the best possible one is unknown. Read without torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.one_step import LINEAR, TRUE_CELL, UNIT, Cell, Share, share_columns
from gradlab.statistics.intervals import Interval, Z, student
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.number import Number, decide
from gradlab.statistics.paired import level_of, mean_interval, mean_interval_at, ratio_of_means
from gradlab.statistics.selection import RankSet, chosen_level, largest
from gradlab.storage.codec import scalar, stored

Floats = NDArray[np.float64]
Status = Literal["stepped", "zero", "not finite", "lost"]
Reason = Literal["step", "boundary", "law"]
PRECISE = 0.9  # least κ of a truth whose own gain says what is possible
# A truth's own gain may miss its norm by what its standard error may be: shares, of its direction
# alone, hold all the same.
SCALE = 0.25
GROUPS = 64  # behind intervals of predictions, whose own number a table does not hold


@dataclass(frozen=True)
class Disagreement:
    """A cell whose realised gain is not what it is to first order, and the likeliest reason.

    Attributes:
        realised, predicted: shares of the best possible gain, with simultaneous intervals; of the
            truth itself, shares of η |∇J|.
        reason: "step": it is beyond the linear range; "boundary": episodes end, and pathwise
            gradients do not see that; "law": gradient and returns are of different problems.
    """

    cell: Cell
    realised: float
    realised_ends: tuple[float, float]
    predicted: float
    predicted_ends: tuple[float, float]
    reason: Reason


@dataclass(frozen=True, eq=False)
class Realised:
    """Changes of the discounted return by steps of S lengths along C directions, by group.

    Attributes:
        cells: estimator and horizon of each direction; (`TRUTH`, 0) is first where there is one.
        status: "stepped"; "zero" or "not finite": there is no direction; "lost": a rollout left
            the finite numbers.
        gain: [C, S, G], J(θ + η d) − J(θ) summed over each group of starts; NaN unless stepped.
        opposite: [S, G], the same for −η along the truth; [0, G] without one.
        before: [G], J(θ); size: [G], starts in each group.
        lengths: [S], η, rising; moves: [S], by which share of their size they move actions.
        kept: [C], |E g| / |ḡ| of each direction; NaN where unknown.
        norm: |∇J|; NaN where unknown.
        horizon: T, steps that a return sums; termination: of these rollouts.
        ended: share of the starts whose episode ends before T.
        judges: starts that returns are of; steps: simulator steps that were taken for it.
    """

    cells: Annotated[tuple[Cell, ...], stored("cell", name=("estimator", "at"), unit=("", "steps"))]
    status: Annotated[tuple[Status, ...], stored("cell")]
    gain: Annotated[Floats, stored("cell", "length", "group", unit=UNIT)]
    opposite: Annotated[Floats, stored("length", "group", unit=UNIT, optional=True)]
    before: Annotated[Floats, stored("group", unit=UNIT)]
    size: Annotated[Floats, stored("group", unit="starts")]
    lengths: Annotated[Floats, stored("length", name="length", unit="norm of θ")]
    moves: Annotated[tuple[float, ...], stored("length", unit="share of an action's size")]
    kept: Annotated[Floats, stored("cell")]
    norm: Annotated[float, scalar("plain", text=True)]
    horizon: Annotated[int, scalar("plain")]
    termination: Annotated[str, scalar("plain")]
    ended: Annotated[float, scalar("plain")]
    steps: Annotated[int, scalar("plain")]

    @property
    def judges(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    @property
    def stepped(self) -> tuple[Cell, ...]:
        """Cells with a gain, the truth not among them."""
        pairs = zip(self.cells, self.status, strict=True)
        return tuple(cell for cell, s in pairs if s == "stepped" and cell != TRUE_CELL)

    def among(self, names: Collection[str]) -> Realised:
        """The same of some estimators, and of the truth."""
        here = [k for k, c in enumerate(self.cells) if c == TRUE_CELL or c[0] in names]
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

    def change(self, cell: Cell, length: int = 0) -> Estimate:
        """Mean change of the return by a step of one of the lengths."""
        return sample_mean(self.gain[self.cells.index(cell), length], self.size)

    def over_lengths(self, cell: Cell) -> Estimate:
        """Change of the return per length over all steps, Σ_k ΔJ(η_k) / Σ_k η_k."""
        sums = self.gain[self.cells.index(cell)].sum(axis=0) / self.lengths.sum()
        return sample_mean(sums, self.size)

    def ends(self, cell: Cell, length: int = 0, among: int = 1) -> Interval:
        """Interval of `change`: at 95% alone, or at 95% together with those of other cells."""
        return mean_interval(self.change(cell, length), among)

    def chosen_ends(self, cell: Cell, length: int = 0) -> Interval:
        """Interval of `change` that holds in 95% although the cell was chosen for its gain: with
        those of all cells that may have the largest (`statistics.selection.chosen_level`)."""
        ranks = self._ranked()
        if ranks is None:
            return self.ends(cell, length)
        kept = ranks.kept | np.array([other == cell for other in self.stepped])
        changes = [self.change(other, length) for other in self.stepped]
        return mean_interval_at(self.change(cell, length), chosen_level(changes, kept))

    def share(self, cell: Cell, length: int = 0, among: int = 1) -> Share | None:
        """Of the best possible gain; None where the truth's own is not clearly above 0, or mostly
        noise."""
        if not self._moved(cell) or TRUE_CELL not in self.cells or not self._moved(TRUE_CELL):
            return None
        return self._share(self.change(cell, length), self.change(TRUE_CELL, length), among)

    def _share(self, own: Estimate, true: Estimate, among: int) -> Share | None:
        kept = self.kept_of(TRUE_CELL)
        ends = ratio_of_means(own, true, among)
        if ends is None or not (true.value > 0 and kept >= PRECISE):
            return None
        scaled = Interval(kept * ends.low, kept * ends.high, kept * ends.se, ends.method)
        return kept * own.value / true.value, scaled

    @property
    def best_is_known(self) -> bool:
        """Is there a truth whose steps gain, so that gains are shares of the best possible?"""
        if TRUE_CELL not in self.cells:
            return False
        return all(self.share(TRUE_CELL, k) is not None for k in range(len(self.lengths)))

    def kept_of(self, cell: Cell) -> float:
        """κ of a direction; 1 where its noise is unknown."""
        kept = float(self.kept[self.cells.index(cell)])
        return kept if np.isfinite(kept) else 1.0

    def helps(self, cell: Cell) -> bool:
        """Is the return shown to rise at every length? With 95% for all cells together."""
        return self._moved(cell) and all(each.low > 0 for each in self._simultaneous(cell))

    def harms(self, cell: Cell) -> bool:
        """Is the return shown to fall at every length? With 95% for all cells together."""
        return self._moved(cell) and all(each.high < 0 for each in self._simultaneous(cell))

    def _moved(self, cell: Cell) -> bool:
        return self.status_of(cell) == "stepped"

    def _simultaneous(self, cell: Cell) -> list[Interval]:
        among = len(self.stepped)
        return [self.ends(cell, k, among) for k in range(len(self.lengths))]

    def best(self) -> Cell | None:
        """The largest gain over all lengths; None where nothing was stepped."""
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
        return largest([self.over_lengths(cell) for cell in self.stepped])

    def missing(self, cell: Cell) -> int | None:
        """Further judging starts that would show a cell's sign; None where no affordable number."""
        missing = []
        for k, ends in enumerate(self._simultaneous(cell)):
            change = Number(self.change(cell, k).value, ends.low, ends.high, self.judges)
            decision = decide(change, 0.0)
            if decision.more is None:
                return None
            missing.append(0 if decision.decided else max(decision.more, 1))
        return max(missing)

    def curvature(self, length: int = 0) -> float:
        """Even over odd part of the return's change at ± η along the truth; NaN without one."""
        if TRUE_CELL not in self.cells or not len(self.opposite):
            return float("nan")
        up = float(self.gain[self.cells.index(TRUE_CELL), length].sum())
        down = float(self.opposite[length].sum())
        return abs(up + down) / max(abs(up - down), 1e-300)

    def disagreements(self, gains: pd.DataFrame) -> tuple[Disagreement, ...]:
        """Cells whose realised share and prediction exclude one another, the truth's among them.

        They differ beyond both simultaneous intervals, and by more than a step in the linear range
        may bend (`LINEAR`); the truth's own gain by more than `SCALE`.

        Args:
            gains: rows of a profile's table; those with quantity "gain" are read.
        """
        predicted = self._predicted(gains)
        results = []
        for cell, (value, ends) in predicted.items():
            among = len(predicted)
            realised = self._realised_share(cell, among)
            allowed = SCALE if cell == TRUE_CELL else LINEAR
            if realised is None or abs(realised[0] - value) <= allowed:
                continue
            own = realised[1].low, realised[1].high
            if _apart(own, ends):
                reason = self._reason(cell, ends, among)
                results.append(Disagreement(cell, realised[0], own, value, ends, reason))
        return tuple(results)

    def _predicted(self, gains: pd.DataFrame) -> dict[Cell, tuple[float, tuple[float, float]]]:
        """Shares to first order of these very directions, each with simultaneous ends."""
        rows = gains[gains["quantity"] == "gain"] if len(gains) else gains
        columns = (rows[name] for name in ("estimator", "horizon", "value", "ci_low", "ci_high"))
        shares: dict[Cell, tuple[float, float, float]] = {}
        kept = self.kept_of(TRUE_CELL) if TRUE_CELL in self.cells else 0.0
        if self.norm > 0 and kept >= PRECISE:
            # |T̄|² − |E T|² is its sampling variance, all of it: no less than that along itself.
            error = Z * (1 - kept**2) ** 0.5
            shares[TRUE_CELL] = kept, kept - error, kept + error
        for name, horizon, *values in zip(*columns, strict=True):
            cell = str(name), int(horizon)
            if cell in self.stepped and np.isfinite(values).all():
                value, low, high = (self.kept_of(cell) * float(each) for each in values)
                shares[cell] = value, low, high
        wider = student(GROUPS, level_of(len(shares))) / student(GROUPS)
        return {
            cell: (value, (value + wider * (low - value), value + wider * (high - value)))
            for cell, (value, low, high) in shares.items()
        }

    def _realised_share(self, cell: Cell, among: int, to_zero: bool = False) -> Share | None:
        """At the shorter length, or extrapolated along a line from two lengths to none."""
        own = self._per_length(cell, to_zero)
        if cell == TRUE_CELL:
            scaled = combine(lambda x: x / self.norm, own)
            return scaled.value, mean_interval(scaled, among)
        if TRUE_CELL not in self.cells or not self._moved(TRUE_CELL):
            return None
        return self._share(own, self._per_length(TRUE_CELL, to_zero), among)

    def _per_length(self, cell: Cell, to_zero: bool) -> Estimate:
        sums = self.gain[self.cells.index(cell)] / self.lengths[:, None]
        if to_zero:
            a, b = self.lengths
            return sample_mean((b * sums[0] - a * sums[1]) / (b - a), self.size)
        return sample_mean(sums[0], self.size)

    def _reason(self, cell: Cell, predicted: tuple[float, float], among: int) -> Reason:
        shortened = self._realised_share(cell, among, to_zero=True)
        bends = self._bends(cell, among) or self.curvature() > LINEAR
        if bends and shortened is not None:
            ends = shortened[1].low, shortened[1].high
            if not _apart(ends, predicted):
                return "step"
        if self.termination == "mask" and self.ended > 0:
            return "boundary"
        return "law"

    def _bends(self, cell: Cell, among: int) -> bool:
        """Does the gain per length differ between the two lengths, beyond the interval of that?"""
        per_length = self.gain[self.cells.index(cell)] / self.lengths[:, None]
        ends = mean_interval(sample_mean(per_length[1] - per_length[0], self.size), among)
        return not ends.low <= 0 <= ends.high

    def table(self) -> pd.DataFrame:
        """One row per cell and length.

        Columns: estimator, horizon, status, step, moves, value, ci_low, ci_high (change of the
        return), share, share_low, share_high (of the best possible), n.
        """
        return pd.DataFrame(
            [self._row(cell, k) for cell in self.cells for k in range(len(self.lengths))]
        )

    def _row(self, cell: Cell, length: int) -> dict[str, object]:
        status = self.status_of(cell)
        ends = Interval(np.nan, np.nan, np.nan, "")
        value, share = np.nan, None
        if status == "stepped":
            value, ends = self.change(cell, length).value, self.ends(cell, length)
            share = self.share(cell, length)
        return {
            "estimator": cell[0],
            "horizon": cell[1],
            "status": status,
            "step": float(self.lengths[length]),
            "moves": self.moves[length],
            "value": value,
            "ci_low": ends.low,
            "ci_high": ends.high,
            **share_columns(share),
            "n": self.judges,
        }


def _apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] > other[1] or one[1] < other[0]
