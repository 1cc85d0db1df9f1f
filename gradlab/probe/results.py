"""What a probe wrote, read without torch, finished or while it is being written.

Its tables are those of `gradlab.probe.schema`; `table` lays them out as rows for the figures, every
estimate with its 95% interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab import journal
from gradlab.errors import InputError
from gradlab.probe.schema import KIND
from gradlab.records import Record

Columns = Mapping[str, NDArray[Any]]
# What a foreign file can raise where its content is taken apart.
UNREADABLE = (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError)


@dataclass(frozen=True, eq=False)
class ProbeRun:
    """A probe's tables, column → [rows, …], each with "update" (alarms: with "number") and "step";
    a table without rows is empty.

    Attributes:
        attributes: of the file; config: what was asked for; environment: what it ran on.
        parameters: names of the policy's tensors, the axis of `vitals["layer_norm"]`.
        estimators: names, the first axis of cells in `measured`; horizon: of their second axis,
            the longest one (0 … H); None: nothing is measured on a task.
        vitals, successive, measured, alarms: the tables.
    """

    attributes: Mapping[str, Any]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    parameters: tuple[str, ...]
    estimators: tuple[str, ...]
    horizon: int | None
    vitals: Columns
    successive: Columns
    measured: Columns
    alarms: Columns

    @property
    def task(self) -> str:
        """Name of the task, "" without one."""
        return str(self.attributes.get("task", ""))

    @property
    def budget(self) -> float:
        """Share of the time that the probe was allowed."""
        return float(self.config["overhead_budget"])

    @property
    def spent(self) -> float:
        """Share of the time that it took; NaN before the first row."""
        return last(self.vitals, "spent")

    @property
    def seconds(self) -> float:
        """From the first update to the last row; NaN before the first row."""
        return last(self.vitals, "elapsed")

    @property
    def updates(self) -> int:
        """Updates up to the last row of any table."""
        return self._newest("update")

    @property
    def step(self) -> int:
        """Of the last row of any table, as the loop counts."""
        return self._newest("step")

    def _newest(self, name: str) -> int:
        tables = (self.vitals, self.successive, self.measured, self.alarms)
        return max((int(each[name][-1]) for each in tables if each), default=0)


def load(path: str | Path) -> ProbeRun:
    """The run at `path`, finished or being written.

    Raises:
        InputError: the file is missing, foreign, damaged, or no probe's.
    """
    return from_record(journal.read(path), Path(path))


def holds_probe(path: str | Path) -> bool:
    """Did a probe write the run at `path`, finished or being written?

    Raises:
        InputError: it cannot be read at all.
    """
    return journal.kind(path) == KIND


def from_record(record: Record, path: Path) -> ProbeRun:
    """As `load`, from what was read at `path`."""
    kind = record.attributes.get("kind")
    if kind != KIND:
        raise InputError(f"{path} holds {kind!r}, expected a run of gradlab.Probe")
    try:
        told = {
            name: json.loads(str(record.attributes[name]))
            for name in ("config", "environment", "parameters", "estimators")
        }
        horizons = record.groups.get("measured", {}).get("horizon")
        return ProbeRun(
            attributes=record.attributes,
            config=dict(told["config"]) | {"overhead_budget": told["config"]["overhead_budget"]},
            environment={str(k): str(v) for k, v in told["environment"].items()},
            parameters=tuple(str(each) for each in told["parameters"]),
            estimators=tuple(str(each) for each in told["estimators"]),
            horizon=None if horizons is None else int(horizons.values[-1]),
            **{name: _columns(record, name) for name in TABLES},
        )
    except UNREADABLE as error:
        raise InputError(f"{path} is not a complete run of a probe ({error})") from error


TABLES = {"vitals": "update", "successive": "update", "measured": "update", "alarms": "number"}


def _columns(record: Record, name: str) -> Columns:
    """A table by column, or nothing where it has no rows."""
    found = {key: array.values for key, array in record.groups.get(name, {}).items()}
    return found if len(found.get(TABLES[name], ())) else {}


def last(columns: Columns, name: str) -> float:
    """The newest number of a column that is known, else NaN."""
    values = np.asarray(columns.get(name, ()), dtype=np.float64)
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else float("nan")
