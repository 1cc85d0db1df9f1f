"""Rows of the long table, from estimates of K numbers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.long_table import COLUMNS, NUMBERS
from gradlab.statistics.over_groups import Estimates

Label = str | Sequence[str] | NDArray[np.object_]


@dataclass(frozen=True)
class At:
    """What rows are of; a label is one for all of them, or one each."""

    block: Label = ""
    output: Label = ""
    input: Label = ""
    step: float | NDArray[Any] = np.nan
    x: float | NDArray[Any] = np.nan


NOWHERE = At()


@dataclass
class Rows:
    """Collects rows; `columns` is the table by column."""

    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def add(self, section: str, quantity: str, estimates: Estimates, at: At = NOWHERE) -> None:
        """One row per estimate."""
        values = {
            "section": section,
            "block": at.block,
            "output": at.output,
            "input": at.input,
            "step": at.step,
            "x": at.x,
            "quantity": quantity,
            "value": estimates.value,
            "se": estimates.se,
            "ci_low": estimates.low,
            "ci_high": estimates.high,
            "n": estimates.n,
            "method": estimates.method,
        }
        rows = len(estimates.value)
        self.parts.append({name: _column(name, values[name], rows) for name in COLUMNS})

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate([part[name] for part in self.parts]) for name in COLUMNS}


def number(value: float, low: float, high: float, n: int, method: str) -> Estimates:
    """A single number with its interval, where it has one."""
    centre, se, lower, upper = (np.array([float(x)]) for x in (value, np.nan, low, high))
    return Estimates(centre, se, lower, upper, np.array([n]), method)


def _column(name: str, value: object, rows: int) -> NDArray[Any]:
    kind: Any = np.int64 if name == "n" else np.float64 if name in NUMBERS else object
    return np.broadcast_to(np.asarray(value, dtype=kind), (rows,)).copy()
