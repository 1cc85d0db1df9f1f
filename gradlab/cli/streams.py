"""Standard streams that are closed, full or without Unicode: a command's work goes on.

closed (`>&-`)                 the null device stands in: else the next file to be opened, a run
                               perhaps, would be what prints are written to
reader gone (`| head -1`)      the rest is dropped, the exit code is that of the work
standard output full           one line on standard error, exit code 1; what is saved stays
standard error full or gone    messages are dropped, the work goes on
no UTF-8 (`LANG=C`)            a minus or a dash is a hyphen, another sign is escaped: θ is \u03b8
Ctrl-C, SIGTERM                finished work is saved, exit code 130 or 143

Progress of long work on standard error: bars on a terminal, lines where there is none.

Lines are for logs: one when a stage begins and one when it ends, both only once of a stage whose
repetitions are short; one every 15 s in between, with the share done and the time left at this
rate, from a thread, so that a stage which reports nothing is seen to be at work.
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
from typing import TYPE_CHECKING, Any, final

from gradlab.errors import Doubtful
from gradlab.progress import Progress
from gradlab.wording import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


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


EVERY = 15.0  # seconds between two lines of a long stage
_STARTED = time.monotonic()  # of the program, whose stages share one clock


@contextmanager
def bars(every: float = EVERY) -> Iterator[Progress]:
    """Yields progress(stage, done, total): a bar for each stage, or lines every so many seconds."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _drawn() as drawn:
            yield _Drawn(drawn)
        return
    lines, ended = Lines(standard_error, every=every, start=_STARTED), threading.Event()

    def beat() -> None:
        while not ended.wait(min(every, 1.0)):
            lines.beat()

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join()
    lines.close()


def standard_error(line: str) -> None:
    """Write one line; nothing more once the pipe is closed (`2>&1 | head -1`)."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        # What is still buffered, and all that follows, must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@final
class Lines:
    """One line when a stage begins, one when it ends, one every `every` seconds in between.

    A stage "a (b)" is inside of "a", which goes on after it.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        start: float | None = None,
    ) -> None:
        self._write, self._clock, self._every = write, clock, every
        self._start = clock() if start is None else start
        self._stage: str | None = None  # the one that has begun and not ended
        self._ended: str | None = None  # the latest one that has
        self._shown: set[str] = set()  # all that have
        self._around: dict[str, tuple[float, int]] = {}  # the one around that has begun
        self._begun = self._written = clock()  # of the stage, or of the work after one
        self._first, self._done, self._total = 0, 0, 0  # a resumed stage begins with some done
        self._lock = threading.RLock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            if stage != self._stage:
                if stage == self._ended and done >= total:
                    return  # its end, reported again
                now = self._clock()
                if self._stage is not None and stage.startswith(f"{self._stage} ("):
                    self._around[self._stage] = self._begun, self._first
                    self._stage = None
                self.close()
                new = stage not in self._around and stage not in self._shown
                self._begun, self._first = self._around.pop(stage, (now, done))
                self._stage = stage
                if new:
                    self._line(f"{stage}: begins")
            self._done, self._total = done, total
            if done >= total:
                self.close()
            else:
                self.beat()

    def beat(self) -> None:
        with self._lock:
            if self._clock() - self._written < self._every:
                return
            if self._stage is None:
                at = "preparing" if self._ended is None else f"after {self._ended}: at work"
                self._line(f"{at}, {duration(self._clock() - self._begun)} so far")
                return
            so_far = self._clock() - self._begun
            again = ", again" * (self._stage in self._shown)
            text = f"{self._stage}{again}: {duration(so_far)} so far"
            if self._total > 1:
                text += f", {self._done:,} of {self._total:,}"
            if self._first < self._done < self._total:
                more = so_far * (self._total - self._done) / (self._done - self._first)
                text += f", about {duration(more)} more"
            self._line(text)

    def close(self) -> None:
        with self._lock:
            if self._stage is None:
                return
            stage = self._ended = self._stage
            self._stage, taken = None, self._clock() - self._begun
            again = stage in self._shown
            self._shown.add(stage)
            self._begun = self._clock()
            if again and taken < self._every:
                return  # a short repetition
            self._line(f"{stage}{', again' * again}: ended after {duration(taken)}")

    def _line(self, text: str) -> None:
        self._written = self._clock()
        minutes, seconds = divmod(int(self._written - self._start), 60)
        self._write(f"[{minutes}:{seconds:02d}] {text}")


@final
class _Drawn:
    """A bar per stage."""

    def __init__(self, shown: Bars) -> None:
        self._shown = shown
        self._stages: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        from rich.progress import TaskID

        if stage not in self._stages:
            self._stages[stage] = self._shown.add_task(stage, total=total, completed=done)
        self._shown.update(TaskID(self._stages[stage]), completed=done, total=total)


@contextmanager
def _drawn() -> Iterator[Bars]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=28),
        MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    # Names are printed as they are: no markup, no emoji.
    plain = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Bars(*columns, console=plain) as shown:
        yield shown


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
