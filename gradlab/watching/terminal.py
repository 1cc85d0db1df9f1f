"""A state on the terminal: head, a row with a sparkline per quantity, events.

Colour alone carries no information. Rows that do not fit are left out, the least important first,
and counted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gradlab.watching import words
from gradlab.watching.curves import Chart, Curve
from gradlab.watching.events import last_of_each_kind
from gradlab.watching.latest_values import LatestValue, latest_values, through_run
from gradlab.watching.sparkline import sparkline
from gradlab.watching.state import State

WIDEST = 60  # characters of a sparkline
NARROWEST = 8
NAME, VALUE, RANGE, AT = 31, 10, 21, 12  # widths of columns
BAR = 30
EVENTS = 20  # where there is room for all that a reader wants to see
FEWEST = 4  # quantities
SPACES = 4  # lines: around the table, its head, and the cursor
STYLES = {"running": "bold green", "silent": "bold yellow", "stopped": "bold red",
          "unreadable": "bold red"}  # fmt: skip
Row = tuple[Chart, Curve, LatestValue]


@dataclass(frozen=True)
class Room:
    """Characters across, lines down (None: as many as it takes), and whether only ASCII shows."""

    width: int
    height: int | None
    ascii_only: bool


def room(console: Console, height: int | None) -> Room:
    return Room(console.width, height, console.options.ascii_only)


def screen(state: State, now: float, room: Room, foot: str = "") -> Group:
    """Everything that fits into the room."""
    head = _head(state, now, room)
    curves, values = through_run(state.view.charts), latest_values(state.view.charts)
    rows = [(chart, curve, each) for (chart, curve), each in zip(curves, values, strict=True)]
    below = [Text(foot, style="dim")] if foot else []
    free = None
    if room.height is not None:
        free = room.height - len(head) - len(below) - SPACES
    happened = _events(state, room, free, len(rows))
    shown = len(rows) if free is None else max(free - len(happened), FEWEST)
    hidden = 0 if len(rows) <= shown else len(rows) - shown + 1
    parts: list[Text | Table] = [*head]
    if rows:
        parts += [Text(), _table(rows[: len(rows) - hidden], state, room)]
    if hidden:
        parts.append(Text(f"… {hidden} more: taller window, --once or --web", style="dim"))
    return Group(*parts, *([Text(), *happened] if happened else []), *below)


def _head(state: State, now: float, room: Room) -> list[Text]:
    """Title and phase, progress, facts."""
    view = state.view
    phase = f"{words.MARKS[state.phase]} {words.phase(state, now)}"
    lines = [Text(words.printable(view.title or state.run), style="bold")]
    lines.append(Text(phase, style=STYLES.get(state.phase, "bold")))
    if view.progress is not None:
        lines.append(Text(_bar(state, room) + words.how_far(state, view.progress)))
    if view.facts:
        facts = (f"{name} {value}" for name, value in view.facts.items())
        lines.append(Text(words.printable(" · ".join(facts)), style="dim"))
    if view.lost:
        lines.append(Text(f"! {view.lost} rows of the file are lost", style="bold"))
    for line in lines:
        line.no_wrap, line.overflow = room.height is not None, "ellipsis"
    return lines


def _bar(state: State, room: Room) -> str:
    share = None if state.view.progress is None else state.view.progress.share
    if share is None or room.width < 70:
        return ""
    full, empty = ("#", "-") if room.ascii_only else ("━", "┄")
    done = int(share * BAR)
    return f"{full * done}{empty * (BAR - done)} "


def _table(rows: Sequence[Row], state: State, room: Room) -> Table:
    """Name, latest value, interval or range, where it is from, and the course so far."""
    ranged, placed = room.width >= 64, room.width >= 110
    name = min(NAME, max(len(reading.name) for _, _, reading in rows))
    taken = name + VALUE + 3 + (RANGE + 1) * ranged + (AT + 1) * placed
    spark = min(WIDEST, max(NARROWEST, room.width - taken))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", width=name, no_wrap=True, overflow="ellipsis")
    table.add_column("latest", justify="right", width=VALUE, no_wrap=True)
    if ranged:
        table.add_column("interval or range", width=RANGE, no_wrap=True)
    if placed:
        across = "" if state.view.progress is None else state.view.progress.across
        table.add_column(f"at {across}", justify="right", width=AT, no_wrap=True)
    table.add_column("so far", width=spark, no_wrap=True)
    for chart, curve, reading in rows:
        more = [Text(reading.ends, style="dim")] if ranged else []
        more += [Text(f"{reading.at:,.0f}", style="dim")] if placed else []
        course = sparkline(curve, spark, chart.scale, room.ascii_only)
        shown = Text(reading.shown, style="bold")
        table.add_row(Text(words.printable(reading.name)), shown, *more, Text(course))
    return table


def _events(state: State, room: Room, free: int | None, rows: int) -> list[Text]:
    """The last events; where lines are scarce the last of each kind, only the very last whole."""
    events = state.view.events
    if free is None:
        earlier = len(events) - EVENTS
        more = [f"… {earlier} earlier"] if earlier > 0 else []
        return [Text(each) for each in more + [words.event(state, e) for e in events[-EVENTS:]]]
    if not events:
        return []
    texts = [words.event(state, each, often) for each, often in last_of_each_kind(events)]
    last = [Text(line) for line in textwrap.wrap(texts[-1], max(room.width, 20))[:4]]
    others = max(free - min(rows, free // 2) - len(last), 0)
    before = [Text(each, no_wrap=True, overflow="ellipsis") for each in texts[:-1]]
    return [*(before[-others:] if others else []), *last]
