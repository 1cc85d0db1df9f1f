r"""Standard streams that are closed, full or without Unicode: a command's work goes on.

closed (`>&-`)                 the null device stands in: else the next file to be opened, a run
                               perhaps, would be what prints are written to
reader gone (`| head -1`)      the rest is dropped, the exit code is that of the work
standard output full           one line on standard error, exit code 1; what is saved stays
standard error full or gone    messages are dropped, the work goes on
no UTF-8 (`LANG=C`)            a minus or a dash is a hyphen, another sign is escaped: θ is \u03b8
Ctrl-C, SIGTERM                finished work is saved, exit code 130 or 143
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, final

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def terminable() -> Iterator[list[int]]:
    """Inside, SIGTERM does what Ctrl-C would; yields the list of received signals. Outside of the
    main thread it does what it did before."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        press = signal.getsignal(signal.SIGINT)
        # In a shell's background Ctrl-C is ignored, SIGTERM is not.
        (press if callable(press) else signal.default_int_handler)(number, frame)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, both signals wait: a C extension that is interrupted while imported fails oddly."""
    pressed: list[int] = []
    before = [signal.signal(each, lambda number, _: pressed.append(number)) for each in _ENDING]
    try:
        yield
    finally:
        for number, handler in zip(_ENDING, before, strict=True):
            signal.signal(number, handler)
    if pressed:
        signal.raise_signal(pressed[0])


_FAILED = 1
ESCAPED = "gradlab.escaped"  # how a stream writes what it cannot encode
_HYPHENS = "−–"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        if error.object[error.start] in _HYPHENS:
            return "-", error.start + 1
        error.end = error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(ESCAPED, _escaped)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Inside, the standard streams of one command may fail without ending its work."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as Python)
            setattr(sys, name, nowhere)
            setattr(sys, f"__{name}__", nowhere)
    before, out = sys.stderr, sys.stdout
    errors = getattr(out, "errors", "strict")
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors=ESCAPED)
    sys.stderr = _Lenient(before)
    try:
        yield
    finally:
        sys.stderr = before
        with contextlib.suppress(ValueError):  # a test's own, closed meanwhile
            _flushed(before, 2)
        if isinstance(out, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # it writes what is buffered first
                out.reconfigure(errors=errors)


def said(work: Callable[[], None], code: int) -> int:
    """The exit code after the output of `work`: `code` where it succeeds or its pipe is closed."""
    try:
        work()
        sys.stdout.flush()
    except OSError as error:
        return unsaid(error, code)
    return code


def unsaid(error: OSError, code: int) -> int:
    """The exit code after standard output has failed with `error`."""
    _drop(1)
    if isinstance(error, BrokenPipeError):
        return code
    line = f"gradlab: failed: standard output could not be written ({error.strerror or error})"
    print(f"{line}: give it a place that has space", file=sys.stderr)
    return _FAILED


def utf8() -> bool:
    name = getattr(sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(name).name.startswith("utf")


@final
class _Lenient:
    """A stream that drops what it cannot write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        _flushed(self._stream, 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _flushed(stream: Any, descriptor: int) -> None:
    try:
        stream.flush()
    except OSError:
        _drop(descriptor)


def _drop(descriptor: int) -> None:
    """Send buffered and later output to the null device, also that of Python's last flush."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
