"""Results of a probe, read without torch, finished or while they are being written.

Its tables are those of `gradlab.runs.probe.schema`; `table` lays them out as rows for the figures,
every estimate with its 95% interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.findings import Finding
from gradlab.findings.finding import MARKS
from gradlab.runs.probe.schema import KIND, tables
from gradlab.runs.run import StoredRun, described
from gradlab.storage.journal_tables import Table
from gradlab.storage.records import Record
from gradlab.storage.whole_files import abandoned
from gradlab.wording import signed

Columns = Mapping[str, NDArray[Any]]
_LARGEST = 1e15  # a count


@dataclass(frozen=True)
class Reported:
    """The newest answer of a check.

    Attributes:
        update, step: of that answer; since: the step at which it began to fail, −1: never.
        looks: answers so far.
    """

    finding: Finding
    update: int
    step: int
    since: int
    looks: int = 1

    @property
    def code(self) -> str:
        return self.finding.code

    @property
    def message(self) -> str:
        """What was found and what to do."""
        return signed(self.finding.said)


@dataclass(frozen=True, eq=False, repr=False)
class ProbeRun(StoredRun):
    """A probe's tables, column → [rows, …], each with "update" (alarms: with "number") and "step";
    a table without rows is empty.

    Attributes:
        stored: its file; config: what was asked for; environment: what it ran on.
        parameters: names of the policy's tensors, the axis of `vitals["layer_norm"]`.
        estimators: names, the first axis of cells in `measured`; horizon: of their second axis,
            the longest one (0 … H); None: nothing is measured on a task.
        vitals, successive, measured, returns, episodes, answers: the tables; `reported` has the
            last as findings.
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
    answers: Columns
    returns: Columns = field(default_factory=dict)
    episodes: Columns = field(default_factory=dict)
    abandoned: bool = False

    kind = KIND
    noun = "run of gradlab.Probe"

    @property
    def task(self) -> str:
        """Name of the task, "" without one."""
        return str(self.attributes.get("task", ""))

    @property
    def every(self) -> int:
        """Updates between two looks."""
        return int(self.config["every"])

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
    def reported(self) -> tuple[Reported, ...]:
        """The newest answer of every check."""
        names = [each for each in Finding.__dataclass_fields__ if each in self.answers]
        found = []
        for k in range(len(self.answers.get("code", ()))):
            cells = {name: self.answers[name][k] for name in names}
            row: dict[str, Any] = {
                name: x.item() if isinstance(x, np.number) else str(x) for name, x in cells.items()
            }
            row |= {name: int(row[name]) for name in ("n", "more")}
            if not row["code"]:
                continue  # another answer has taken its place
            if row["decision"] not in MARKS:
                raise ValueError(f"a decision is {row['decision']!r}")
            times = (int(self.answers[each][k]) for each in ("update", "step", "since", "looks"))
            found.append(Reported(Finding(**row), *times))
        return tuple(found)

    @property
    def updates(self) -> int:
        """Updates up to the last row of any table."""
        return self._newest("update")

    @property
    def step(self) -> int:
        """Of the last row of any table, as the loop counts."""
        return self._newest("step")

    def _newest(self, name: str) -> int:
        tables = self.vitals, self.successive, self.measured, self.answers, self.returns
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
            config=config,
            environment=parts["environment"],
            parameters=parameters,
            estimators=estimators,
            horizon=horizon,
            abandoned=abandoned(path),
            **{field: _columns(record, name, schema.get(name)) for name, field in _TABLES.items()},
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


_TABLES = {
    "vitals": "vitals", "successive": "successive", "measured": "measured",
    "returns": "returns", "episodes": "episodes", "findings": "answers",
}  # fmt: skip


def _check_numbers(run: ProbeRun) -> None:
    """Counts and choices that sentences rest on; a probe never leaves them out."""
    if run.every < 1:
        raise ValueError(f"every is {run.every}")
    run.reported  # noqa: B018
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


def last(columns: Columns, name: str, unknown: float = nan) -> float:
    """The newest number of a column that is known."""
    values = np.asarray(columns.get(name, ()), dtype=np.float64)
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else unknown
