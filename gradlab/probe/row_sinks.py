"""Sinks of a probe's rows: a run's file, a function, several, none; and the log of its alarms.

Rows are tested with the earlier ones. A fault is reported when it is first seen,
then only after twice as many updates: about twenty times in a million. It is printed once, with its
count at the end: messages that differ in numbers alone are one.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TextIO, final

from gradlab.errors import InputError
from gradlab.probe.alarms.catalogue import examine
from gradlab.probe.alarms.evidence import Alarm, AlarmEvidence, fault
from gradlab.runs.probe import results
from gradlab.runs.probe.results import Columns, ProbeRun, last
from gradlab.runs.probe.schema import Row, flat, tables
from gradlab.storage import journal
from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.records import Attribute, check_output
from gradlab.wording import listed, unnumbered

_NEW = "log to a new file"


@dataclass(frozen=True)
class Earlier:
    """The content of a log.

    Attributes:
        updates, alarms: so far; own, elapsed: seconds of the probe and of the loop.
        returns, episodes: tables, by columns; {} where they have no rows.
        actions: da of its tables.
    """

    updates: int = 0
    alarms: int = 0
    own: float = 0.0
    elapsed: float = 0.0
    actions: int = 0
    returns: Columns = field(default_factory=dict)
    episodes: Columns = field(default_factory=dict)


def _earlier(path: Path, head: Mapping[str, Attribute], horizon: int | None) -> Earlier:
    """The content of the run at `path`, for a probe with this head that goes on in it.

    Raises:
        InputError: it is no probe's, another policy's or another task's.
    """
    record = journal.read(path)
    run = results.ProbeRun.of_record(record, path)
    _check(run, path, head)
    groups = record.groups.get("vitals", {})
    actions = len(groups["action"].values) if "action" in groups else 0
    if run.horizon != horizon:
        raise InputError(f"log is {path}, measured up to h = {run.horizon}, not {horizon}: {_NEW}")
    reported = int(run.alarms["number"][-1]) + 1 if run.alarms else 0
    own, elapsed = (last(run.vitals, "own_seconds"), run.seconds) if run.vitals else (0.0, 0.0)
    return Earlier(run.updates, reported, own, elapsed, actions, run.returns, run.episodes)


def _check(run: ProbeRun, path: Path, head: Mapping[str, Attribute]) -> None:
    names = tuple(json.loads(str(head["parameters"])))
    if run.parameters != names:
        mine, theirs = (listed(each, 3) for each in (names, run.parameters))
        raise InputError(
            f"log is {path}, of a policy with tensors {theirs}, not {mine}: {_NEW}, or resume with "
            f"the policy of that run"
        )
    shapes, before = json.loads(str(head["config"])).get("shapes"), run.config.get("shapes")
    if shapes != before:
        raise InputError(f"log is {path}, of a policy of other sizes: {_NEW}")
    if run.task != head["task"]:
        task = repr(run.task) if run.task else "no task"
        raise InputError(
            f"log is {path}, of {task}, not of {str(head['task'])!r}: {_NEW}, or resume with the "
            f"task of that run"
        )


Log = Callable[[dict[str, Any]], object]
_NOTHING = Earlier()
_NOTHING_THERE = "log is {}, where no run is to go on in: start with resume=False"


class RowSink(Protocol):
    """Where rows go."""

    @property
    def earlier(self) -> Earlier:
        """What it held before the first of them."""

    def write(self, table: str, row: Row) -> None: ...

    def amend(self, table: str, row: Row) -> None:
        """The last row again, in its place; where rows have gone, nothing."""

    def close(self) -> None: ...


@final
class NoSink:
    """No log."""

    earlier = _NOTHING

    def write(self, table: str, row: Row) -> None:
        pass

    amend = write

    def close(self) -> None:
        pass


@final
class SeveralSinks:
    """Rows go to several logs."""

    def __init__(self, sinks: Sequence[RowSink]) -> None:
        self.sinks = tuple(sinks)

    @property
    def earlier(self) -> Earlier:
        """That of the log which holds most."""
        return max(
            (sink.earlier for sink in self.sinks), key=lambda held: held.updates, default=_NOTHING
        )

    def write(self, table: str, row: Row) -> None:
        for sink in self.sinks:
            sink.write(table, row)

    def amend(self, table: str, row: Row) -> None:
        for sink in self.sinks:
            sink.amend(table, row)

    def close(self) -> None:
        """All of them, whichever fails."""
        with ExitStack() as stack:
            for sink in reversed(self.sinks):
                stack.callback(sink.close)


@final
class FunctionSink:
    """Rows go to the user's function, as plain numbers by name."""

    earlier = _NOTHING

    def __init__(self, log: Log, names: Sequence[str]) -> None:
        self.log, self.names = log, tuple(names)

    def write(self, table: str, row: Row) -> None:
        self.log(flat(table, row, self.names))

    def amend(self, table: str, row: Row) -> None:
        pass

    def close(self) -> None:
        pass


