"""Workers that are processes of this machine, each at the other end of a pipe.

Each is a fresh interpreter that imports what it is given by name, and never the user's script,
which would run again. It is in a session of its own: Ctrl-C in a terminal reaches the parent alone,
which decides what becomes of the workers.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection as pipes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Self, final

from gradlab.errors import InputError, one_line
from gradlab.machine import python_module
from gradlab.workers.interface import Outcome, WorkerDied, check_name

_ENDING = 5.0  # seconds that a process has to end once its pipe is closed


@final
class _LocalCall:
    """A call of a local worker; ended once it has an outcome or its worker has died."""

    def __init__(self, worker: _LocalWorker, method: str, request: bytes) -> None:
        self.worker, self.method, self.request = worker, method, request
        self.outcome: Outcome | None = None
        self.death = ""

    @property
    def ended(self) -> bool:
        return self.outcome is not None or bool(self.death)

    def result(self) -> Any:
        while not self.ended:
            self.worker.receive()
        if self.outcome is None:
            raise WorkerDied(self.death)
        return self.outcome.result(self.method)


@final
class _LocalWorker:
    """One process. It is sent its next call once it has answered the one before.

    Sent at once, a long call and a long answer could each wait for the other in a full pipe.
    """

    def __init__(self, what: str, arguments: Sequence[Any]) -> None:
        made = pickled((what, arguments))
        self.pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                python_module("gradlab.workers.child", str(theirs.fileno()), str(os.getpid())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
            )
        self._waiting: deque[_LocalCall] = deque()
        self.serving: _LocalCall | None = None
        self._death = ""
        self._write(made)

    @property
    def alive(self) -> bool:
        return not self._death

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> _LocalCall:
        call = _LocalCall(self, method, pickled((method, arguments)))
        call.death = self._death
        if self.alive:
            self._waiting.append(call)
            self._next()
        return call

    def receive(self) -> None:
        """The outcome of the call that is being served, waited for; then the next is sent."""
        try:
            outcome = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._died()
            return
        if self.serving is not None:
            self.serving.outcome, self.serving = outcome, None
        self._next()

    def interrupt(self) -> None:
        if self.alive:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        if self.alive:
            self._process.kill()
            self._died()

    def end(self) -> None:
        """End an idle process by closing its pipe, a busy one by SIGKILL."""
        if self.serving is not None:
            self.kill()
        elif self.alive:
            self._died()

    def _next(self) -> None:
        if self.serving is None and self._waiting:
            self.serving = self._waiting.popleft()
            self._write(self.serving.request)

    def _write(self, message: bytes) -> None:
        try:
            self.pipe.send_bytes(message)
        except OSError:
            self._died()

    def _died(self) -> None:
        """The process has ended, or ends as its pipe is closed: so do its calls."""
        if not self.alive:
            return
        self.pipe.close()
        try:
            code = self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._death = f"the worker, process {self.pid}, {_ending(code)}"
        for call in (self.serving, *self._waiting):
            if call is not None:
                call.death = self._death
        self.serving = None
        self._waiting.clear()


@final
class LocalPool:
    """Processes of this machine.

    The number of OMP_NUM_THREADS is that of this process where it is given, else 1: workers beside
    each other have a processor each.
    """

    def __init__(self) -> None:
        self._workers: list[_LocalWorker] = []

    @property
    def cores(self) -> int:
        return processors()

    def start(self, what: str, *arguments: Any) -> _LocalWorker:
        check_name(what)
        worker = _LocalWorker(what, arguments)
        self._workers = [each for each in self._workers if each.alive] + [worker]
        return worker

    def wait(self, calls: Sequence[_LocalCall], timeout: float | None = None) -> list[_LocalCall]:
        deadline = None if timeout is None else time.monotonic() + timeout
        remaining: float | None = 0.0  # first without waiting: what is there already
        while True:
            busy = {each.pipe: each for each in self._workers if each.serving is not None}
            ready = pipes.wait(list(busy), remaining) if busy else []
            for pipe in ready:
                busy[pipe].receive()  # type: ignore[index]
            ended = [call for call in calls if call.ended]
            remaining = None if deadline is None else deadline - time.monotonic()
            if ended or not calls or (remaining is not None and remaining <= 0):
                return ended

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def environment() -> dict[str, str]:
    """That of this process, with its modules' places, and one thread unless another number is
    given."""
    first = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return first | dict(os.environ) | {"PYTHONPATH": os.pathsep.join(places())}


def places() -> list[str]:
    """Folders in which this process looks for modules."""
    return [place or os.getcwd() for place in sys.path]


def pickled(message: Any) -> bytes:
    try:
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise InputError(
            f"an argument of a worker cannot be pickled ({one_line(error)}): pass plain values, "
            f"arrays, or objects of a module"
        ) from error


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = ", as where memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{memory}"
