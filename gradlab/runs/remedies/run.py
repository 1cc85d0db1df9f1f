"""What a test of remedies found: one value per model, trial and quantity, in one file.

Reading needs neither the task nor torch. The quantities, per model and trial:

    prediction_error   at steps 1 … H along the simulator's path under its actions, relative to that
                       of predicting no change
    no_change          that error in standard deviations (model "simulator")
    jacobian_error     block A, B, r_s, r_a along the path: region all, smooth, contact or clip
    bias2, variance, mse, relative_mse, cosine      of the policy gradient, at horizons 1 … H
    least_mse          the smallest of them over the horizons
    usable_horizon, best_horizon                    of the verdict; lyapunov: of the closed loop
    roughness          of slices of the return on the model's surface at the largest horizon, along
                       its gradient and at random (block)
    held_out_nll, held_out_mse, fit_seconds, step_cost      the price; costs relative to "nll"

A trial is one fit (and one record, where data is not given). Intervals are over trials, paired;
those of a single trial are over its starts.
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

from gradlab.errors import InputError
from gradlab.runs.remedies import tables
from gradlab.runs.remedies.values import LABELS, NUMBERS, Cells, Pair
from gradlab.storage import records

KIND = "remedies"
COLUMNS = (*LABELS, *NUMBERS, "trial")


@dataclass(frozen=True, eq=False)
class Remedies:
    """What `compare_remedies` found.

    Attributes:
        cells: the values, and what is compared with what.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic: dropped members, masked samples, epochs.
        slices: of the return in the first trial, by column, each [rows] (`remedies.slicing`); None:
            none were made.
    """

    cells: Cells
    pairs: tuple[Pair, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]
    slices: Mapping[str, NDArray[Any]] | None = None

    @property
    def trials(self) -> int:
        """How many are finished."""
        return self.cells.trials

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.arm for pair in self.pairs))

    def table(self) -> pd.DataFrame:
        """One row per arm, budget, quantity, block, at and region: first (without), second (with
        the remedy), difference with ci_low and ci_high, ratio with ratio_low and ratio_high (over
        trials: geometric means), n (trials, or starts of a single one) and method."""
        return tables.pairs(self.cells, self.pairs)

    def levels(self) -> pd.DataFrame:
        """One row per model, quantity, block, at and region: value, ci_low, ci_high, n, method.

        Models are "nll", the arms, "nll as long as ARM" and "simulator".
        """
        return tables.levels(self.cells)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        records.write(path, _to_record(self), overwrite)
        return Path(path)


def load(path: str | Path) -> Remedies:
    """The run in a file written by `Remedies.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    return _from_record(records.read(path), Path(path))


def _to_record(run: Remedies) -> records.Record:
    attributes: dict[str, records.Attribute] = {
        "kind": KIND,
        "command": str(run.config.get("command", "")),
        "seed": int(run.config.get("seed", 0)),
        "commit": run.environment.get("commit", ""),
    }
    for name in ("config", "environment", "notes"):
        attributes[name] = json.dumps(getattr(run, name))
    cells = _table({name: run.cells.columns[name] for name in COLUMNS})
    left_out = run.cells.left_out
    starts = {
        "first_row": records.Array(np.arange(len(left_out)), ("first_row",)),
        "group": records.Array(np.arange(left_out.shape[1]), ("group",)),
        "left_out": records.Array(left_out, ("first_row", "group")),
    }
    pairs = {
        name: np.array([getattr(pair, name) for pair in run.pairs], dtype=object)
        for name in ("arm", "budget", "first", "second")
    }
    groups = {"cells": cells, "starts": starts, "pairs": _table(pairs)}
    if run.slices is not None:
        groups["slices"] = _table(run.slices)
    return records.Record(attributes, groups)


def _table(columns: Mapping[str, NDArray[Any]]) -> dict[str, records.Array]:
    rows = len(next(iter(columns.values())))
    found = {"row": records.Array(np.arange(rows), ("row",))}
    return found | {name: records.Array(values, ("row",)) for name, values in columns.items()}


def _from_record(record: records.Record, path: Path) -> Remedies:
    try:
        if record.attributes["kind"] != KIND:
            kind = record.attributes["kind"]
            raise InputError(f"{path} holds {kind!r}, expected a test of remedies")
        groups = record.groups
        told = {
            name: _json_object(str(record.attributes[name]))
            for name in ("config", "environment", "notes")
        }
        columns = _columns(groups["cells"])
        left_out = np.asarray(groups["starts"]["left_out"].values, dtype=np.float64)
        pairs = _columns(groups["pairs"])
        named = zip(*(pairs[each] for each in ("arm", "budget", "first", "second")), strict=True)
        return Remedies(
            cells=Cells({name: columns[name] for name in COLUMNS}, left_out),
            pairs=tuple(Pair(*(str(each) for each in pair)) for pair in named),
            config=told["config"],
            environment={key: str(value) for key, value in told["environment"].items()},
            notes=told["notes"],
            slices=_columns(groups["slices"]) if "slices" in groups else None,
        )
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        message = f"{path} is not a complete test of remedies ({error}): make it again"
        raise InputError(message) from error


def _columns(group: Mapping[str, records.Array]) -> dict[str, NDArray[Any]]:
    for name, array in group.items():
        if array.dims != ("row",):
            raise ValueError(f"column {name} has dims {array.dims}")
    return {name: array.values for name, array in group.items() if name != "row"}


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its configuration is not a JSON object")
    return value
