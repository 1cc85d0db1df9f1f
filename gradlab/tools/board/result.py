"""What the board knows: cells as lines of JSON, and what a reader compares.

gain     change of the return by the first update, as a share of the largest of the group
lasts    updates after which the return along the estimator is highest, 0: no update is shown to
         raise it
kept     change of the return after all updates, as a share of the largest of the group
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab.errors import InputError
from gradlab.statistics.over_groups import aggregate

CELLS = "cells"
_NAME = re.compile(r'^NAME = "(.+)"$', re.MULTILINE)
_STAGES = ("early", "middle", "late")  # of a training; others by name, after these


@dataclass(frozen=True)
class Group:
    """One policy, critic and model: a task, at one stage of one training."""

    task: str
    stage: str
    seed: int


class ReturnChange(NamedTuple):
    """Change of the return after some updates, with its 95% interval over starts."""

    updates: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """An estimator in a group.

    Attributes:
        followed: outcomes of its updates, the critic fitted again on the way; rehearsed: the same
            with critic and model frozen; () where the cell is empty.
        snr: |mean|² / variance of one batch's gradient; seconds: of computing it.
        starts: of the returns; wall: seconds of the cell.
        reason: why the cell is empty; "" where it is not.
    """

    task: str
    stage: str
    seed: int
    estimator: str
    followed: tuple[ReturnChange, ...] = ()
    rehearsed: tuple[ReturnChange, ...] = ()
    snr: float | None = None
    seconds: float | None = None
    starts: int = 0
    wall: float = 0.0
    reason: str = ""
    version: str = ""
    commit: str = ""

    @property
    def group(self) -> Group:
        return Group(self.task, self.stage, self.seed)

    @property
    def lasts(self) -> int | None:
        """Updates after which the return is highest; 0: none is shown to raise it; None: empty."""
        there = [each for each in self.followed if np.isfinite(each.value)]
        if not self.followed or not there:
            return 0 if self.followed else None
        best = max(there, key=lambda each: each.value)
        return best.updates if best.low > 0 else 0

    def after(self, updates: int, rehearsed: bool = False) -> ReturnChange:
        """The outcome after so many updates, or the last before; NaN where there is none."""
        outcomes = self.rehearsed if rehearsed else self.followed
        there = [each for each in outcomes if each.updates <= updates]
        return there[-1] if there else ReturnChange(0, *[float("nan")] * 3)


def cells_of(file: Path) -> list[Cell]:
    """Cells of one file; none where it is not there. A line that a kill cut short is left out, and
    of a cell that two commands computed at the same time the first is kept.

    Raises:
        InputError: a line in the middle is no cell.
    """
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            values = {each.name: values[each.name] for each in fields(Cell)}
            for name in ("followed", "rehearsed"):
                values[name] = tuple(
                    ReturnChange(int(k), *map(float, ends)) for k, *ends in values[name]
                )
            found.append(Cell(**values))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no end of line: it was being written
                break
            raise InputError(
                f"{file}:{number} is no cell of a board ({error}): delete the line, and the board "
                f"computes it again"
            ) from None
    first: dict[tuple[Group, str], Cell] = {}
    for each in found:
        first.setdefault((each.group, each.estimator), each)
    return list(first.values())


def computed(cells: Iterable[Cell]) -> set[tuple[Group, str]]:
    """Where there is a cell, empty ones included."""
    return {(cell.group, cell.estimator) for cell in cells}


@dataclass(frozen=True, eq=False)
class Board:
    """Cells of a folder.

    Attributes:
        oracles: estimators whose file says SIMULATOR = True: they differentiate the simulator.
        names: what figures and sentences call an estimator whose file has a NAME.
    """

    folder: Path
    cells: tuple[Cell, ...]
    oracles: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per task, stage and estimator, over seeds.

        Columns: task, stage, estimator, seeds, gain, gain_low, gain_high (share of the best first
        update), kept, kept_low, kept_high (share of the best after all updates), lasts, lasts_low,
        lasts_high (updates), snr, seconds (of one gradient), starts, commits, reason. Medians over
        seeds with the order statistics around them; shares where some estimator of the group is
        shown to raise the return.
        """
        first, last = (self._best(place) for place in (0, -1))
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.task, cell.stage, cell.estimator), []).append(cell)
        rows = []
        for (task, stage, estimator), cells in sorted(groups.items(), key=_order):
            there = [cell for cell in cells if cell.followed]
            shares = {
                "gain": [_share(cell.followed[0], first.get(cell.group)) for cell in there],
                "kept": [_share(cell.followed[-1], last.get(cell.group)) for cell in there],
                "lasts": [float(cell.lasts or 0) for cell in there],
            }
            row: dict[str, Any] = {"task": task, "stage": stage, "estimator": estimator}
            row["seeds"] = len(there)
            for name, values in shares.items():
                row |= _over_seeds(name, values)
            row |= {
                "snr": _median(cell.snr for cell in there),
                "seconds": _median(cell.seconds for cell in there),
                "starts": max((cell.starts for cell in there), default=0),
                "commits": len({cell.commit for cell in cells}),
                "reason": next((cell.reason for cell in cells if cell.reason), ""),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def _best(self, place: int) -> dict[Group, float]:
        """Largest change of the return in each group where it is shown to be above 0."""
        best: dict[Group, ReturnChange] = {}
        for cell in self.cells:
            if cell.followed and np.isfinite(cell.followed[place].value):
                each = cell.followed[place]
                if cell.group not in best or each.value > best[cell.group].value:
                    best[cell.group] = each
        return {group: each.value for group, each in best.items() if each.low > 0}


def _order(item: tuple[tuple[str, str, str], object]) -> tuple[str, int, str, str]:
    (task, stage, estimator), _ = item
    place = _STAGES.index(stage) if stage in _STAGES else len(_STAGES)
    return task, place, stage, estimator


def _share(outcome: ReturnChange, best: float | None) -> float:
    """NaN where no estimator of the group raises the return; a lost branch is −∞."""
    if best is None:
        return float("nan")
    return outcome.value / best if np.isfinite(outcome.value) else -float("inf")


def _over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    there = [value for value in values if not np.isnan(value)]
    if not there:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    found = aggregate(np.array(there))
    ends = (found.value, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, ends), strict=True))


def _median(values: Iterable[float | None]) -> float:
    there = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.median(there)) if there else float("nan")


def load(folder: str | Path) -> Board:
    """The board in a folder.

    Raises:
        InputError: the folder is no board, or a line of it is no cell.
    """
    place = Path(folder)
    if not (place / "tasks").is_dir():
        raise InputError(
            f"{folder} is no board: expected folders tasks, estimators and cells in it"
        )
    cells = [cell for file in sorted((place / CELLS).glob("*.jsonl")) for cell in cells_of(file)]
    texts = {each.stem: each.read_text("utf-8") for each in (place / "estimators").glob("*.py")}
    oracles = (name for name, text in texts.items() if "\nSIMULATOR = True\n" in text)
    named = {name: _NAME.search(text) for name, text in texts.items()}
    names = {name: found[1] for name, found in named.items() if found}
    return Board(place, tuple(cells), frozenset(oracles), names)
