"""A state in words: what both kinds of terminal view say."""

from __future__ import annotations

from math import isfinite

from gradlab.watching.curves import Chart, Curve
from gradlab.watching.events import Event, Progress
from gradlab.watching.state import State, finite
from gradlab.wording import two

MARKS = {
    "waiting": "…", "empty": "…", "running": ">", "silent": "?", "ended": "=", "stopped": "!",
    "unreadable": "!",
}  # fmt: skip
STALE = ("running", "silent", "stopped")


def printable(text: str) -> str:
    """Names and messages come from a file: nothing in them may steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def lasting(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{two(seconds / size)} {unit}"
    return f"{seconds:.0f} s"


def number(value: float | None) -> str:
    """Four significant digits; a dash for what is not there."""
    return "–" if value is None or not isfinite(value) else f"{value:.4g}"


def phase(state: State, now: float) -> str:
    """What the run is doing, and for how long it has said nothing."""
    told = printable(state.told)
    if state.phase not in STALE or state.written is None:
        return told
    return f"{told}; last row {lasting(state.age(now))} ago"


def how_far(state: State, progress: Progress) -> str:
    """Iteration of all; while it goes on, its rate and the time that is left."""
    parts = [f"{progress.across} {progress.done:,}"]
    if progress.total is not None and progress.share is not None:
        parts[0] += f" of {progress.total:,} ({progress.share:.0%})"
    going = state.phase in ("running", "silent")
    if isfinite(progress.rate) and going:
        parts.append(f"{progress.rate:.3g}/s")
    if progress.left and going:
        parts.append(f"about {lasting(progress.left)} left")
    return ", ".join(parts)


def name(chart: Chart, curve: Curve) -> str:
    return printable(f"{chart.title}, {curve.label}" if curve.label else chart.title)


def latest(curve: Curve) -> str:
    k = curve.latest
    return number(None if k is None else float(curve.value[k]))


def ends(curve: Curve) -> str:
    """Both ends of the interval or range at the latest value; "" without one."""
    k = curve.latest
    if k is None or curve.low is None or curve.high is None:
        return ""
    low, high = finite(curve.low[k]), finite(curve.high[k])
    return "" if low is None or high is None else f"{low:.3g} … {high:.3g}"


def event(state: State, told: Event) -> str:
    across = "" if state.view.progress is None else state.view.progress.across
    kind = "" if told.kind == "run" else f"{told.kind}: "
    return printable(f"{across} {told.at:,}: {kind}{told.text}")


def line(state: State, now: float) -> str:
    """The state as one plain line."""
    progress = state.view.progress
    if progress is None or not state.view.rows:
        return phase(state, now)
    values = [
        f"{name(chart, chart.curves[0])} {latest(chart.curves[0])}"
        for chart in state.view.charts[:4]
    ]
    parts = [how_far(state, progress), *values]
    return ", ".join(parts if state.phase == "running" else [phase(state, now), *parts])
