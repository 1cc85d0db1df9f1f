"""A run that is one long table, with the names of its coordinates and what it was made from.

A row is one number with its interval: (section, block, output, input, step, x, quantity) → value,
se, ci_low, ci_high, n, method. Two kinds of run are such tables: comparisons of Jacobians and what
logs say (`tools.jacobians`, `tools.logs`); each says what its sections hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.layout import attribute, stored
from gradlab.runs.run import Run
from gradlab.statistics.comparison import Number
from gradlab.statistics.over_groups import Estimates

_LABELS = ("section", "block", "output", "input")
_NUMBERS = ("step", "x", "value", "se", "ci_low", "ci_high")
_COLUMNS = (*_LABELS, "step", "x", "quantity", "value", "se", "ci_low", "ci_high", "n", "method")

_UNITS = tuple({"step": "steps", "n": "samples"}.get(name, "") for name in _COLUMNS)
_Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class LongTable(Run):
    """
    Attributes:
        columns: the table by column.
        state_names, action_names: the coordinates.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know.
    """

    columns: Annotated[_Columns, stored("row", each=_COLUMNS, unit=_UNITS)]
    state_names: Annotated[
        tuple[str, ...], stored("state_names", name="state_names", group="coordinates")
    ]
    action_names: Annotated[
        tuple[str, ...], stored("action_names", name="action_names", group="coordinates")
    ]
    config: Annotated[Mapping[str, Any], attribute()]
    environment: Annotated[Mapping[str, str], attribute()]
    notes: Annotated[Mapping[str, Any], attribute()]
    file: Path | None = None

    def __post_init__(self) -> None:
        typed = {name: np.asarray(self.columns[name], dtype=_kind(name)) for name in _COLUMNS}
        object.__setattr__(self, "columns", typed)
        if any(len(set(each)) < len(each) for each in (self.state_names, self.action_names)):
            raise ValueError("names of coordinates repeat")

    def table(self, name: str | None = None) -> pd.DataFrame:
        """One row per number; see the module of its kind for the sections."""
        if name is not None:
            return super().table(name)
        return pd.DataFrame({name: self.columns[name] for name in _COLUMNS})

    def rows(self, section: str, **where: object) -> pd.DataFrame:
        """The rows of one section, where columns have given values."""
        table = self.table()
        chosen = table["section"] == section
        for name, wanted in where.items():
            chosen &= table[name] == wanted
        return table[chosen]

    def numbers(self, section: str, quantity: str, by: str = "block", **where: object) -> Numbers:
        """The numbers of one quantity by a label, or by their step; without those that are lost."""
        rows = self.rows(section, quantity=quantity, **where).to_dict("records")
        return {row[by]: number_of(row) for row in rows if row["value"] == row["value"]}

    def number(self, section: str, quantity: str, **where: object) -> Number | None:
        """The first of them; None where there is none."""
        return next(iter(self.numbers(section, quantity, "block", **where).values()), None)


Numbers = dict[Any, Number]


def number_of(row: Mapping[Any, Any] | pd.Series) -> Number:
    """Of a row of the table."""
    value, se, low, high = (float(row[name]) for name in ("value", "se", "ci_low", "ci_high"))
    return Number(value, low, high, int(row["n"]), se)


def _kind(name: str) -> Any:
    return np.int64 if name == "n" else np.float64 if name in _NUMBERS else object


_Label = str | Sequence[str] | NDArray[np.object_]


@dataclass(frozen=True)
class At:
    """What rows are of; a label is one for all of them, or one each."""

    block: _Label = ""
    output: _Label = ""
    input: _Label = ""
    step: float | NDArray[Any] = np.nan
    x: float | NDArray[Any] = np.nan


_NOWHERE = At()


@dataclass
class RowCollector:
    """Collects rows; `columns` is the table by column."""

    parts: list[pd.DataFrame] = field(default_factory=list)

    def add(self, section: str, quantity: str, estimates: Estimates, at: At = _NOWHERE) -> None:
        """One row per estimate."""
        numbers = {
            "value": estimates.value,
            "se": estimates.se,
            "ci_low": estimates.low,
            "ci_high": estimates.high,
            "n": estimates.n,
            "method": estimates.method,
        }
        values = {"section": section, **vars(at), "quantity": quantity, **numbers}
        self.parts.append(pd.DataFrame(values, index=range(len(estimates.value))))

    @property
    def columns(self) -> _Columns:
        table = pd.concat(self.parts)
        return {name: table[name].to_numpy(_kind(name)) for name in _COLUMNS}


def number(
    value: float, low: float, high: float, n: int, method: str, se: float = np.nan
) -> Estimates:
    """A single number with its interval, where it has one."""
    centre, error, lower, upper = (np.array([float(x)]) for x in (value, se, low, high))
    return Estimates(centre, error, lower, upper, np.array([n]), method)
