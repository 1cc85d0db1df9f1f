"""A run that is one long table, with the names of its coordinates and what it was made from.

A row is one number with its interval: (section, block, output, input, step, x, quantity) → value,
se, ci_low, ci_high, n, method. Two kinds of run are such tables: comparisons of Jacobians and what
logs say (`tools.jacobians`, `tools.logs`); each says what its sections hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics.over_groups import Estimates
from gradlab.storage import codec, records
from gradlab.storage.codec import content_of, described, header
from gradlab.storage.records import Record

_LABELS = ("section", "block", "output", "input")
_NUMBERS = ("step", "x", "value", "se", "ci_low", "ci_high")
_COLUMNS = (*_LABELS, "step", "x", "quantity", "value", "se", "ci_low", "ci_high", "n", "method")

_Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class LongTable:
    """
    Attributes:
        kind: of its files, and the name of the table in them; called: the same in messages.
        units: of columns that have one.
        columns: the table by column, each [rows].
        state_names, action_names: the coordinates.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know.
    """

    kind: ClassVar[str]
    called: ClassVar[str]
    units: ClassVar[Mapping[str, str]]

    columns: _Columns
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]

    def table(self) -> pd.DataFrame:
        """One row per number; see the module of its kind for the sections."""
        return pd.DataFrame({name: self.columns[name] for name in _COLUMNS})

    def rows(self, section: str, **where: object) -> pd.DataFrame:
        """The rows of one section, where columns have given values."""
        table = self.table()
        chosen = table["section"] == section
        for name, wanted in where.items():
            chosen &= table[name] == wanted
        return table[chosen]

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        names = ("state_names", "action_names")
        coordinates = {name: codec.labels(getattr(self, name), name) for name in names}
        table = codec.by_column({name: self.columns[name] for name in _COLUMNS}, self.units)
        attributes = header(self.kind, self.config, self.environment, notes=self.notes)
        groups = {self.kind: table, "coordinates": coordinates}
        records.write(path, Record(attributes, groups), overwrite)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The run in a file written by `save`; nothing but the file is needed.

        Raises:
            InputError: the file is missing, foreign, damaged, or of another kind.
        """
        record = records.read(path)
        with content_of(record, Path(path), cls.kind, cls.called):
            table, named = codec.columns(record.groups[cls.kind]), record.groups["coordinates"]
            names = {
                name: tuple(str(each) for each in named[name].values)
                for name in ("state_names", "action_names")
            }
            if any(len(set(each)) < len(each) for each in names.values()):
                raise ValueError("names of coordinates repeat")
            return cls(
                columns={name: np.asarray(table[name], dtype=_kind(name)) for name in _COLUMNS},
                state_names=names["state_names"],
                action_names=names["action_names"],
                **described(record, "notes"),
            )


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

    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def add(self, section: str, quantity: str, estimates: Estimates, at: At = _NOWHERE) -> None:
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
        self.parts.append(
            {
                name: np.broadcast_to(np.asarray(values[name], dtype=_kind(name)), (rows,)).copy()
                for name in _COLUMNS
            }
        )

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate([part[name] for part in self.parts]) for name in _COLUMNS}


def number(value: float, low: float, high: float, n: int, method: str) -> Estimates:
    """A single number with its interval, where it has one."""
    centre, se, lower, upper = (np.array([float(x)]) for x in (value, np.nan, low, high))
    return Estimates(centre, se, lower, upper, np.array([n]), method)
