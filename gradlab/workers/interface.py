"""Workers: processes that hold an object each, whose methods are called from here.

    worker = pool.start("package.module:Class", *arguments)     the object is made in the worker
    call = worker.call("method", *arguments)                    at once; calls are served in order
    pool.wait([call, …], timeout)                               those that have ended
    call.result()                                               the value, or an error

`local.LocalPool` has processes of this machine, `cluster.ClusterPool` actors of Ray on one machine
or many. Arguments and values are pickled. A worker that died is not started again: what it held
cannot be guessed here, so who started it decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from gradlab.errors import Failure


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
