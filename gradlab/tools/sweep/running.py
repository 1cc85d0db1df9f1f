"""Runs are processes of the command line, some at the same time, until all have ended.

A run that fails keeps its error, and the others go on. A run whose process was killed is started
again, once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from gradlab.cli.streams import undisturbed
from gradlab.errors import Failure, InputError, in_short
from gradlab.machine import cluster, processors, python_module
from gradlab.storage.records import check_output
from gradlab.storage.whole_files import locked
from gradlab.tools.sweep import table as index
from gradlab.tools.sweep.table import INDEX, Planned, Row, State, Sweep
from gradlab.wording import duration

CHILD = "gradlab.tools.sweep.child"
_LOCK = ".sweep.lock"


def _begun(
    path: Path, runs: Sequence[Planned], resume: bool, command: str
) -> Sweep:  # fmt: skip
    """The sweep as it starts: all rows waiting, or with what is done already."""
    fresh = [Row(run.name, f"{run.name}.h5", run.words, run.differs) for run in runs]
    if not (path / INDEX).exists():
        if resume:
            raise InputError(f"{path} holds no sweep: start with resume=False")
        return Sweep(path, command, tuple(fresh))
    if not resume:
        raise InputError(f"{path} holds a sweep: give resume=True, or another output folder")
    before = index.load(path)
    earlier = {row.name: row for row in before.rows}
    for row in fresh:
        if row.name in earlier and earlier[row.name].words != row.words:
            raise InputError(f"run {row.name} of {path} had other settings: rename it")
    kept = [earlier.pop(row.name, row) for row in fresh]
    # What is not done, or whose file is gone, waits again.
    rows = [
        row
        if row.state == "done" and (path / row.file).is_file()
        else replace(row, state="waiting", error="", seconds=None, sentence="")
        for row in kept
    ] + list(earlier.values())
    return Sweep(path, before.command or command, tuple(rows))


_POLL = 0.5  # seconds between two looks at processes and signals
_SAVING = 10.0  # seconds that an interrupted run has to save what it has
_INTERRUPTED = (130, 143)  # exit codes
_MARKS = tuple(
    f"gradlab: {end}" for end in ("error: ", "failed: ", "interrupted; ", "terminated; ")
)


@dataclass(frozen=True)
class Outcome:
    """What a run ended in.

    Attributes:
        code: its exit code; the negative number of the signal that killed it.
        sentence: the recommendation, or the first one of its verdict.
        error: one line; empty where there is a result.
    """

    code: int
    sentence: str = ""
    error: str = ""


def execute(
    words: Sequence[str], log: str, folder: str, stopped: threading.Event | None = None
) -> Outcome:
    """Run one command in a process of its own, until it ends or is to be stopped.

    Args:
        words: a module and the arguments of its `main`.
        log: the file to which its standard error is appended.
        folder: where relative paths begin, the working folder of who sweeps.
        stopped: tells that it is; a task of Ray is told by KeyboardInterrupt, if at all.
    """
    module, *rest = words
    command = python_module(module, str(os.getpid()), *rest, "--json")
    with open(Path(folder, log), "ab") as messages, tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=messages, cwd=folder,
            env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | dict(os.environ),
            start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            while not (stopped and stopped.is_set()):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
                    break
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_SAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        answer.seek(0)
        sentence = _sentence(answer.read())
    code = process.returncode
    if code < 0:
        return Outcome(code, error=f"its process was killed by {signal.Signals(-code).name}")
    return Outcome(code, sentence, "" if sentence or not code else _error(Path(folder, log), code))


def _sentence(answer: bytes) -> str:
    """The fields of a JSON document's recommendation, or else the first finding."""
    try:
        document = json.loads(answer)
    except ValueError:
        return ""
    findings = document.get("findings") or [{"sentence": ""}]
    fields = document.get("recommendation", {}).items()
    return "; ".join(f"{name}: {text}" for name, text in fields) or str(findings[0]["sentence"])


def _error(log: Path, code: int) -> str:
    """The line in which a command has named its error, or what an interruption left."""
    lines = log.read_text("utf-8", "replace").splitlines()
    said = [line.removeprefix(mark) for line in lines for mark in _MARKS if line.startswith(mark)]
    return said[-1] if said else f"exit code {code}: see its log"


Executed = Callable[[Sequence[str], str, str, threading.Event], Outcome]


@contextlib.contextmanager
def place_of(ray: str | None, workers: int | None) -> Iterator[tuple[int, Executed]]:
    """How many processors there are, and `execute`: on this machine, or as a task of Ray.

    Args:
        ray: a cluster by its HOST:PORT, or "local"; None: no Ray.
        workers: runs at the same time; where that is more than the processors of the cluster, each
            takes a share of one.
    """
    if ray is None:
        yield processors(), execute
        return
    with cluster(ray) as connected:
        cores = int(connected.cluster_resources().get("CPU", 1))
        share = int(1000 * min(1.0, cores / (workers or 1))) / 1000
        # A run whose process was killed is started again in one way, wherever it was.
        task = connected.remote(num_cpus=share, max_retries=0)(execute)

        def executed(
            words: Sequence[str], log: str, folder: str, stopped: threading.Event
        ) -> Outcome:
            reference = task.remote(words, log, folder)
            while not connected.wait([reference], timeout=_POLL)[0]:
                if stopped.is_set():
                    connected.cancel(reference)
                    connected.wait([reference], timeout=2 * _SAVING)
                    break
            outcome: Outcome = connected.get(reference, timeout=_POLL)
            return outcome

        yield cores, executed


