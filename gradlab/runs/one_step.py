"""What one step along each gradient did to the return, as it was recorded; read without torch.

    ΔJ(d) = J(θ + η d/|d|) − J(θ)        share(d) = ΔJ(d) / ΔJ(truth)

Every step has the same length η, so that directions are judged and not scales; returns are of
starts that made none of the gradients, with the same noise before and after the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics.comparison import ratio_interval
from gradlab.statistics.intervals import Interval, skewness_corrected
from gradlab.statistics.intervals import jackknife_se as se_of
from gradlab.statistics.moments import Estimate
from gradlab.storage import records

Floats = NDArray[np.float64]
TRUTH = "truth"  # in the place of an estimator's name
LINEAR = 0.1  # largest even part of the return's change over its odd part


@dataclass(frozen=True, eq=False)
class Consequence:
    """Realised changes of the discounted return, by group of starts.

    Attributes:
        cells: estimator and horizon of each step; the first is (`TRUTH`, 0), the true gradient.
        gain: [cells, G], J(θ + η d) − J(θ) summed over each group; size: [G] starts in it.
        step: η, the length of each step in θ; moves: by which share of their size it moves the
            actions along the truth.
        curvature: even over odd part of the return's change at ± η along the truth.
        steps: [S] signed lengths of the slices, 0 among them; sliced: cells whose slices were
            taken; slices: [sliced, S, G] the same change of the return.
        horizon: T, steps that a return sums; made: starts whose mean made the gradients.
    """

    cells: tuple[tuple[str, int], ...]
    gain: Floats
    size: Floats
    step: float
    moves: float
    curvature: float
    steps: Floats
    sliced: tuple[tuple[str, int], ...]
    slices: Floats
    horizon: int
    made: int

    @property
    def starts(self) -> int:
        """How many starts the returns are of."""
        return int(self.size.sum())

    def change(self, cell: tuple[str, int]) -> Estimate:
        """Mean change of the return by one step."""
        return _mean(self.gain[self.cells.index(cell)], self.size)

    def share(self, cell: tuple[str, int]) -> tuple[float, Interval] | None:
        """Of the truth's gain, paired; None where that is not clearly above 0."""
        own, true = self.change(cell), self.change((TRUTH, 0))
        if not interval_of(true).low > 0:
            return None
        return own.value / true.value, ratio_interval(own, true)

    def table(self) -> pd.DataFrame:
        """Rows of kind "step" (one per cell) and "slice" (one per sliced cell and length).

        Columns: kind, estimator, horizon, step, value, ci_low, ci_high, share, share_low,
        share_high, n.
        """
        return pd.DataFrame([*map(self._step, self.cells), *self._slices()])

    def _step(self, cell: tuple[str, int]) -> dict[str, object]:
        share = self.share(cell)
        value, found = (np.nan, None) if share is None else share
        return {
            **self._row("step", cell, self.step, self.change(cell)),
            "share": value,
            "share_low": np.nan if found is None else found.low,
            "share_high": np.nan if found is None else found.high,
        }

    def _slices(self) -> list[dict[str, object]]:
        return [
            self._row("slice", cell, float(step), _mean(self.slices[k, s], self.size))
            for k, cell in enumerate(self.sliced)
            for s, step in enumerate(self.steps)
        ]

    def _row(
        self, kind: str, cell: tuple[str, int], step: float, found: Estimate
    ) -> dict[str, object]:
        ends = interval_of(found)
        return {
            "kind": kind,
            "estimator": cell[0],
            "horizon": cell[1],
            "step": step,
            "value": found.value,
            "ci_low": ends.low,
            "ci_high": ends.high,
            "n": self.starts,
        }


def interval_of(change: Estimate) -> Interval:
    """95% interval of a change of the return."""
    low, high = skewness_corrected(change)
    return Interval(low, high, se_of(change.left_out), "jackknife with skewness")


def _mean(sums: Floats, size: Floats) -> Estimate:
    n = size.sum()
    return Estimate(float(sums.sum() / n), (sums.sum() - sums) / (n - size))


def consequence_group(found: Consequence) -> dict[str, records.Array]:
    """As a table of a run."""
    names = np.array([name for name, _ in found.cells], dtype=object)
    plain = {
        "step": found.step,
        "moves": found.moves,
        "curvature": found.curvature,
        "horizon": found.horizon,
        "made": found.made,
    }
    sliced = np.array([found.cells.index(cell) for cell in found.sliced], dtype=np.int64)
    unit = "discounted return"
    return {
        "cell": records.Array(np.arange(len(found.cells)), ("cell",)),
        "estimator": records.Array(names, ("cell",)),
        "at": records.Array(np.array([h for _, h in found.cells]), ("cell",), "steps"),
        "group": records.Array(np.arange(len(found.size)), ("group",)),
        "size": records.Array(found.size, ("group",), "starts"),
        "gain": records.Array(found.gain, ("cell", "group"), unit),
        "length": records.Array(found.steps, ("length",), "norm of θ"),
        "sliced": records.Array(sliced, ("sliced",)),
        "slices": records.Array(found.slices, ("sliced", "length", "group"), unit),
        "told": records.Array(np.array([json.dumps(plain)], dtype=object), ("one",)),
        "one": records.Array(np.arange(1), ("one",)),
    }


def consequence_from_group(group: Mapping[str, records.Array]) -> Consequence:
    """What `consequence_group` wrote."""
    told = json.loads(str(group["told"].values[0]))
    named = zip(group["estimator"].values, group["at"].values, strict=True)
    cells = tuple((str(name), int(h)) for name, h in named)
    arrays = {
        name: np.asarray(group[name].values, dtype=np.float64)
        for name in ("gain", "size", "length", "slices")
    }
    sliced = tuple(cells[int(k)] for k in group["sliced"].values)
    size, steps = arrays["size"], arrays["length"]
    return Consequence(
        cells=cells,
        gain=arrays["gain"].reshape(len(cells), len(size)),
        size=size,
        step=float(told["step"]),
        moves=float(told["moves"]),
        curvature=float(told["curvature"]),
        steps=steps,
        sliced=sliced,
        slices=arrays["slices"].reshape(len(sliced), len(steps), len(size)),
        horizon=int(told["horizon"]),
        made=int(told["made"]),
    )
