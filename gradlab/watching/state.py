"""The state of a run in progress, as terminal and page show it: one value of its file and journal.

    waiting → empty → running ⇄ silent → ended (its writer has closed it)
                                       → stopped (its writer is gone and has not)

A run is silent when its next row is five times later than the latest rows were, and at least ten
seconds: an evaluation or a measurement may take that long.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Literal, final

from gradlab.errors import Doubtful, InputError
from gradlab.storage import journal, records
from gradlab.storage.journal_files import frames_at, is_held, journal_of
from gradlab.verdicts.screen import light_line
from gradlab.watching.view import Event, Progress, QuantityRow, View, view
from gradlab.wording import duration

_Phase = Literal["waiting", "empty", "running", "silent", "ended", "stopped", "unreadable"]
_Writer = Literal["none", "writing", "gone", "closed", "unknown"]
_Stamp = tuple[tuple[int, int, int] | None, ...]
SILENT = 10.0  # seconds
_BEATS = 5
SHARE = 0.05  # of a core, for reading
_STALE = ("running", "silent", "stopped")
_EVENTS = 200  # the last ones, which a document has


@dataclass(frozen=True, eq=False)
class State:
    """A run at a moment.

    Attributes:
        told: the phase in words.
        written: when its last row was, in seconds of `time.time`; None before the first.
    """

    run: str
    phase: _Phase
    told: str
    written: float | None
    view: View

    def age(self, now: float) -> float:
        """Seconds since the last row."""
        return 0.0 if self.written is None else max(now - self.written, 0.0)


@final
class Watcher:
    """States of one run. Nothing is locked or written.

    Attributes:
        stamp: of the rows that the last state has; rest: seconds to leave alone before the next
            reading, so that reading keeps to its share.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        self.stamp: _Stamp | None = None
        self.rest = 0.0
        self._view, self._trouble = View(), ""

    def state(self) -> State:
        """The present state; the same view where no row has come."""
        begun = time.thread_time()
        stamp = tuple(_stamp(place) for place in (self.path, journal_of(self.path)))
        if stamp != self.stamp:
            self._read()
            self.stamp = stamp
        writer, now = _writer(self.path), self.clock()
        newest = stamp[1] or stamp[0]  # a fold touches the file, and is no row
        seconds = None if newest is None else newest[2] / 1e9
        phase: _Phase = "unreadable" if self._trouble else _phase(writer, seconds, self._view, now)
        text = self._trouble or _in_words(phase, self._view, self.path)
        self.rest = (time.thread_time() - begun) / SHARE
        return State(str(self.path), phase, text, seconds, self._view)

    def _read(self) -> None:
        """The view of the rows that are there; the last one stays where they cannot be read."""
        self._trouble = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Doubtful)  # what is lost is counted in the view
                grows = journal_of(self.path).exists() or not self.path.is_file()
                record = journal.read(self.path) if grows else records.read(self.path)
                self._view = view(record, self.path)
        except InputError as error:
            frames, lost = frames_at(journal_of(self.path))
            if self.path.exists() or frames or lost:
                self._trouble = str(error)
            else:
                self._view = View()
        except OSError as error:
            self._trouble = f"{self.path} cannot be read ({error.strerror})"


def _stamp(place: Path) -> tuple[int, int, int] | None:
    """What changes with every row."""
    try:
        there = os.stat(place)
    except OSError:
        return None
    return there.st_ino, there.st_size, there.st_mtime_ns


def _writer(path: Path) -> _Writer:
    """A writer holds the lock of its journal from its first row to its last. Trying that lock would
    take it from a writer that is about to begin, so that the system's table of locks is read."""
    try:
        inode = os.stat(journal_of(path)).st_ino
    except OSError:
        return "closed" if path.exists() else "none"
    held = is_held(inode)
    return "unknown" if held is None else "writing" if held else "gone"


