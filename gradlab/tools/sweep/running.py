"""Runs are given to workers one by one, until all have ended.

A run that fails keeps its error, and the others go on. A run whose worker died is started again, on
another worker. A worker serves run after run, so that what a command imports is imported once.

The folder of a sweep while it is written: one writer, an index that is always whole.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from gradlab.errors import Failure, InputError
from gradlab.storage.journal_files import locked
from gradlab.storage.records import check_output
from gradlab.tools.sweep import result as index
from gradlab.tools.sweep.result import INDEX, Row, State, Sweep
from gradlab.tools.sweep.table import Planned
from gradlab.wording import duration
from gradlab.workers import Call, CallFailed, Pool, Worker, WorkerDied

_LOCK = ".sweep.lock"


@final
class Folder:
    """The one writer of a sweep. A context manager, which holds the folder's lock.

    Raises:
        InputError: another process sweeps into the folder, it cannot be written, or it holds a
            sweep already.
    """

    def __init__(
        self, path: Path, runs: Sequence[Planned], suffix: str, resume: bool, command: str
    ) -> None:
        check_output(path / INDEX, overwrite=True)
        try:
            self._lock = locked(path / _LOCK)
        except InputError:
            raise InputError(
                f"another sweep writes into {path}: wait for it, or choose another output folder"
            ) from None
        try:
            self.sweep = _begun(path, runs, suffix, resume, command)
            self.write()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def put(self, row: Row) -> None:
        """Replace the row of that name."""
        self.sweep = self.sweep.with_row(row)
        self.write()

    def write(self) -> None:
        try:
            index.write(self.sweep)
        except OSError as error:
            place = self.sweep.folder / INDEX
            raise Failure(
                f"{place} cannot be written ({error.strerror or error}); finished runs are kept: "
                f"go on with resume=True once there is space"
            ) from error


def _begun(
    path: Path, runs: Sequence[Planned], suffix: str, resume: bool, command: str
) -> Sweep:  # fmt: skip
    """The sweep as it starts: all rows waiting, or with what is done already."""
    fresh = [Row(run.name, run.name + suffix, run.words, run.differs) for run in runs]
    if not (path / INDEX).exists():
        if resume:
            raise InputError(f"{path} holds no sweep to go on with: start with resume=False")
        return Sweep(path, command, tuple(fresh))
    if not resume:
        raise InputError(
            f"{path} holds a sweep: go on with resume=True, or choose another output folder"
        )
    before = index.load(path)
    earlier = {row.name: row for row in before.rows}
    for row in fresh:
        if row.name in earlier and earlier[row.name].words != row.words:
            raise InputError(
                f"run {row.name} of {path} had other settings: rename it, or choose another "
                f"output folder"
            )
    kept = [earlier.pop(row.name, row) for row in fresh]
    # What is not done, or whose file is gone, waits again.
    rows = [
        row
        if row.state == "done" and (path / row.file).is_file()
        else replace(row, state="waiting", error="", seconds=None, sentence="")
        for row in kept
    ] + list(earlier.values())
    return Sweep(path, before.command or command, tuple(rows))


_ATTEMPTS = 3  # of a run whose workers die
_EVERY = 15  # seconds between two lines of a run at work
_POLL = 0.5  # seconds between two looks at logs and signals
_TAIL = 2048  # bytes of a log that are read for its last line
_INTERRUPTED = (130, 143)  # exit codes

_Words = Callable[[Row, bool], list[str]]
"""words(row, again): the whole command of a run; again: a file of it may be there."""


@final
class SweepLines:
    """Shows a sweep: a line for each run that ends, and every 15 s one for each run at work.

    Args:
        write: takes a line; None: nothing is shown.
    """

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write, self._begun = write, time.monotonic()
        self._written = self._begun

    def ended(self, row: Row, done: int, total: int) -> None:
        after = "" if row.seconds is None else f" after {duration(row.seconds)}"
        more = row.sentence or row.error
        ending = f"{row.name}: {row.state}{after}" + (f": {more}" if more else "")
        self._line(f"{done} of {total}: {ending}")

    def at_work(self, lines: Mapping[str, str]) -> None:
        """Takes the runs at work with the last line of each one's log."""
        if time.monotonic() - self._written >= _EVERY:
            for name, line in lines.items():
                self._line(f"{name}: {line or 'begins'}")

    def _line(self, text: str) -> None:
        self._written = time.monotonic()
        minutes, seconds = divmod(int(self._written - self._begun), 60)
        if self._write is not None:
            self._write(f"[{minutes}:{seconds:02d}] {text}")


@dataclass
class _Busy:
    """A run at work."""

    row: Row
    worker: Worker
    call: Call
    begun: float


