"""The state of a run in progress, as both views show it: one value of its file and journal.

    waiting → empty → running ⇄ silent → ended (its writer has closed it)
                                       → stopped (its writer is gone and has not)

A run is silent when its next row is five times later than the latest rows were, and at least ten
seconds: an evaluation or a measurement may take that long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from gradlab.errors import InputError
from gradlab.storage.headers import shown
from gradlab.storage.journal import UNREADABLE
from gradlab.storage.records import Record
from gradlab.watching import probe, training
from gradlab.watching.curves import Chart
from gradlab.watching.events import Event, Layer, Progress
from gradlab.watching.following import Follower, Snapshot
from gradlab.watching.latest_values import latest_values

Phase = Literal["waiting", "empty", "running", "silent", "ended", "stopped", "unreadable"]
KINDS = {"training": training, "probe": probe}
PREFIXES = {"training": training.PREFIX, "probe": ""}
SILENT = 10.0  # seconds
BEATS = 5
SHARE = 0.05  # of a core, for reading
EVENTS = 200  # the last ones, which a page shows


@dataclass(frozen=True, eq=False)
class View:
    """The numbers of a run.

    Attributes:
        kind: "training", "probe", or "" before the first row.
        lost: rows that are missing in the file, by their numbers.
    """

    kind: str = ""
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    charts: Sequence[Chart] = ()
    events: Sequence[Event] = ()
    layers: Sequence[Layer] = ()
    lost: int = 0

    @property
    def rows(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.charts or self.events)


@dataclass(frozen=True, eq=False)
class State:
    """A run at a moment.

    Attributes:
        told: the phase in words.
        written: when its last row was, in seconds of `time.time`; None before the first.
    """

    run: str
    phase: Phase
    told: str
    written: float | None
    view: View

    def age(self, now: float) -> float:
        """Seconds since the last row."""
        return 0.0 if self.written is None else max(now - self.written, 0.0)


@final
class Watcher:
    """States of one run; each reads the new rows only."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        self._follower = Follower(path)
        self._made: tuple[Record | None, View, str] = None, View(), ""
        self.rest = 0.0  # seconds to leave alone before the next reading

    def state(self) -> State:
        """The present state; `rest` is the time to wait, so that reading keeps to its share."""
        begun = time.thread_time()
        present = self._state()
        self.rest = (time.thread_time() - begun) / SHARE
        return present

    def _state(self) -> State:
        snapshot = self._follower.read()
        if not snapshot.trouble and snapshot.record is not self._made[0]:
            self._made = self._viewed(snapshot.record)
        _, view, trouble = self._made
        trouble = snapshot.trouble or trouble
        phase: Phase = "unreadable" if trouble else _phase(snapshot, view, self.clock())
        text = trouble or _in_words(phase, view, self.path)
        return State(str(self.path), phase, text, snapshot.written, view)

    def _viewed(self, record: Record | None) -> tuple[Record | None, View, str]:
        """The view of a record, or the last view and why there is no new one."""
        if record is None:
            return None, View(), ""
        try:
            return record, view(record, self.path), ""
        except InputError as error:
            return record, self._made[1], str(error)


def view(record: Record, path: Path) -> View:
    """The numbers of a run of training or of a probe.

    Raises:
        InputError: it is of another kind, or foreign.
    """
    kind = str(record.attributes.get("kind"))
    if kind not in KINDS:
        raise InputError(f"{path} holds {kind!r}, which does not grow{shown(path, kind)}")
    try:
        of = KINDS[kind]
        title, facts = of.head(record)
        return View(
            kind, title, facts, of.progress(record), of.charts(record), of.events(record),
            probe.layers(record, PREFIXES[kind]), int(record.attributes.get("damaged_frames", 0)),
        )  # fmt: skip
    except (*UNREADABLE, ArithmeticError) as error:
        raise InputError(f"{path} is damaged or foreign ({error!r}): make the run again") from error


def _phase(snapshot: Snapshot, view: View, now: float) -> Phase:
    if snapshot.writer == "none":
        return "waiting"
    beat = 0.0 if view.progress is None else view.progress.beat
    late = now - (snapshot.written or now) > max(SILENT, BEATS * beat)
    if snapshot.writer == "closed":
        return "ended"
    if snapshot.writer == "gone" and late:  # not at once: a writer may be about to take it
        return "stopped"
    if not view.rows:
        return "empty"
    return "silent" if late else "running"


def _in_words(phase: Phase, view: View, path: Path) -> str:
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


def document(state: State) -> dict[str, Any]:
    """The state as JSON: numbers that are not finite are null. Unchanged while no row is added."""
    view, progress = state.view, state.view.progress
    return {
        "run": state.run,
        "phase": state.phase,
        "told": state.told,
        "written": state.written,
        "kind": view.kind,
        "title": view.title,
        "facts": dict(view.facts),
        "progress": None if progress is None else _plain_progress(progress),
        "latest": [_finite(vars(reading)) for reading in latest_values(view.charts)],
        "charts": [_plain_chart(chart) for chart in view.charts],
        "events": [vars(event) for event in view.events[-EVENTS:]],
        "layers": [_finite(vars(layer)) for layer in view.layers],
        "lost": view.lost,
    }


def _plain_progress(progress: Progress) -> dict[str, Any]:
    return _finite(vars(progress) | {"share": progress.share, "left": progress.left})


def _plain_chart(chart: Chart) -> dict[str, Any]:
    return vars(chart) | {
        "levels": dict(chart.levels),
        "curves": [
            {
                name: values if values is None or isinstance(values, str) else _listed(values)
                for name, values in vars(curve).items()
            }
            for curve in chart.curves
        ],
    }


def _listed(values: Any) -> list[float | None]:
    """Values with the six significant digits that a page can show."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, those that are not finite as None."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in values.items()
    }
