"""The plan of the steps: which directions at which lengths, decided by counting simulator steps.

From as many fresh starts as were measured, T steps each, at a quarter of the user's update, at the
update and at three times of it: the truth, the data gradient and the cells of largest gain, in any
case. Further cells are stepped along by the update alone, as many as the budget buys, and as make
five: rollouts are paid for in simulator steps, whose number is known before anything is run. A
clock would make a seed give other numbers on another day. Read without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.runs.realised import Cell

MOVES = (0.25, 1.0, 3.0)  # lengths of a step, in units of the user's update
UPDATE = 1  # place of the update itself
FEWEST, MOST = 5, 10  # cells
_GRID = (1, 2, 5, 10)  # horizons, and the longest, where no gain says which


@dataclass(frozen=True)
class _Plan:
    """What is rolled out: cells at all lengths, further ones at the update's, steps of an episode,
    and how many steps that makes."""

    everywhere: tuple[Cell, ...]
    once: tuple[Cell, ...]
    judges: int
    horizon: int
    steps: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (*self.everywhere, *self.once)


def planned(
    first: Sequence[Cell],
    further: Sequence[Cell],
    horizons: Sequence[int],
    budget: float,
    judges: int,
    references: int = 0,
) -> _Plan:
    """
    Args:
        first: cells that are stepped along in any case; further: the first ones first.
        horizons: T that will do, the best one first; another one only where what has to be rolled
            out exceeds the budget.
        budget: simulator steps.
        judges: starts that returns are of.
        references: directions beside those of the cells, at all lengths.
    """
    rollouts = 1 + len(MOVES) * (len(first) + references)
    fitting = [T for T in horizons if T * judges * rollouts <= budget]
    horizon = fitting[0] if fitting else horizons[-1]
    room = int(budget / (horizon * judges)) - rollouts
    once = tuple(further[: max(room, FEWEST - len(first), 0)])
    return _Plan(tuple(first), once, judges, horizon, horizon * judges * (rollouts + len(once)))


def chosen_cells(
    measured: Iterable[Cell],
    gains: pd.DataFrame | None,
    controls: Collection[str] = (),
    most: int = MOST,
) -> tuple[Cell, ...]:
    """The cells whose steps are worth their price, the first ones first.

    With gains to first order: the data gradient, each estimator's best horizon, the shortest that
    is shown to harm, those of controls, the longest. Without: the data gradient and a geometric
    grid of horizons, whose middle comes first.

    Args:
        measured: every cell that has a mean gradient.
        gains: rows of a profile's table with quantity "gain"; None: there is no truth. Where that
            is not distinguishable from zero no gain is finite, and cells are chosen as without one.
        controls: estimators that are made like the truth: what they gain is seldom news.
    """
    by_name: dict[str, list[int]] = {}
    for name, horizon in measured:
        by_name.setdefault(name, []).append(horizon)
    data = [(name, 0) for name, over in by_name.items() if max(over) == 0]
    over = {
        name: sorted(h for h in horizons if h)
        for name, horizons in by_name.items()
        if max(horizons)
    }
    if gains is None or not np.isfinite(gains["value"]).any():
        return tuple(dict.fromkeys([*data, *_grid(over)]))[:most]
    chosen = [_telling(name, horizons, gains) for name, horizons in over.items()]
    judged = [cells for name, cells in zip(over, chosen, strict=True) if name not in controls]
    control = [cells for name, cells in zip(over, chosen, strict=True) if name in controls]
    ordered = [cells[k] for some in (judged, control) for k in (0, 1) for cells in some]
    longest = [(name, horizons[-1]) for name, horizons in over.items()]
    return tuple(dict.fromkeys(cell for cell in (*data, *ordered, *longest) if cell))[:most]


def first_cells(
    cells: Sequence[Cell], gains: pd.DataFrame | None, families: Sequence[Collection[str]]
) -> tuple[Cell, ...]:
    """Of the chosen cells those that are stepped along at every length: the data gradient, and of
    each family of estimators the cell of largest gain, the first one where no gain is known."""
    value: dict[Cell, float] = {}
    if gains is not None:
        columns = (gains[name] for name in ("estimator", "horizon", "value"))
        value = {(str(n), int(h)): float(v) for n, h, v in zip(*columns, strict=True)}
    data = [cell for cell in cells if cell[1] == 0]
    best = []
    for names in families:
        own = [cell for cell in cells if cell[1] > 0 and cell[0] in names]
        known = [cell for cell in own if np.isfinite(value.get(cell, np.nan))]
        best += [max(known, key=lambda cell: value[cell])] if known else own[:1]
    return tuple(dict.fromkeys([*data, *best]))


def _telling(
    name: str, horizons: list[int], gains: pd.DataFrame
) -> tuple[Cell | None, Cell | None]:
    """The horizon of largest gain and the shortest one that is shown to harm."""
    rows = gains[(gains["estimator"] == name) & gains["horizon"].isin(horizons)]
    rows = rows[np.isfinite(rows["value"])].sort_values("horizon")
    if not len(rows):
        return None, None
    over, harming = rows["horizon"].to_numpy(), rows["ci_high"].to_numpy() < 0
    best = int(over[int(rows["value"].to_numpy().argmax())])
    return (name, best), (name, int(over[harming][0])) if harming.any() else None


def _grid(over: dict[str, list[int]]) -> list[Cell]:
    spread = []
    for place in (2, 0, 3, 4, 1):
        for name, horizons in over.items():
            wanted = (*_GRID, horizons[-1])[place]
            spread.append((name, min(horizons, key=lambda h: abs(h - wanted))))
    return spread
