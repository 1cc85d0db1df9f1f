"""A state on the terminal: head, recommendation, a row with a sparkline per quantity, events.

Colour alone carries no information. Rows that do not fit are left out, the least important first,
and counted.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gradlab.verdicts.screen import lines
from gradlab.watching.state import (
    State,
    event_line,
    how_far,
    number,
    phase_line,
    printable,
)
from gradlab.watching.view import Event, Floats, QuantityRow

_WIDEST = 60  # characters of a sparkline
_NARROWEST = 8
NAME, VALUE, RANGE, AT = 33, 10, 21, 12  # widths of columns
_BAR = 30
_ADVICE = 5  # lines of the recommendation
_EVENTS = 20  # where there is room for all that a reader wants to see
_FEWEST = 4  # quantities
_SPACES = 4  # lines: around the table, its head, and the cursor
_STYLES = {"running": "bold green", "silent": "bold yellow", "stopped": "bold red",
          "unreadable": "bold red"}  # fmt: skip
_MARKS = {
    "waiting": "…", "empty": "…", "running": ">", "silent": "?", "ended": "=", "stopped": "!",
    "unreadable": "!",
}  # fmt: skip
BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=*#"


@dataclass(frozen=True)
class _Room:
    """Characters across, lines down (None: as many as it takes), and whether only ASCII shows."""

    width: int
    height: int | None
    ascii_only: bool


def room(console: Console, height: int | None) -> _Room:
    return _Room(console.width, height, console.options.ascii_only)


def screen(state: State, now: float, room: _Room, foot: str = "") -> Group:
    """Everything that fits into the room."""
    head, rows = _head(state, now, room), state.view.rows
    below = [Text(foot, style="dim")] if foot else []
    free = None
    if room.height is not None:
        free = room.height - len(head) - len(below) - _SPACES
    happened = _events(state, room, free, len(rows))
    shown = len(rows) if free is None else max(free - len(happened), _FEWEST)
    hidden = 0 if len(rows) <= shown else len(rows) - shown + 1
    parts: list[Text | Table] = [*head]
    if rows:
        parts += [Text(), _table(rows[: len(rows) - hidden], state, room)]
    if hidden:
        parts.append(Text(f"… {hidden} more: taller window, --once or --web", style="dim"))
    return Group(*parts, *([Text(), *happened] if happened else []), *below)


def _head(state: State, now: float, room: _Room) -> list[Text]:
    """Title and phase, progress, recommendation; where there is room its numbers and the facts."""
    view = state.view
    phase = f"{_MARKS[state.phase]} {phase_line(state, now)}"
    head = [Text(printable(view.title or state.run), style="bold")]
    head.append(Text(phase, style=_STYLES.get(state.phase, "bold")))
    if view.progress is not None:
        head.append(Text(_bar(state, room) + how_far(state, view.progress)))
    if view.lost:
        head.append(Text(f"! {view.lost} rows of the file are lost", style="bold"))
    advice = [] if view.screen is None else [printable(each) for each in lines(view.screen)]
    if room.height is None:
        head += [Text(each, style="bold" if k == 0 else "") for k, each in enumerate(advice)]
        facts = (f"{name} {value}" for name, value in view.facts.items())
        return [*head, Text(printable(" · ".join(facts)), style="dim")] if view.facts else head
    said = [part for each in advice for part in textwrap.wrap(each, max(room.width, 20))]
    most = min(_ADVICE, max(room.height // 4, 1))
    head += [Text(each) for each in said[:most]]
    for text in head:
        text.no_wrap, text.overflow = True, "ellipsis"
    return head


def _bar(state: State, room: _Room) -> str:
    share = None if state.view.progress is None else state.view.progress.share
    if share is None or room.width < 70:
        return ""
    full, empty = ("#", "-") if room.ascii_only else ("━", "┄")
    done = int(share * _BAR)
    return f"{full * done}{empty * (_BAR - done)} "


def _table(rows: Sequence[QuantityRow], state: State, room: _Room) -> Table:
    """Name, latest value, interval or range, where it is from, and the course so far."""
    ranged, placed = room.width >= 64, room.width >= 110
    name = min(NAME, max(len(row.name) for row in rows))
    taken = name + VALUE + 3 + (RANGE + 1) * ranged + (AT + 1) * placed
    spark = min(_WIDEST, max(_NARROWEST, room.width - taken))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", width=name, no_wrap=True, overflow="ellipsis")
    table.add_column("latest", justify="right", width=VALUE, no_wrap=True)
    if ranged:
        table.add_column("interval or range", width=RANGE, no_wrap=True)
    if placed:
        across = "" if state.view.progress is None else state.view.progress.across
        table.add_column(f"at {across}", justify="right", width=AT, no_wrap=True)
    table.add_column("so far", width=spark, no_wrap=True)
    for row in rows:
        low, high = row.low[-1], row.high[-1]
        known = low < high  # neither is NaN
        ends = f"{number(low, 3)} … {number(high, 3)}" if known else ""
        more = [Text(ends, style="dim")] if ranged else []
        more += [Text(f"{row.x[-1]:,.0f}", style="dim")] if placed else []
        course = sparkline(row, spark, room.ascii_only)
        latest = Text(number(row.value[-1]), style="bold")
        table.add_row(Text(printable(row.name)), latest, *more, Text(course))
    return table


def sparkline(row: QuantityRow, width: int, ascii_only: bool = False) -> str:
    """The values over x in `width` characters: each the mean of its stretch, a blank where the
    stretch has no finite value; where there are fewer values, one stands until the next."""
    marks = LETTERS if ascii_only else BLOCKS
    value = np.log(np.where(row.value > 0, row.value, np.nan)) if row.log else row.value
    heights = _means(row.x, value, width)
    if len(row.x) < width:
        measured = np.where(np.isfinite(heights), np.arange(width), 0)
        heights = heights[np.maximum.accumulate(measured)]
    finite = heights[np.isfinite(heights)]
    if not len(finite):
        return " " * width
    low, span = finite.min(), finite.max() - finite.min()
    levels = (heights - low) / span if span > 0 else np.zeros(width)
    return "".join(
        marks[min(int(level * len(marks)), len(marks) - 1)] if np.isfinite(height) else " "
        for level, height in zip(levels, heights, strict=True)
    )


def _means(x: Floats, values: Floats, width: int) -> Floats:
    """Mean of the finite values in every stretch of x; NaN where there is none."""
    sound = np.isfinite(values)
    place = np.minimum((x - x[0]) / max(x[-1] - x[0], 1) * width, width - 1).astype(int)[sound]
    total = np.bincount(place, values[sound], minlength=width)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.bincount(place, minlength=width))


def last_of_each_kind(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """The last event of each kind of alarm and how many there were, in order; every other event."""
    last: dict[str, Event] = {}
    often = Counter(each.kind or each.text for each in events)
    for each in events:
        last.pop(each.kind or each.text, None)
        last[each.kind or each.text] = each
    return [(each, often[kind]) for kind, each in last.items()]


def _events(state: State, room: _Room, free: int | None, rows: int) -> list[Text]:
    """The last events; where lines are scarce the last of each kind, only the very last whole."""
    events = state.view.events
    if free is None:
        earlier = len(events) - _EVENTS
        more = [f"… {earlier} earlier"] if earlier > 0 else []
        return [Text(each) for each in more + [event_line(state, e) for e in events[-_EVENTS:]]]
    if not events:
        return []
    texts = [event_line(state, each, often) for each, often in last_of_each_kind(events)]
    last = [Text(line) for line in textwrap.wrap(texts[-1], max(room.width, 20))[:4]]
    others = max(free - min(rows, free // 2) - len(last), 0)
    before = [Text(each, no_wrap=True, overflow="ellipsis") for each in texts[:-1]]
    return [*(before[-others:] if others else []), *last]
