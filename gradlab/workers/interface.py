"""Workers: processes that hold an object each, whose methods are called from here.

    worker = pool.start("package.module:Class", *arguments)     the object is made in the worker
    call = worker.call("method", *arguments)                    at once; calls are served in order
    pool.wait([call, …], timeout)                               those that have ended
    call.result()                                               the value, or an error

Arguments and values are pickled. A worker that died is not started again: who started it decides.
"""

from __future__ import annotations

import importlib
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, final

from gradlab.errors import Failure, InputError, one_line


class WorkerDied(Failure):
    """The worker's process ended before it had answered; what it held is lost."""


class CallFailed(Failure):
    """The method raised, in the worker, which lives on.

    Attributes:
        kind: the name of the error's class, such as "KeyError" or "KeyboardInterrupt".
    """

    def __init__(self, message: object, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Call(Protocol):
    """A call that is waiting, being served or ended."""

    def result(self) -> Any:
        """The value, waited for.

        Raises:
            WorkerDied: its process ended before.
            InputError: the method raised one.
            CallFailed: the method raised something else; the message has its last line.
        """
        ...


class Worker(Protocol):
    """One process and its object."""

    @property
    def alive(self) -> bool:
        """False after `kill`, and once a call has ended in its death."""
        ...

    def call(self, method: str, *arguments: Any) -> Call:
        """Call a method of the object; returns at once.

        Raises:
            InputError: the arguments cannot be pickled.
        """
        ...

    def interrupt(self) -> None:
        """Send SIGINT, which raises KeyboardInterrupt in the method being called, if any."""
        ...

    def kill(self) -> None:
        """End the process now; calls that have not ended end in `WorkerDied`."""
        ...


class Pool(Protocol):
    """Where workers are started. A context manager, which closes it."""

    @property
    def cores(self) -> int:
        """Processors that its workers have together."""
        ...

    def start(self, what: str, *arguments: Any) -> Worker:
        """Start a process that makes an object; returns at once.

        An error of its making is raised by the first call's `result`.

        Args:
            what: its class (or another callable that returns it) as "package.module:Class".

        Raises:
            InputError: `what` is no such name, or the arguments cannot be pickled.
        """
        ...

    def wait(self, calls: Sequence[Any], timeout: float | None = None) -> list[Any]:
        """The calls that have ended, at least one unless `timeout` seconds pass before."""
        ...

    def close(self) -> None:
        """End all workers; those that are serving a call are killed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a call ended in: a value, or an error in words, as not every error can be pickled.

    Attributes:
        kind: name of the error's class; empty where there was none.
        where: the last line of its traceback.
    """

    value: Any = None
    kind: str = ""
    message: str = ""
    where: str = ""

    def result(self, method: str) -> Any:
        """The value.

        Raises:
            InputError, CallFailed: as `Call.result`.
        """
        if not self.kind:
            return self.value
        if self.kind == InputError.__name__:
            raise InputError(self.message)
        said = f"{self.kind}: {self.message}" if self.message else self.kind
        raise CallFailed(f"{method} failed in its worker with {said} ({self.where})", self.kind)


@final
class Holder:
    """Makes an object and calls its methods."""

    def __init__(self, what: str, arguments: Sequence[Any]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ray blocks the signal in its processes, and a mask outlives the start of a program.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._object: Any = None
        self._failed: Outcome | None = None
        try:
            self._object = named(what)(*arguments)
        except Exception as error:
            self._failed = failed(error)

    def serve(self, method: str, arguments: Sequence[Any]) -> Outcome:
        """Call a method of the object; whatever it raises is an outcome, too."""
        if self._failed is not None:
            return self._failed
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                return Outcome(getattr(self._object, method)(*arguments))
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return failed(error)


def named(what: str) -> Any:
    """The object of that name, "package.module:Class".

    Raises:
        ImportError, AttributeError: there is none.
    """
    module, _, name = what.partition(":")
    return getattr(importlib.import_module(module), name)


def check_name(what: str) -> None:
    """
    Raises:
        InputError: `what` is not "package.module:Class".
    """
    module, colon, name = what.partition(":")
    if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise InputError(f'what is {what!r}, expected "package.module:Class"')


def failed(error: BaseException) -> Outcome:
    """The outcome of a call that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no line"
    return Outcome(None, type(error).__name__, one_line(error), last)
