"""The worker's side of a call, the same for every kind of worker.

SIGINT raises KeyboardInterrupt in a method, and is ignored between two calls.
"""

from __future__ import annotations

import importlib
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gradlab.errors import InputError, one_line
from gradlab.workers.interface import CallFailed


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
