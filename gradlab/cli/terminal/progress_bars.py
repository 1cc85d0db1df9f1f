"""Progress of long work on standard error: bars on a terminal, lines where there is none.

Lines are for logs: one when a stage begins and one when it ends, both only once of a stage whose
repetitions are short; one every 15 s in between, with the share done and the time left at this
rate, from a thread, so that a stage which reports nothing is seen to be at work.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from gradlab.errors import Doubtful
from gradlab.progress import Progress
from gradlab.wording import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


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
