"""A state in words, for both kinds of terminal view."""

from __future__ import annotations

from math import isfinite

from gradlab.watching.events import Event, Progress
from gradlab.watching.latest_values import latest_values
from gradlab.watching.state import State
from gradlab.wording import two

MARKS = {
    "waiting": "…", "empty": "…", "running": ">", "silent": "?", "ended": "=", "stopped": "!",
    "unreadable": "!",
}  # fmt: skip
STALE = ("running", "silent", "stopped")


def printable(text: str) -> str:
    """Text from a file without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def lasting(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{two(seconds / size)} {unit}"
    return f"{seconds:.0f} s"


def phase(state: State, now: float) -> str:
    """The phase of the run, and the age of its last row."""
    text = printable(state.told)
    if state.phase not in STALE or state.written is None:
        return text
    return f"{text}; last row {lasting(state.age(now))} ago"


def how_far(state: State, progress: Progress) -> str:
    """Iteration of all; while the run goes on, its rate and the time that is left."""
    parts = [f"{progress.across} {progress.done:,}"]
    if progress.total is not None and progress.share is not None:
        parts[0] += f" of {progress.total:,} ({progress.share:.0%})"
    going = state.phase in ("running", "silent")
    if isfinite(progress.rate) and going:
        parts.append(f"{progress.rate:.3g}/s")
    if progress.left and going:
        parts.append(f"about {lasting(progress.left)} left")
    return ", ".join(parts)


def event(state: State, happened: Event, often: int = 1) -> str:
    """An event in words: when, how often, its kind and its message."""
    across = "" if state.view.progress is None else state.view.progress.across
    kind = "" if happened.kind == "run" else f"{happened.kind}: "
    times = f", {often} times" if often > 1 else ""
    return printable(f"! {across} {happened.at:,}{times}: {kind}{happened.text}")


def line(state: State, now: float) -> str:
    """The state as one plain line."""
    progress = state.view.progress
    if progress is None or not state.view.rows:
        return phase(state, now)
    values = [printable(f"{each.name} {each.shown}") for each in latest_values(state.view.charts)][
        :4
    ]
    parts = [how_far(state, progress), *values]
    return ", ".join(parts if state.phase == "running" else [phase(state, now), *parts])
