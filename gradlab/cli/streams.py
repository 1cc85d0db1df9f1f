"""Standard streams that are closed, full or without Unicode: a command's work goes on.

closed (`>&-`)                 the null device stands in: else the next file to be opened, a run
                               perhaps, would be what prints are written to
reader gone (`| head -1`)      the rest is dropped, the exit code is that of the work
standard output full           one line on standard error, exit code 1; what is saved stays
standard error full or gone    messages are dropped, the work goes on
no UTF-8 (`LANG=C`)            a minus or a dash is a hyphen, another sign is escaped: θ is \u03b8
Ctrl-C, SIGTERM                finished work is saved, exit code 130 or 143

Progress of long work on standard error: a bar for each stage on a terminal, else a line a minute.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

from gradlab.errors import Doubtful
from gradlab.progress import Progress
from gradlab.wording import duration

Document = dict[str, object]  # what a command answers on standard output
_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
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


@contextmanager
def undisturbed() -> Iterator[list[int]]:
    """Inside, both signals wait, in the list: a C extension that is interrupted while imported
    fails oddly. Only the main thread can have them."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = [signal.signal(each, lambda number, _: pressed.append(number)) for each in _ENDING]
    try:
        yield pressed
    finally:
        for number, handler in zip(_ENDING, before, strict=True):
            signal.signal(number, handler)
    if pressed:
        signal.raise_signal(pressed[0])


ESCAPED = "gradlab.escaped"  # how a stream writes what it cannot encode


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        if error.object[error.start] in "−–":
            return "-", error.start + 1
        error.end = error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(ESCAPED, _escaped)


@contextmanager
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
    for stream in (out, before):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
    sys.stderr = _Lenient(before)
    try:
        yield
    finally:
        sys.stderr = before
        with contextlib.suppress(ValueError):  # a test's own, closed meanwhile
            _Lenient(before).flush()
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
    standard_error(f"{line}: give it a place that has space")
    return 1


def utf8() -> bool:
    name = getattr(sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(name).name.startswith("utf")


@final
class _Lenient:
    """Standard error, which drops what it cannot write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _drop(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _drop(descriptor: int) -> None:
    """Send buffered and later output to the null device, also that of Python's last flush."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def standard_error(line: str) -> None:
    """Write one line; nothing more once the pipe is closed (`2>&1 | head -1`)."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _drop(2)


_MINUTE = 60.0


@contextmanager
def bars() -> Iterator[Progress]:
    """Yields progress(stage, done, total)."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield each_minute(standard_error)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    stages: dict[str, TaskID] = {}
    # Names are printed as they are: no markup, no emoji.
    plain = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Bars(*columns, console=plain) as shown:

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = shown.add_task(stage, total=total)
            shown.update(stages[stage], completed=done, total=total)

        yield draw


def each_minute(
    write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Progress for logs: at most one line a minute, with the time left at the rate until then."""
    begun: dict[str, tuple[float, int]] = {}  # a resumed stage begins with some done
    written = clock()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal written
        now = clock()
        since, first = begun.setdefault(stage, (now, done))
        if now - written < _MINUTE:
            return
        written, text = now, f"{stage}: {done:,} of {total:,}"
        if first < done < total:
            left = (now - since) * (total - done) / (done - first)
            text += f", about {duration(left)} left"
        write(text)

    return tell


@contextmanager
def in_one_line() -> Iterator[None]:
    """Inside, every warning is said once, from wherever in the code it comes; those of files in one
    line."""
    before, said = warnings.showwarning, set[str]()

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if str(message) in said:
            return
        said.add(str(message))
        if issubclass(category, Doubtful):
            standard_error(f"gradlab: note: {message}")
        else:
            before(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
