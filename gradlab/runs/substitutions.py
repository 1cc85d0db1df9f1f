"""Results of the substitutions of a measurement: plain arrays that travel with its profile.

Coalitions hold v(S), the squared bias with the truth in the place of the parts in S, for all sets;
rows split each part's share over entries and steps; draws say what policy noise, dynamics noise
and ensemble members add to a variance. Everything with its values for each group left out, from
which any interval follows; those of the rows in float32, as deviations of at most 1 times `scale`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.identity import Cell
from gradlab.runs.layout import nested, stored
from gradlab.statistics.moments import Estimate
from gradlab.statistics.shapley import Game

_Floats = NDArray[np.float64]
_UNIT = "gradient norm squared"
CELL, CELL_UNIT = ("estimator", "horizon"), ("", "steps")


@dataclass(frozen=True)
class Label:
    """What a row is about: an entry of a block, or a step; −1 where it is about neither.

    Attributes:
        cell: index into `Coalitions.cells`; cause: one of `Coalitions.players`.
        block: "" for a step; output, input: its row and column (a gradient's output is 0).
    """

    cell: int
    cause: str
    block: str
    output: int
    input: int
    step: int


@dataclass(frozen=True, eq=False)
class Coalitions:
    """v(S) of every attributed cell: value [C, 2^k], left_out [C, 2^k, G]; mean [C, 2]: of which
    v(∅) is the square (`moments.Estimate`)."""

    players: Annotated[tuple[str, ...], stored("player", name="player")]
    cells: Annotated[tuple[Cell, ...], stored("cell", name=CELL, unit=CELL_UNIT)]
    value: Annotated[_Floats, stored("cell", "set", unit=_UNIT)]
    left_out: Annotated[_Floats, stored("cell", "set", "group", unit=_UNIT)]
    mean: Annotated[_Floats, stored("cell", "square_and_variance_along", unit=_UNIT)]

    def game(self, cell: int) -> Game:
        square, along = self.mean[cell].tolist()
        return Game(self.players, self.value[cell], self.left_out[cell], (square, along))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Shares of entries and steps: value [R], scale [R], deviation [R, G] float32."""

    labels: Annotated[tuple[Label, ...], stored("row")]
    value: Annotated[_Floats, stored("row", unit=_UNIT)]
    scale: Annotated[_Floats, stored("row", unit=_UNIT)]
    deviation: Annotated[NDArray[np.float32], stored("row", "group")]

    def estimate(self, row: int) -> Estimate:
        deviation = self.scale[row] * self.deviation[row].astype(np.float64)
        return Estimate(float(self.value[row]), self.value[row] + deviation)


@dataclass(frozen=True, eq=False)
class VarianceDraws:
    """What each source adds to the variance of each cell: value [V, S], left_out [V, S, G]."""

    sources: Annotated[tuple[str, ...], stored("source", name="source")]
    cells: Annotated[tuple[Cell, ...], stored("cell", name=CELL, unit=CELL_UNIT)]
    value: Annotated[_Floats, stored("cell", "draw", unit=_UNIT)]
    left_out: Annotated[_Floats, stored("cell", "draw", "group", unit=_UNIT)]


@dataclass(frozen=True, eq=False)
class SubstitutionResults:
    """See above.

    Attributes:
        state_names, action_names: the coordinates that rows count.
        skipped: estimator → why nothing was substituted ("variance of NAME": why nothing redrawn).
        rule: how the horizons were chosen.
    """

    coalitions: Annotated[Coalitions, nested("attribution_games")]
    rows: Annotated[_Rows, nested("attribution_rows")]
    draws: Annotated[VarianceDraws, nested("attribution_draws")]
    state_names: Annotated[tuple[str, ...], stored("state", name="state")]
    action_names: Annotated[tuple[str, ...], stored("action", name="action")]
    skipped: Annotated[Mapping[str, str], stored("skip", name=("skipped", "why"))]
    rule: Annotated[str, stored()]

    def __post_init__(self) -> None:
        cells = len(self.coalitions.cells)
        if any(not 0 <= each.cell < cells for each in self.rows.labels):
            raise ValueError("a row belongs to no attributed cell")


def rows_of(labelled: Sequence[tuple[Label, Estimate]]) -> _Rows:
    """Rows of estimates; those that are exactly 0, with every group left out, are left out."""
    kept = [(label, e) for label, e in labelled if e.value != 0 or e.left_out.any()]
    groups = len(labelled[0][1].left_out) if labelled else 0
    value = np.array([e.value for _, e in kept], dtype=np.float64)
    deviation = np.array([e.left_out - e.value for _, e in kept]).reshape(len(kept), groups)
    scale = np.abs(deviation).max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):  # an overflow stays one
        deviation = deviation / np.where(scale > 0, scale, 1.0)[:, None]
    return _Rows(tuple(label for label, _ in kept), value, scale, deviation.astype(np.float32))
