"""The state of a run in progress, as terminal and page show it: one value of its file and journal.

waiting → empty → running ⇄ silent → ended (its writer has closed it)
                                   → stopped (its writer is gone and has not)
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from gradlab.errors import Doubtful, InputError
from gradlab.runs.probe import results as probe_results
from gradlab.runs.probe.schema import KIND as PROBE
from gradlab.runs.training import results as training_results
from gradlab.runs.training.results import Training
from gradlab.storage import journal, records
from gradlab.storage.codec import content_of, shown
from gradlab.storage.journal_files import frames_at, is_held, journal_of
from gradlab.storage.records import Record
from gradlab.verdicts.probe.first_screen import screen as probe_screen
from gradlab.verdicts.screen import Screen, light_line
from gradlab.verdicts.training.first_screen import screen as training_screen
from gradlab.wording import duration

_Phase = Literal["waiting", "empty", "running", "silent", "ended", "stopped", "unreadable"]
_Writer = Literal["none", "writing", "gone", "closed", "unknown"]
_Stamp = tuple[tuple[int, int, int] | None, ...]
SILENT = 10.0  # seconds
_BEATS = 5
_RECENT = 20  # rows from which the pace is taken
SHARE = 0.05  # of a core, for reading
_STALE = ("running", "silent", "stopped")
_EVENTS = 200  # the last ones, which a document has


@dataclass(frozen=True)
class Event:
    """One sentence, at an iteration or update, and the kind of its alarm."""

    at: int
    kind: str
    text: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        across: what is counted; done: of them; total: None where unknown.
        rate: of the latest rows, per second, NaN where unknown; seconds: since the run began.
        beat: seconds between the latest rows, 0 where unknown.
    """

    across: str
    done: int
    total: int | None
    rate: float = nan
    seconds: float = 0.0
    beat: float = 0.0

    @property
    def share(self) -> float | None:
        return None if self.total is None else min(self.done / max(self.total, 1), 1.0)

    @property
    def left(self) -> float | None:
        """Seconds to the end at the present rate; None where unknown."""
        if self.total is None or not isfinite(self.rate) or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


@dataclass(frozen=True, eq=False)
class View:
    """What the rows of a run say so far.

    Attributes:
        kind: "training", "probe", or "" before the first row.
        screen: the report's first one; None before there is anything to judge.
        lost: rows that are missing in the file, by their numbers.
    """

    kind: str = ""
    title: str = ""
    progress: Progress | None = None
    screen: Screen | None = None
    events: Sequence[Event] = ()
    lost: int = 0


def view(record: Record, path: Path) -> View:
    """What a run of training or of a probe says so far.

    Raises:
        InputError: it is of another kind, damaged, or foreign.
    """
    kind = str(record.attributes.get("kind"))
    if kind not in _KINDS:
        raise InputError(f"{path} holds {kind!r}, which does not grow{shown(path, record)}")
    with content_of(record, path, kind, f"run of {kind}"):
        lost = int(record.attributes.get("damaged_frames", 0))
        return replace(_KINDS[kind](record, path), kind=kind, lost=lost)


def _of_probe(record: Record, path: Path) -> View:
    run = probe_results.from_record(record, path)
    begun = run.vitals or run.alarms or run.returns or run.episodes or run.measured
    columns = (run.alarms.get(name, ()) for name in ("update", "alarm", "message"))
    return View(
        title=f"probe on {run.task}" if run.task else "probe",
        progress=_paced("update", None, *(run.vitals.get(n, ()) for n in ("update", "elapsed"))),
        screen=probe_screen(run) if begun else None,
        events=[
            Event(int(at), str(kind), str(text)) for at, kind, text in zip(*columns, strict=True)
        ],
    )


def _of_training(record: Record, path: Path) -> View:
    """Of a run without an evaluation yet the progress alone."""
    config, groups = json.loads(str(record.attributes["config"])), record.groups
    pace = (groups["updates"][name].values for name in ("iteration", "seconds"))
    progress = _paced("iteration", int(config["settings"]["iterations"]), *pace)
    title = f"{config['algorithm']['name']} on {config['task']}"
    if not len(groups["evaluations"]["iteration"].values):
        return View(title=title, progress=progress)
    run = training_results.from_record(record, path)
    events = _reported(run, groups["events"]["number"].values)
    return View(title=title, progress=progress, screen=training_screen({run.name: run}),
                events=events)  # fmt: skip


def _reported(run: Training, numbers: Iterable[Any]) -> list[Event]:
    """Events of the run, in their order."""
    per = 2 * len(run.seeds)  # numbers of the events of one iteration
    found = [
        Event(int(number) // per, "", text)
        for number, text in zip(numbers, run.events, strict=True)
    ]
    return sorted(found, key=lambda event: event.at)


def _paced(across: str, total: int | None, at: Any, seconds: Any) -> Progress | None:
    """From the rows of a table: what was counted, [R], and when, [R]; None without a row."""
    if not len(at):
        return None
    late, when = at[-_RECENT:], np.asarray(seconds[-_RECENT:], dtype=np.float64)
    took = float(when[-1] - when[0])
    rate = float(late[-1] - late[0]) / took if took > 0 else nan
    beat = float(np.median(np.diff(when))) if len(when) > 1 else 0.0
    return Progress(across, int(at[-1]), total, rate, float(when[-1]), beat)


_KINDS: Mapping[str, Callable[[Record, Path], View]] = {
    PROBE: _of_probe, training_results.KIND: _of_training,
}  # fmt: skip


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
    if not (view.progress or view.screen or view.events):
        return "empty"
    return "silent" if late else "running"


def _in_words(phase: _Phase, view: View, path: Path) -> str:
    if phase == "waiting":
        return f"no run at {path} yet: waiting for it to be begun by `gradlab train` or a probe"
    if phase == "empty":
        return "the run has begun and has no row yet: waiting for the first"
    if phase == "ended":
        return f"the run has ended{_open_end(view)}"
    if phase == "stopped":
        return f"the writer is gone, and the run was not closed{_open_end(view)}"
    return "no new row for a while, and the run is not closed" if phase == "silent" else "running"


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
    """The state as one plain line, with the first number of the report's screen."""
    progress, screen = state.view.progress, state.view.screen
    if progress is None or state.phase in ("waiting", "empty"):
        return phase_line(state, now)
    latest = [] if screen is None else screen.numbers[:1]
    parts = [how_far(state, progress), *(printable(f"{e.label}: {e.text}") for e in latest)]
    return ", ".join(parts if state.phase == "running" else [phase_line(state, now), *parts])


def document(state: State) -> dict[str, Any]:
    """The state as JSON: numbers that are not finite are null."""
    view, progress = state.view, state.view.progress
    measured = progress and vars(progress) | {"share": progress.share, "left": progress.left}
    return {
        "run": state.run,
        "phase": state.phase,
        "told": state.told,
        "written": state.written,
        "kind": view.kind,
        "title": view.title,
        "progress": measured
        and {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in measured.items()
        },
        "recommendation": view.screen and view.screen.headline,
        "sure": view.screen and light_line(view.screen.light, view.screen.sure),
        "numbers": [vars(number) for number in view.screen.numbers] if view.screen else [],
        "events": [vars(event) for event in view.events[-_EVENTS:]],
        "lost": view.lost,
    }
