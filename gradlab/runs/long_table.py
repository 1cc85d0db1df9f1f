"""A run that is one long table, with the names of its coordinates and what it was made from.

A row is one number with its interval: (section, block, output, input, step, x, quantity) → value,
se, ci_low, ci_high, n, method. Two kinds of run are such tables: comparisons of Jacobians and what
logs say (`runs.jacobians`, `runs.logs`); each says what its sections hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.storage import codec, records
from gradlab.storage.headers import content_of, described, header
from gradlab.storage.records import Record

LABELS = ("section", "block", "output", "input")
NUMBERS = ("step", "x", "value", "se", "ci_low", "ci_high")
COLUMNS = (*LABELS, "step", "x", "quantity", "value", "se", "ci_low", "ci_high", "n", "method")

Columns = Mapping[str, NDArray[Any]]


class LongTable(Protocol):
    """What both kinds of run hold; `columns` [rows] each."""

    @property
    def columns(self) -> Columns: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...


def frame(columns: Columns) -> pd.DataFrame:
    """One row per number."""
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def rows(columns: Columns, section: str, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one section, where columns have given values."""
    table = frame(columns)
    chosen = table["section"] == section
    for name, wanted in where.items():
        chosen &= table[name] == wanted
    return table[chosen]


def to_record(run: LongTable, kind: str, units: Mapping[str, str]) -> Record:
    """A record of this kind, whose table has the kind's name.

    Args:
        units: of columns that have one.
    """
    names = ("state_names", "action_names")
    coordinates = {name: codec.labels(getattr(run, name), name) for name in names}
    table = codec.by_column({name: run.columns[name] for name in COLUMNS}, units)
    attributes = header(kind, run.config, run.environment, notes=run.notes)
    return Record(attributes, {kind: table, "coordinates": coordinates})


def fields(path: Path, kind: str, what: str) -> dict[str, Any]:
    """The fields of a `LongTable` in a file, by name.

    Args:
        what: "comparison of Jacobians", as a message calls a run of this kind.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    record = records.read(path)
    with content_of(record, path, kind, what):
        table, names = codec.columns(record.groups[kind]), record.groups["coordinates"]
        return {
            "columns": {name: _column(name, table[name]) for name in COLUMNS},
            "state_names": tuple(str(each) for each in names["state_names"].values),
            "action_names": tuple(str(each) for each in names["action_names"].values),
            **described(record, "notes"),
        }


def _column(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if name == "n":
        return np.asarray(values, dtype=np.int64)
    return np.asarray(values, dtype=np.float64 if name in NUMBERS else object)