@final
class FileSink:
    """Rows go to a run's journal, opened with the first of them.

    Args:
        parameters: how many; horizon: of measurements, None without a task.
        actions: how many there are, which a policy shows by its first output only.
        resume: go on in the run at `path`, whose journal is taken at once.

    Raises:
        InputError: there is a run already, or to resume none or another one.
    """

    def __init__(
        self, path: str | Path, attributes: Mapping[str, Attribute], parameters: int,
        horizon: int | None, actions: Callable[[], int], resume: bool = False,
    ) -> None:  # fmt: skip
        self.path, self.attributes = Path(path), dict(attributes)
        self.shape = parameters, horizon, actions
        self.earlier = _NOTHING
        self._journal: Journal | None = None
        if resume and not os.path.isdir(self.path.parent):
            raise InputError(_NOTHING_THERE.format(path))  # before a folder is made for it
        check_output(self.path, overwrite=True)  # else "" and long names fail below
        there = self.path.is_file() or journal_of(self.path).exists()
        if there and not resume:
            raise InputError(
                f"log is {path}, which holds a run already, or its .journal does: go on in it with "
                f"resume=True, or choose another name"
            )
        if resume and not there:
            raise InputError(_NOTHING_THERE.format(path))
        if resume:
            self.earlier = _earlier(self.path, attributes, horizon)
            self._journal = self._opened()

    def write(self, table: str, row: Row) -> None:
        if self._journal is None:
            self._journal = self._opened()
        schema = self._journal.tables[table]
        kept = {k: v for k, v in row.items() if k in schema.columns or k == schema.index}
        self._journal.append(table, kept)

    amend = write

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _opened(self) -> Journal:
        parameters, horizon, actions = self.shape
        width = self.earlier.actions or actions()
        return Journal(self.path, tables(parameters, width, horizon), self.attributes)


_KEPT = 256  # rows of each table
_SOURCE = "gradlab probe"  # first words of what is printed


@final
class AlarmLog:
    """Files rows and reports alarms.

    Args:
        names: of the parameters.
        critic_alone: the loop's actor follows the critic alone: no alarm is about a model's steps.

    Attributes:
        alarms: that were reported.
        rows: the last ones of every table.
        stream: where alarms are printed; None: standard error.
    """

    def __init__(
        self,
        sink: RowSink,
        names: Sequence[str],
        *,
        critic_alone: bool = False,
    ) -> None:
        self.sink, self.names, self.critic_alone = sink, tuple(names), critic_alone
        self.stream: TextIO | None = None
        self.alarms: list[Alarm] = []
        self.rows: dict[str, deque[Row]] = {}
        self._counts: Counter[str] = Counter()
        self._reported: dict[str, int] = {}  # updates, by fault
        self._number: int | None = None
        self._told: dict[tuple[str, str], list[int]] = {}  # steps

    def file(self, table: str, row: Row) -> None:
        """Write a row and test it."""
        self.sink.write(table, row)
        rows = self.rows.setdefault(table, deque(maxlen=_KEPT))
        rows.append(row)
        self._counts[table] += 1
        count = self._counts[table]
        for alarm in examine(
            table, AlarmEvidence(list(rows), count, self.names, self.critic_alone)
        ):
            self.report(alarm, int(row["update"]), int(row["step"]))

    def due(self, fault: str, update: int) -> bool:
        """Whether this fault would be reported."""
        last = self._reported.get(fault)
        return last is None or update >= 2 * max(last, 1)

    def report(self, alarm: Alarm, update: int, step: int) -> None:
        """Write an alarm, unless its fault was reported lately, and print a new one."""
        own = fault(alarm.kind, alarm.message)
        if not self.due(own, update):
            return
        self._reported[own] = update
        self.alarms.append(replace(alarm, step=step))
        if self._number is None:
            self._number = self.sink.earlier.alarms
        row: dict[str, Any] = {"number": self._number, "update": update, "step": step}
        row |= {"alarm": alarm.kind, "message": alarm.message}
        self._number += 1
        self.sink.write("alarms", row)
        told = self._told.setdefault((alarm.kind, unnumbered(alarm.message)), [])
        told.append(step)
        if len(told) == 1:
            # 0 is also the count of a loop that has marked no update yet.
            when = f"step {step}" if step else "at the beginning"
            text = f"{_SOURCE}, {when}: {alarm.kind}: {alarm.message}"
            print(text, file=self.stream or sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line that is no alarm."""
        print(f"{_SOURCE}: {text}", file=self.stream or sys.stderr, flush=True)

    def close(self) -> None:
        """Say how often what was printed once was reported, and close the sink."""
        for (kind, _), steps in self._told.items():
            if len(steps) > 1:
                first = f"step {min(steps):,}" if min(steps) else "the beginning"
                self.say(f"{kind}: reported {len(steps)} times, from {first} to {max(steps):,}")
            steps[1:] = []
        self.sink.close()
