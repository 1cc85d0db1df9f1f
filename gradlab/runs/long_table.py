"""A run that is one long table, with the names of its coordinates and what it was made from.

A row is one number with its interval: (section, block, output, input, step, x, quantity) → value,
se, ci_low, ci_high, n, method. Two kinds of run are such tables: comparisons of Jacobians and what
logs say (`jacobians.run`, `logged.run`); each says what its sections hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.storage import records

LABELS = ("section", "block", "output", "input")
NUMBERS = ("step", "x", "value", "se", "ci_low", "ci_high")
COLUMNS = (*LABELS, "step", "x", "quantity", "value", "se", "ci_low", "ci_high", "n", "method")
TOLD = ("config", "environment", "notes")

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


def to_record(run: LongTable, kind: str, units: Mapping[str, str]) -> records.Record:
    """A record of this kind, whose table has the kind's name.

    Args:
        units: of columns that have one.
    """
    table = {"row": records.Array(np.arange(len(run.columns["value"])), ("row",))}
    for name in COLUMNS:
        table[name] = records.Array(run.columns[name], ("row",), units.get(name, ""))
    names = {
        name: records.Array(np.array(getattr(run, name), dtype=object), (name,))
        for name in ("state_names", "action_names")
    }
    attributes: dict[str, records.Attribute] = {
        "kind": kind,
        "command": str(run.config.get("command", "")),
        "seed": int(run.config.get("seed", 0)),
        "commit": run.environment.get("commit", ""),
    }
    for name in TOLD:
        attributes[name] = json.dumps(getattr(run, name))
    return records.Record(attributes, {kind: table, "coordinates": names})


def fields(path: Path, kind: str, what: str) -> dict[str, Any]:
    """The fields of a `LongTable` in a file, by name.

    Args:
        what: "a comparison of Jacobians", as a message calls a run of this kind.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    record = records.read(path)
    try:
        if record.attributes["kind"] != kind:
            found = record.attributes["kind"]
            raise InputError(f"{path} holds {found!r}, expected {what}")
        table, names = record.groups[kind], record.groups["coordinates"]
        told = {name: _json_object(str(record.attributes[name])) for name in TOLD}
        return {
            "columns": {name: _column(name, table[name]) for name in COLUMNS},
            "state_names": tuple(str(each) for each in names["state_names"].values),
            "action_names": tuple(str(each) for each in names["action_names"].values),
            "config": told["config"],
            "environment": {key: str(value) for key, value in told["environment"].items()},
            "notes": told["notes"],
        }
    except InputError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not all of {what} ({error}): make it again") from error


def _column(name: str, array: records.Array) -> NDArray[Any]:
    if array.dims != ("row",):
        raise ValueError(f"column {name} has dims {array.dims}")
    if name == "n":
        return np.asarray(array.values, dtype=np.int64)
    return np.asarray(array.values, dtype=np.float64 if name in NUMBERS else object)


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its configuration is not a JSON object")
    return value
