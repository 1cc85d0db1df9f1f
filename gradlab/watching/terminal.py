"""A state as a terminal shows it: head, a row with a sparkline per quantity, what has happened.

Nothing is told by colour alone, and what does not fit is left out with its number, the least
important first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gradlab.watching import words
from gradlab.watching.curves import Chart, Curve
from gradlab.watching.sparkline import sparkline
from gradlab.watching.state import State

WIDEST = 60  # characters of a sparkline
NARROWEST = 8
NAME = 31
BAR = 30
EVENTS = 3  # at least, where there are as many
FEWEST = 4  # quantities
SPACES = 4  # lines: around the table, its head, and the cursor
STYLES = {"running": "bold green", "silent": "bold yellow", "stopped": "bold red",
          "unreadable": "bold red"}  # fmt: skip


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
    head, told = _head(state, now, room), _events(state, room)
    rows = [(chart, curve) for chart in state.view.charts for curve in chart.curves]
    below = [Text(foot, style="dim")] if foot else []
    hidden = 0
    if room.height is not None:
        free = room.height - len(head) - len(below) - SPACES
        told = told[-max(EVENTS, free - len(rows)) :]
        shown = max(free - len(told), FEWEST)
        if len(rows) > shown:
            rows, hidden = rows[: shown - 1], len(rows) - shown + 1
    parts: list[Text | Table] = [*head]
    if rows:
        parts += [Text(), _table(rows, room)]
    if hidden:
        parts.append(Text(f"… {hidden} more: taller window, --once or --web", style="dim"))
    return Group(*parts, *([Text(), *told] if told else []), *below)


def _head(state: State, now: float, room: Room) -> list[Text]:
    """Title and phase, facts, progress."""
    view, mark = state.view, words.MARKS[state.phase]
    mark = mark if not room.ascii_only or mark.isascii() else "."
    title = Text(words.printable(view.title or state.run), style="bold")
    told = Text(f"{mark} {words.phase(state, now)}", style=STYLES.get(state.phase, "bold"))
    found = [title, told]
    if view.progress is not None:
        found.append(Text(_bar(state, room) + words.how_far(state, view.progress)))
    if view.facts:
        facts = (f"{name} {value}" for name, value in view.facts.items())
        found.append(Text(words.printable(" · ".join(facts)), style="dim"))
    if view.lost:
        found.append(Text(f"! {view.lost} rows of the file are lost", style="bold"))
    for each in found:
        each.no_wrap, each.overflow = room.height is not None, "ellipsis"
    return found


def _bar(state: State, room: Room) -> str:
    share = None if state.view.progress is None else state.view.progress.share
    if share is None or room.width < 70:
        return ""
    full, empty = ("#", "-") if room.ascii_only else ("━", "┄")
    done = int(share * BAR)
    return f"{full * done}{empty * (BAR - done)} "


def _table(rows: Sequence[tuple[Chart, Curve]], room: Room) -> Table:
    """Name, latest value, interval or range, and the course so far."""
    ranged = room.width >= 64
    across = min(NAME, max(len(words.name(*row)) for row in rows))
    spark = min(WIDEST, max(NARROWEST, room.width - across - 12 - (22 if ranged else 0)))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", width=across, no_wrap=True, overflow="ellipsis")
    table.add_column("latest", justify="right", width=10, no_wrap=True)
    if ranged:
        table.add_column("interval or range", width=21, no_wrap=True)
    table.add_column("so far", width=spark, no_wrap=True)
    for chart, curve in rows:
        ends = [Text(words.ends(curve), style="dim")] if ranged else []
        course = sparkline(curve, spark, chart.scale, room.ascii_only)
        name = Text(words.name(chart, curve))
        table.add_row(name, Text(words.latest(curve), style="bold"), *ends, Text(course))
    return table


def _events(state: State, room: Room) -> list[Text]:
    """The last events, each in a line where lines are scarce."""
    found = [Text(f"! {words.event(state, each)}") for each in state.view.events]
    for each in found:
        each.no_wrap, each.overflow = room.height is not None, "ellipsis"
    return found
