"""Results of a probe, read without torch, finished or while they are being written.

Its tables are those of `gradlab.runs.probe.schema`; `table` lays them out as rows for the figures,
every estimate with its 95% interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.probe.schema import KIND, tables
from gradlab.runs.run import StoredRun, described
from gradlab.storage.journal_tables import Table
from gradlab.storage.records import Record
from gradlab.storage.whole_files import abandoned

Columns = Mapping[str, NDArray[Any]]
_LARGEST = 1e15  # a count


@dataclass(frozen=True, eq=False, repr=False)
class ProbeRun(StoredRun):
    """A probe's tables, column → [rows, …], each with "update" (alarms: with "number") and "step";
    a table without rows is empty.

    Attributes:
        stored: its file; config: what was asked for; environment: what it ran on.
        parameters: names of the policy's tensors, the axis of `vitals["layer_norm"]`.
        estimators: names, the first axis of cells in `measured`; horizon: of their second axis,
            the longest one (0 … H); None: nothing is measured on a task.
        vitals, successive, measured, alarms, returns, episodes, checks: the tables.
        abandoned: its writer has gone without closing it.
    """

    stored: Record
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    parameters: tuple[str, ...]
    estimators: tuple[str, ...]
    horizon: int | None
    vitals: Columns
    successive: Columns
    measured: Columns
    alarms: Columns
    returns: Columns = field(default_factory=dict)
    episodes: Columns = field(default_factory=dict)
    abandoned: bool = False
    checks: Columns = field(default_factory=dict)

    kind = KIND
    noun = "run of gradlab.Probe"

    @property
    def task(self) -> str:
        """Name of the task, "" without one."""
        return str(self.attributes.get("task", ""))

    @property
    def budget(self) -> float:
        """Share of the time that the probe was allowed."""
        return float(self.config["overhead_budget"])

    @property
    def critic_alone(self) -> bool:
        """Whether the loop's actor follows the critic alone (h = 0), as the loop has declared."""
        return self.config.get("critic_alone") is True

    @property
    def spent(self) -> float:
        """Share of the time that it took; NaN before the first row."""
        return last(self.vitals, "spent")

    @property
    def seconds(self) -> float:
        """From the first update to the last row; NaN before the first row."""
        return last(self.vitals, "elapsed")

    @property
    def due(self) -> str:
        """What is measured next and when, or was not reached, as the newest row says; "" if it
        does not."""
        return str(self.vitals["due"][-1]) if "due" in self.vitals else ""

    @property
    def updates(self) -> int:
        """Updates up to the last row of any table."""
        return self._newest("update")

    @property
    def step(self) -> int:
        """Of the last row of any table, as the loop counts."""
        return self._newest("step")

    def _newest(self, name: str) -> int:
        tables = (
            self.vitals, self.successive, self.measured, self.alarms, self.returns, self.checks
        )  # fmt: skip
        return max((int(each[name].max()) for each in tables if each), default=0)

    @classmethod
    def _from(cls, record: Record, path: Path) -> ProbeRun:
        parts, parameters, estimators = described(record), *_names(record)
        config = parts["config"]
        groups = record.groups.values()
        scales = {  # how many entries a dimension has; 0 where no table has it
            name: max((len(group[name].values) for group in groups if name in group), default=0)
            for name in ("action", "horizon")
        }
        horizon = scales["horizon"] - 1 if scales["horizon"] else None
        schema = tables(len(parameters), scales["action"], horizon)
        run = cls(
            stored=record,
            config=config | {"overhead_budget": _share(config["overhead_budget"])},
            environment=parts["environment"],
            parameters=parameters,
            estimators=estimators,
            horizon=horizon,
            abandoned=abandoned(path),
            **{name: _columns(record, name, schema.get(name)) for name in _TABLES},
        )
        _check_numbers(run)
        return run


load = ProbeRun.load


def _names(record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the policy's tensors and of the estimators."""
    parameters, estimators = (
        json.loads(str(record.attributes[name])) for name in ("parameters", "estimators")
    )
    return tuple(str(name) for name in parameters), tuple(str(name) for name in estimators)


_TABLES = ("vitals", "successive", "measured", "alarms", "returns", "episodes", "checks")


def _check_numbers(run: ProbeRun) -> None:
    """Counts and choices that sentences rest on; a probe never leaves them out."""
    counts = [run.vitals[name] for name in ("looked", "nonfinite_updates") if run.vitals]
    counts += [run.measured[name] for name in ("starts", "batch") if run.measured]
    tables = (run.vitals, run.successive, run.measured, run.returns, run.episodes)
    counts += [each["step"] for each in tables if each]
    counts += [each["update"] for each in (run.returns, run.episodes) if each]
    if not all((np.abs(each) < _LARGEST).all() for each in counts):
        raise ValueError("a count is not finite")
    if not run.measured:
        return
    chosen = np.isfinite(run.measured["chosen_horizon"])
    limits = {"chosen_estimator": len(run.estimators) - 1}
    limits |= dict.fromkeys(("chosen_horizon", "kept_low", "kept_high"), run.horizon or 0)
    for name, most in limits.items():
        value = run.measured[name][chosen]
        if not ((value >= 0) & (value <= most)).all():
            raise ValueError(f"{name} is not within 0 … {most}")


def _share(value: Any) -> float:
    """A share of the time, checked."""
    budget = float(value)
    if not 0 < budget <= 1:
        raise ValueError(f"a budget of {budget:g}")
    return budget


def _columns(record: Record, name: str, layout: Table | None) -> Columns:
    """A table by column, or nothing where it has no rows."""
    arrays = record.groups.get(name, {})
    if layout is None or not len(arrays[layout.index].values if layout.index in arrays else ()):
        return {}
    columns = {key: arrays[key].values for key in (layout.index, *layout.columns)}
    _check_shapes(name, columns, layout)
    return columns


def _check_shapes(name: str, columns: Columns, table: Table) -> None:
    """Raises ValueError for a column that has not the shape or the type of its table."""
    rows = len(columns[table.index])
    for key, column in table.columns.items():
        values = columns[key]
        if values.shape != (rows, *table.shape(key)) or (values.dtype.kind in "OU") != column.text:
            raise ValueError(f"{name}/{key} is {values.dtype} {values.shape}")


def last(columns: Columns, name: str) -> float:
    """The newest number of a column that is known, else NaN."""
    values = np.asarray(columns.get(name, ()), dtype=np.float64)
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
