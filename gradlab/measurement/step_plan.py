"""The plan of the steps: directions, lengths and starts, decided by counting simulator steps.

A judged direction is rolled out at two lengths from n starts for T steps, the truth along −η, too.
Rollouts are paid for in simulator steps, whose number is known before anything is run: a clock
would make a seed give other numbers on another day. All cells at once come first; where they do
not fit, the first ones from fewer starts. Read without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.runs.one_step import Cell

LADDER = (256, 128, 64, 32, 16)  # starts that returns are of
ENOUGH = 64  # starts beyond which more cells are worth more than more starts
FEWEST = 5  # cells that are worth more than more starts
MOST = 10  # cells
GRID = (1, 2, 5, 10)  # horizons, and the longest, where no gain says which
LENGTHS = 2  # of a step along each direction
PROBED = 16  # starts on which the linear range is looked for
PROBES = 13  # rollouts of each of them


@dataclass(frozen=True)
class Plan:
    """What is rolled out: cells, starts, steps of an episode, and how many steps that makes."""

    cells: tuple[Cell, ...]
    judges: int
    horizon: int
    steps: int


def planned(
    cells: Sequence[Cell],
    horizons: Sequence[int],
    budget: float,
    truth: bool,
    judges: int | None = None,
) -> Plan:
    """The most that the budget buys, at least `FEWEST` cells from 16 starts.

    Args:
        cells: the first ones first.
        horizons: T that will do, the best one first.
        budget: simulator steps.
        truth: are the truth's own steps to be taken, too, and their linear range found?
        judges: as many starts, instead; every cell is then taken.
    """
    if judges is not None:
        horizon = horizons[0]
        return Plan(tuple(cells), judges, horizon, _steps(len(cells), judges, horizon, truth))
    fewest = min(FEWEST, len(cells))
    for horizon in horizons:
        for n in LADDER:
            fitting = [
                k for k in range(fewest, len(cells) + 1) if _steps(k, n, horizon, truth) <= budget
            ]
            if fitting and (fitting[-1] == len(cells) or n <= ENOUGH):
                k = fitting[-1]
                return Plan(tuple(cells[:k]), n, horizon, _steps(k, n, horizon, truth))
    n, horizon = LADDER[-1], horizons[-1]
    return Plan(tuple(cells[:fewest]), n, horizon, _steps(fewest, n, horizon, truth))


def _steps(cells: int, judges: int, horizon: int, truth: bool) -> int:
    rollouts = 1 + LENGTHS * cells
    if not truth:
        return horizon * judges * rollouts
    return horizon * (judges * (rollouts + 2 * LENGTHS) + PROBED * PROBES)


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
            wanted = (*GRID, horizons[-1])[place]
            spread.append((name, min(horizons, key=lambda h: abs(h - wanted))))
    return spread
