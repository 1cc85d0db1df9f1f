"""What a comparison of Jacobians found: one long table, in one file.

Reading needs neither the task nor torch. The sections of the table:

    block        errors at the simulator's states: A, B, r_s, r_a, and of next_state and reward
    certificate  the estimated error of the simulator's own blocks, and the share that failed
    entry        output × input: error and size, standardised by what the path varies, and effect
                 of the error on the gradient in the first action, relative to that gradient
    time         errors, flagged and terminated share along the rollout
    distance     errors by distance from the nearest data (x)
    growth       mean ln σ_k of the chained Jacobians, k in `output`, loop in `block`
    exponent     finite-time Lyapunov exponents
    product      relative error of the model's chained product
    model_error  error of the model's own rollout
    horizon      what follows: steps and exponents that a reader decides from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab import records
from gradlab.errors import InputError

KIND = "jacobians"
LABELS = ("section", "block", "output", "input")
NUMBERS = ("step", "x", "value", "se", "ci_low", "ci_high")
COLUMNS = (*LABELS, "step", "x", "quantity", "value", "se", "ci_low", "ci_high", "n", "method")
UNITS = {"step": "steps", "x": "standard deviations of the data", "n": "samples"}


@dataclass(frozen=True, eq=False)
class JacobianRun:
    """What `compare_jacobians` found.

    Attributes:
        columns: the table by column, each [rows] (see the module for its sections).
        state_names, action_names: the coordinates.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know: counts of masked samples, first losses, laws.
    """

    columns: Mapping[str, NDArray[Any]]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]

    def table(self) -> pd.DataFrame:
        """One row per number; see the module for the sections."""
        return pd.DataFrame({name: self.columns[name] for name in COLUMNS})

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
        records.write(path, _to_record(self), overwrite)
        return Path(path)


def load(path: str | Path) -> JacobianRun:
    """The run in a file written by `JacobianRun.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    return _from_record(records.read(path), Path(path))


def holds_jacobians(path: str | Path) -> bool:
    """Is the run at `path` a comparison of Jacobians, or another kind?

    Raises:
        InputError: it cannot be read at all.
    """
    return records.attributes(path).get("kind") == KIND


def _to_record(run: JacobianRun) -> records.Record:
    rows = np.arange(len(run.columns["value"]))
    table = {"row": records.Array(rows, ("row",))}
    for name in COLUMNS:
        table[name] = records.Array(run.columns[name], ("row",), UNITS.get(name, ""))
    names = {
        name: records.Array(np.array(getattr(run, name), dtype=object), (name,))
        for name in ("state_names", "action_names")
    }
    attributes: dict[str, records.Attribute] = {
        "kind": KIND,
        "command": str(run.config.get("command", "")),
        "seed": int(run.config.get("seed", 0)),
        "commit": run.environment.get("commit", ""),
    }
    for name in ("config", "environment", "notes"):
        attributes[name] = json.dumps(getattr(run, name))
    return records.Record(attributes, {"jacobians": table, "coordinates": names})


def _from_record(record: records.Record, path: Path) -> JacobianRun:
    try:
        if record.attributes["kind"] != KIND:
            kind = record.attributes["kind"]
            raise InputError(f"{path} holds {kind!r}, expected a comparison of Jacobians")
        table, names = record.groups["jacobians"], record.groups["coordinates"]
        told = {
            name: _json_object(str(record.attributes[name]))
            for name in ("config", "environment", "notes")
        }
        return JacobianRun(
            columns={name: _column(name, table[name]) for name in COLUMNS},
            state_names=tuple(str(each) for each in names["state_names"].values),
            action_names=tuple(str(each) for each in names["action_names"].values),
            config=told["config"],
            environment={key: str(value) for key, value in told["environment"].items()},
            notes=told["notes"],
        )
    except InputError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a complete comparison ({error}): make it again") from error


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
