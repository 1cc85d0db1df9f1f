"""Sinks of a probe's rows: a run's file, the user's function, several of these, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, final

from gradlab.errors import InputError
from gradlab.probe.resuming import Earlier, earlier
from gradlab.runs.probe.schema import Row, flat, tables
from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.records import Attribute, check_output

Log = Callable[[dict[str, Any]], object]
NOTHING = Earlier()
NOTHING_THERE = "log is {}, where no run is to go on in: start with resume=False"


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

    earlier = NOTHING

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
            (sink.earlier for sink in self.sinks), key=lambda held: held.updates, default=NOTHING
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

    earlier = NOTHING

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
        self.earlier = NOTHING
        self._journal: Journal | None = None
        if resume and not os.path.isdir(self.path.parent):
            raise InputError(NOTHING_THERE.format(path))  # before a folder is made for it
        check_output(self.path, overwrite=True)  # else "" and long names fail below
        there = self.path.is_file() or journal_of(self.path).exists()
        if there and not resume:
            raise InputError(
                f"log is {path}, which holds a run already: go on in it with resume=True, or "
                f"choose another name"
            )
        if resume and not there:
            raise InputError(NOTHING_THERE.format(path))
        if resume:
            self.earlier = earlier(self.path, attributes, horizon)
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
