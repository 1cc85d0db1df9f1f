"""Runs are processes of the command line, some at the same time, until all have ended.

A run that fails, or whose process is killed, keeps its error, and the others go on.
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

from gradlab.cli.streams import undisturbed
from gradlab.errors import InputError, in_short
from gradlab.machine import cluster, processors, python_module
from gradlab.storage.records import check_output
from gradlab.storage.whole_files import locked
from gradlab.tools.sweep import table as index
from gradlab.tools.sweep.table import INDEX, Planned, Row, State, Sweep
from gradlab.wording import duration

CHILD = "gradlab.tools.sweep.child"
_LOCK = ".sweep.lock"


@contextlib.contextmanager
def held(path: Path, runs: Sequence[Planned], resume: bool, command: str) -> Iterator[Sweep]:
    """The sweep of a folder, whose one writer this is: all rows wait, but for what is done.

    Raises:
        InputError: another process sweeps into the folder, it cannot be written, or it holds a
            sweep already.
    """
    check_output(path / INDEX, overwrite=True)
    try:
        lock = locked(path / _LOCK)
    except InputError:
        raise InputError(
            f"another sweep writes into {path}: choose another output folder"
        ) from None
    with contextlib.closing(lock):
        there = (path / INDEX).exists()
        if there and not resume:
            raise InputError(f"{path} holds a sweep: give resume=True, or another output folder")
        if resume and not there:
            raise InputError(f"{path} holds no sweep: start with resume=False")
        known = index.load(path) if there else Sweep(path, command, ())
        earlier, rows = {row.name: row for row in known.rows}, []
        for run in runs:
            row = Row(run.name, f"{run.name}.h5", run.words, run.differs)
            before = earlier.pop(run.name, row)
            if before.words != row.words:
                raise InputError(f"run {row.name} of {path} had other settings: rename it")
            done = before.state == "done" and (path / row.file).is_file()
            rows.append(before if done else row)
        sweep = Sweep(path, known.command or command, (*rows, *earlier.values()))
        index.write(sweep)
        yield sweep


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


_Executed = Callable[[Sequence[str], str, str, threading.Event], Outcome]


@contextlib.contextmanager
def place_of(ray: str | None, workers: int | None) -> Iterator[tuple[int, _Executed]]:
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


def run_all(
    sweep: Sweep, executed: _Executed, most: int, again: Callable[[str, Path], list[str]],
    write: Callable[[str], object] | None = None,
) -> None:  # fmt: skip
    """Run what waits, `most` at the same time; the index is written whenever one has ended.

    Args:
        again: of a command and a run's file, the words that begin anew there, or go on.
        write: takes a line for each run that ends.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the runs at work have saved what they have.
        Failure: the index cannot be written.
    """
    stopped, waiting = threading.Event(), deque(x for x in sweep.rows if x.state == "waiting")
    busy: dict[Future[Outcome], tuple[Row, float]] = {}  # with when it began
    with undisturbed() as pressed, ThreadPoolExecutor(most) as threads:
        try:
            while busy or (waiting and not pressed):
                if pressed:
                    stopped.set()
                while waiting and len(busy) < most and not pressed:
                    row = waiting.popleft()
                    file, log = sweep.folder / row.file, sweep.folder / f"{row.name}.log"
                    more = again(row.words[0], file) if log.exists() else []
                    words = [CHILD, *row.words, "--output", str(file), *more]
                    begun = threads.submit(executed, words, str(log), os.getcwd(), stopped)
                    busy[begun] = row, time.monotonic()
                for future in wait(busy, _POLL, FIRST_COMPLETED).done:
                    row, since = busy.pop(future)
                    ended, seconds = _outcome(future), time.monotonic() - since
                    cut = ended.code in _INTERRUPTED or (ended.code < 0 and stopped.is_set())
                    state: State = "interrupted" if cut else "failed" if ended.error else "done"
                    sweep = sweep.with_row(replace(
                        row, state=state, sentence=ended.sentence, error=ended.error,
                        seconds=seconds,
                    ))  # fmt: skip
                    index.write(sweep)
                    if write is not None:
                        count = len(sweep.rows) - sweep.count("waiting")
                        told = filter(None, (row.name, f"{state} after {duration(seconds)}",
                                             ended.sentence or ended.error))  # fmt: skip
                        write(f"{count} of {len(sweep.rows)}: {': '.join(told)}")
        finally:  # also where the index cannot be written
            stopped.set()


def _outcome(future: Future[Outcome]) -> Outcome:
    """Its outcome, also where Ray has lost the process of a task, or its node."""
    try:
        return future.result()
    except OSError as error:
        return Outcome(1, error=f"it cannot begin: {in_short(error)}")
    except Exception as death:
        return Outcome(-signal.SIGKILL, error=f"its worker died: {in_short(death)}")
