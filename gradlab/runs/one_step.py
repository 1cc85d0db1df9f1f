"""The change of the return by one step along each gradient, as it was recorded.

    ΔJ(d) = J(θ + η d/|d|) − J(θ)        share(d) = ΔJ(d) / ΔJ(truth)

Every step has the same length η, so that directions are judged and not scales; returns are of
starts that made none of the gradients, with the same noise before and after the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics.comparison import ratio_interval
from gradlab.statistics.intervals import Interval, skewness_corrected
from gradlab.statistics.intervals import jackknife_se as se_of
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.storage.codec import scalar, stored

Floats = NDArray[np.float64]
Cell = tuple[str, int]
Share = tuple[float, Interval]
TRUTH = "truth"  # in the place of an estimator's name
TRUE_CELL: Cell = (TRUTH, 0)
# Directions that are no truth and no estimator, and are stepped along where the return jumps.
PATHWISE, SCORE = "pathwise", "score function"
REFERENCES: tuple[Cell, ...] = (TRUE_CELL, (PATHWISE, 0), (SCORE, 0))
UNIT = "discounted return"
LINEAR = 0.1  # largest even part of the return's change over its odd part


@dataclass(frozen=True, eq=False)
class OneStepImprovement:
    """Realised changes of the discounted return, by group of starts.

    Attributes:
        cells: estimator and horizon of each step; the first is (`TRUTH`, 0), the true gradient.
        gain: [cells, G], J(θ + η d) − J(θ) summed over each group; size: [G] starts in it.
        step: η, the length of each step in θ; moves: by which share of their size it moves the
            actions along the truth.
        curvature: even over odd part of the return's change at ± η along the truth.
        steps: [S] signed lengths of the slices, 0 among them; sliced: places of the
            cells whose slices were taken; slices: [sliced, S, G] the same change of the return.
        horizon: T, steps that a return sums; made: starts whose mean made the gradients.
    """

    cells: Annotated[tuple[Cell, ...], stored("cell", name=("estimator", "at"), unit=("", "steps"))]
    gain: Annotated[Floats, stored("cell", "group", unit=UNIT)]
    size: Annotated[Floats, stored("group", unit="starts")]
    step: Annotated[float, scalar("told")]
    moves: Annotated[float, scalar("told")]
    curvature: Annotated[float, scalar("told")]
    steps: Annotated[Floats, stored("length", name="length", unit="norm of θ")]
    sliced: Annotated[tuple[int, ...], stored("sliced", name="sliced")]
    slices: Annotated[Floats, stored("sliced", "length", "group", unit=UNIT)]
    horizon: Annotated[int, scalar("told")]
    made: Annotated[int, scalar("told")]

    @property
    def starts(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    def change(self, cell: Cell) -> Estimate:
        """Mean change of the return by one step."""
        return sample_mean(self.gain[self.cells.index(cell)], self.size)

    def share(self, cell: Cell) -> Share | None:
        """Of the truth's gain, paired; None where that is not clearly above 0."""
        own, true = self.change(cell), self.change(TRUE_CELL)
        if not interval_of(true).low > 0:
            return None
        return own.value / true.value, ratio_interval(own, true)

    def table(self) -> pd.DataFrame:
        """Rows of kind "step" (one per cell) and "slice" (one per sliced cell and length).

        Columns: kind, estimator, horizon, step, value, ci_low, ci_high, share, share_low,
        share_high, n.
        """
        return pd.DataFrame([*map(self._step, self.cells), *self._slices()])

    def _step(self, cell: Cell) -> dict[str, object]:
        row = self._row("step", cell, self.step, self.change(cell))
        return row | share_columns(self.share(cell))

    def _slices(self) -> list[dict[str, object]]:
        return [
            self._row(
                "slice", self.cells[c], float(step), sample_mean(self.slices[k, s], self.size)
            )
            for k, c in enumerate(self.sliced)
            for s, step in enumerate(self.steps)
        ]

    def _row(self, kind: str, cell: Cell, step: float, estimate: Estimate) -> dict[str, object]:
        ends = interval_of(estimate)
        return {
            "kind": kind,
            "estimator": cell[0],
            "horizon": cell[1],
            "step": step,
            "value": estimate.value,
            "ci_low": ends.low,
            "ci_high": ends.high,
            "n": self.starts,
        }


def interval_of(change: Estimate) -> Interval:
    """95% interval of a change of the return."""
    low, high = skewness_corrected(change)
    return Interval(low, high, se_of(change.left_out), "jackknife with skewness")


def share_columns(share: Share | None) -> dict[str, float]:
    """Of a table: the share of the truth's gain and its interval, NaN where it is unknown."""
    value, low, high = np.nan, np.nan, np.nan
    if share is not None:
        value, low, high = share[0], share[1].low, share[1].high
    return {"share": value, "share_low": low, "share_high": high}