@final
class Running:
    """A sweep while it is executed: the one writer of its folder, whose index is always whole. A
    context manager, which holds the folder's lock.

    Args:
        path: of the folder.
        again: of a command and a run's file, the words that begin anew there, or go on.
        write: takes a line for each run that ends.

    Raises:
        InputError: another process sweeps into the folder, it cannot be written, or it holds a
            sweep already.
    """

    def __init__(
        self, path: Path, runs: Sequence[Planned], resume: bool, command: str,
        again: Callable[[str, Path], list[str]],
        write: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        check_output(path / INDEX, overwrite=True)
        try:
            self._lock = locked(path / _LOCK)
        except InputError:
            raise InputError(
                f"another sweep writes into {path}: choose another output folder"
            ) from None
        try:
            self.sweep = _begun(path, runs, resume, command)
            self._put()
        except BaseException:
            self._lock.close()
            raise
        self._again, self._write, self._stopped = again, write, threading.Event()
        self._waiting = deque(row for row in self.sweep.rows if row.state == "waiting")
        self._busy: dict[Future[Outcome], tuple[Row, float]] = {}  # with when it began
        self._killed: set[str] = set()
        self._began = time.monotonic()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def go(self, executed: Executed, most: int) -> None:
        """Run until nothing waits, `most` at the same time.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the runs at work have saved what they have.
        """
        with undisturbed() as pressed, ThreadPoolExecutor(most) as threads:
            try:
                while (self._waiting or self._busy) and not pressed:
                    while self._waiting and len(self._busy) < most:
                        self._submit(threads, executed, self._waiting.popleft())
                    self._collect()
            finally:  # also where the index cannot be written
                self._stopped.set()
            while self._busy:
                self._collect()

    def _submit(self, threads: ThreadPoolExecutor, executed: Executed, row: Row) -> None:
        file, begun = self.sweep.folder / row.file, row.attempts > 0
        row = replace(row, state="running", attempts=row.attempts + 1)
        # Its row is written first: a run that nobody knows of must not be at work.
        self._put(row)
        words = [CHILD, *row.words, "--output", str(file)]
        words += self._again(row.words[0], file) if begun else []  # a file of it may be there
        arguments = words, str(self._log_of(row)), os.getcwd(), self._stopped
        self._busy[threads.submit(executed, *arguments)] = row, time.monotonic()

    def _collect(self) -> None:
        """Take what has ended; show what is at work."""
        for future in wait(self._busy, _POLL, FIRST_COMPLETED).done:
            row, begun = self._busy.pop(future)
            ended = _outcome(future)
            state: State = "failed" if ended.error else "done"
            if ended.code in _INTERRUPTED or (ended.code < 0 and self._stopped.is_set()):
                state = "interrupted"
            elif ended.code < 0 and row.name not in self._killed:  # it waits again, once
                self._killed.add(row.name)
                state = "waiting"
            seconds = None if state == "waiting" else time.monotonic() - begun
            row = replace(
                row, state=state, sentence=ended.sentence, error=ended.error, seconds=seconds
            )
            self._put(row)
            if state == "waiting":
                self._waiting.append(row)
                continue
            done = self.sweep.count("done", "failed", "interrupted")
            ended_as = f"{state} after {duration(time.monotonic() - begun)}"
            told = filter(None, (row.name, ended_as, row.sentence or row.error))
            self._line(f"{done} of {len(self.sweep.rows)}: {': '.join(told)}")

    def _put(self, row: Row | None = None) -> None:
        """Replace the row of that name, and write the index."""
        if row is not None:
            rows = (row if each.name == row.name else each for each in self.sweep.rows)
            self.sweep = replace(self.sweep, rows=tuple(rows))
        try:
            index.write(self.sweep)
        except OSError as error:
            place = self.sweep.folder / INDEX
            raise Failure(
                f"{place} cannot be written ({error.strerror or error}): go on with resume=True"
            ) from error

    def _line(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        if self._write is not None:
            self._write(f"[{minutes}:{seconds:02d}] {text}")

    def _log_of(self, row: Row) -> Path:
        """What a run wrote to standard error."""
        return self.sweep.folder / f"{row.name}.log"


def _outcome(future: Future[Outcome]) -> Outcome:
    """Its outcome, also where Ray has lost the process of a task, or its node."""
    try:
        return future.result()
    except OSError as error:
        return Outcome(1, error=f"it cannot begin: {in_short(error)}")
    except Exception as death:
        return Outcome(-signal.SIGKILL, error=f"its worker died: {in_short(death)}")