def _phase(writer: _Writer, written: float | None, view: View, now: float) -> _Phase:
    if writer == "none":
        return "waiting"
    beat = 0.0 if view.progress is None else view.progress.beat
    late = now - (written or now) > max(SILENT, _BEATS * beat)
    if writer == "closed":
        return "ended"
    if writer == "gone" and late:  # not at once: a writer may be about to take it
        return "stopped"
    if not (view.progress or view.rows or view.events):
        return "empty"
    return "silent" if late else "running"


def _in_words(phase: _Phase, view: View, path: Path) -> str:
    if phase == "waiting":
        return f"no run at {path} yet: waiting for it"
    if phase == "empty":
        return "the run has begun and has no row yet: waiting for the first"
    if phase == "ended":
        return f"the run has ended{_open_end(view)}"
    if phase == "stopped":
        return f"the run has no writer, and it was not closed{_open_end(view)}"
    return "no row for long, but it is not closed" if phase == "silent" else "running"


def _open_end(view: View) -> str:
    """How far short of its end a training run is."""
    progress = view.progress
    if progress is None or progress.total is None:
        return ""
    if progress.done >= progress.total:
        return ", complete"
    return f" before its last {progress.across} (--resume goes on)"


def printable(text: str) -> str:
    """Text from a file without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def phase_line(state: State, now: float) -> str:
    """The phase of the run, and the age of its last row."""
    text = printable(state.told)
    if state.phase not in _STALE or state.written is None:
        return text
    return f"{text}; last row {duration(state.age(now))} ago"


def how_far(state: State, progress: Progress) -> str:
    """Iteration of all; while the run goes on, its rate and the time that is left."""
    parts = [f"{progress.across} {progress.done:,}"]
    if progress.total is not None and progress.share is not None:
        parts[0] += f" of {progress.total:,} ({progress.share:.0%})"
    going = state.phase in ("running", "silent")
    if isfinite(progress.rate) and going:
        parts.append(f"{progress.rate:.3g}/s")
    if progress.left and going:
        parts.append(f"about {duration(progress.left)} left")
    return ", ".join(parts)


def event_line(state: State, happened: Event, often: int = 1) -> str:
    """An event in words: when, how often, its kind and its message."""
    across = "" if state.view.progress is None else state.view.progress.across
    kind = f"{happened.kind}: " if happened.kind else ""
    times = f", {often} times" if often > 1 else ""
    return printable(f"! {across} {happened.at:,}{times}: {kind}{happened.text}")


def line(state: State, now: float) -> str:
    """The state as one plain line, with the first of its latest values."""
    progress = state.view.progress
    if progress is None or state.phase in ("waiting", "empty"):
        return phase_line(state, now)
    latest = [printable(f"{each.name} {number(each.value[-1])}") for each in state.view.rows]
    parts = [how_far(state, progress), *latest[:4]]
    return ", ".join(parts if state.phase == "running" else [phase_line(state, now), *parts])


def number(value: float, digits: int = 4) -> str:
    """Significant digits; a dash for a missing value."""
    if isnan(value):
        return "–"
    return f"{value:.{digits}g}".replace("-", "−").replace("inf", "∞")


def document(state: State) -> dict[str, Any]:
    """The state as JSON: numbers that are not finite are null."""
    view, progress = state.view, state.view.progress
    return {
        "run": state.run,
        "phase": state.phase,
        "told": state.told,
        "written": state.written,
        "kind": view.kind,
        "title": view.title,
        "facts": dict(view.facts),
        "progress": progress
        and _finite(vars(progress) | {"share": progress.share, "left": progress.left}),
        "recommendation": view.screen and view.screen.headline,
        "sure": view.screen and light_line(view.screen.light, view.screen.sure),
        "latest": _latest(view.rows),
        "events": [vars(event) for event in view.events[-_EVENTS:]],
        "lost": view.lost,
    }


def _latest(rows: Sequence[QuantityRow]) -> list[dict[str, Any]]:
    names = ("value", "low", "high")
    return [
        {"name": row.name, "at": float(row.x[-1])}
        | _finite({name: float(getattr(row, name)[-1]) for name in names})
        for row in rows
    ]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, those that are not finite as None."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in values.items()
    }