@final
class Running:
    """All runs of a folder that wait, on workers of one pool.

    Args:
        runner: an object with `run(words, log) → (exit code, sentence, error)`, as
            "package.module:Class"; it is made in each worker.
        arguments: those of its making.
    """

    def __init__(
        self,
        folder: Folder,
        pool: Pool,
        workers: int,
        runner: str,
        arguments: tuple[Any, ...],
        words: _Words,
        shown: SweepLines,
    ) -> None:
        self._folder, self._pool, self._words, self._shown = folder, pool, words, shown
        self._runner, self._arguments, self._most = runner, arguments, workers
        rows = folder.sweep.rows
        self._waiting = deque(row for row in rows if row.state == "waiting")
        self._idle: list[Worker] = []
        self._busy: list[_Busy] = []
        self._deaths: Counter[str] = Counter()
        self._stopped = False

    def go(self) -> bool:
        """Run until nothing waits; whether Ctrl-C ended it before."""
        with _signals() as received:
            try:
                while (self._waiting or self._busy) and not received:
                    self._fill()
                    self._collect(_POLL)
                # Runs at work are interrupted once, and save what they have; a second Ctrl-C kills
                # them.
                self._stopped = True
                for each in self._busy:
                    each.worker.interrupt()
                while self._busy:
                    if len(received) > 1:
                        for each in self._busy:
                            each.worker.kill()
                    self._collect(_POLL)
            except Failure:  # the index has what they save where it can be written
                self._stopped = True
                for each in self._busy:
                    each.worker.interrupt()
                with contextlib.suppress(Failure):
                    self._collect(10 * _POLL)
                with contextlib.suppress(Failure):
                    for each in self._busy:
                        self._folder.put(replace(each.row, state="interrupted"))
                raise
            return bool(received)

    def _fill(self) -> None:
        while self._waiting and len(self._busy) < self._most:
            row = self._waiting.popleft()
            again = row.attempts > 0
            row = replace(row, state="running", attempts=row.attempts + 1)
            worker = (
                self._idle.pop() if self._idle else self._pool.start(self._runner, *self._arguments)
            )
            # Its row is written first: a run that nobody knows of must not be at work.
            self._folder.put(row)
            log = str(_log_of(self._folder.sweep, row))
            call = worker.call("run", self._words(row, again), log)
            self._busy.append(_Busy(row, worker, call, time.monotonic()))

    def _collect(self, timeout: float) -> None:
        """Take what has ended; show what is at work."""
        ended = self._pool.wait([each.call for each in self._busy], timeout)
        for busy in [each for each in self._busy if each.call in ended]:
            self._busy.remove(busy)
            row = replace(busy.row, seconds=time.monotonic() - busy.begun)
            try:
                code, sentence, error = busy.call.result()
                state: State = (
                    "interrupted" if code in _INTERRUPTED else "failed" if error else "done"
                )
                row = replace(row, state=state, sentence=sentence, error=error)
                self._idle.append(busy.worker)
            except WorkerDied as death:
                # It waits again, unless it was tried often enough.
                self._deaths[row.name] += 1
                if self._stopped:
                    row = replace(row, state="interrupted", error=str(death))
                elif self._deaths[row.name] < _ATTEMPTS:
                    row = replace(row, state="waiting", seconds=None, error=str(death))
                    self._waiting.append(row)
                else:
                    row = replace(row, state="failed", error=f"{death} ({_ATTEMPTS} attempts)")
            except (CallFailed, InputError) as failed:
                stopped = getattr(failed, "kind", "") == KeyboardInterrupt.__name__
                row = replace(row, state="interrupted" if stopped else "failed", error=str(failed))
                self._idle.append(busy.worker)
            self._folder.put(row)
            if row.state != "waiting":
                done = self._folder.sweep.count("done", "failed", "interrupted")
                self._shown.ended(row, done, len(self._folder.sweep.rows))
        sweep = self._folder.sweep
        lines = {each.row.name: _last_line(_log_of(sweep, each.row)) for each in self._busy}
        self._shown.at_work(lines)


def _log_of(sweep: Sweep, row: Row) -> Path:
    """What a run wrote to its standard streams."""
    return sweep.folder / f"{row.name}.log"


def _last_line(log: Path) -> str:
    """The last line of a log that is not empty; "" where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(sign for sign in lines[-1] if sign.isprintable()) if lines else ""


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Inside, Ctrl-C and SIGTERM are listed, and nothing is interrupted half-way; only the main
    thread can have them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    ending = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _: received.append(number)) for each in ending]
    try:
        yield received
    finally:
        for number, handler in zip(ending, before, strict=True):
            signal.signal(number, handler)
