"""Continuous views of a run: a screen that is redrawn, plain lines into a pipe, or a page."""

from __future__ import annotations

import textwrap
import threading
import time
import webbrowser
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gradlab.verdicts.screen import lines as first_lines
from gradlab.watching.state import (
    Event,
    State,
    Watcher,
    event_line,
    how_far,
    line,
    phase_line,
    printable,
)

_EVERY = 1.0  # seconds between two readings
_LINES = 10.0  # seconds between two lines
_FOOT = "Ctrl-C ends this view, not the run."
_OVER = ("ended", "stopped")
_STYLES = {"running": "bold green", "silent": "bold yellow", "stopped": "bold red",
          "unreadable": "bold red"}  # fmt: skip
_MARKS = {
    "waiting": "…", "empty": "…", "running": ">", "silent": "?", "ended": "=", "stopped": "!",
    "unreadable": "!",
}  # fmt: skip


def screen(
    state: State, now: float, width: int, height: int | None = None, foot: str = ""
) -> Group:
    """Title, phase, progress, the report's first screen and events; what does not fit into the
    height is left out, earlier events first.

    Colour alone carries no information.
    """
    view, wide = state.view, max(width, 20)
    head = [Text(printable(view.title or state.run), style="bold")]
    phase = f"{_MARKS[state.phase]} {phase_line(state, now)}"
    head.append(Text(phase, style=_STYLES.get(state.phase, "bold")))
    if view.progress is not None:
        head.append(Text(how_far(state, view.progress)))
    if view.lost:
        head.append(Text(f"! {view.lost} rows of the file are lost", style="bold"))
    # The phase says whether the run was closed.
    first = [] if view.screen is None else first_lines(replace(view.screen, notice=""))
    advice = [part for each in first for part in textwrap.wrap(printable(each), wide)]
    texts = [event_line(state, each, often) for each, often in last_of_each_kind(view.events)]
    happened = [*texts[:-1], *(textwrap.wrap(texts[-1], wide)[:4] if texts else [])]
    below = [Text(each) for each in (texts if height is None else happened)]
    if height is not None:
        free = max(height - len(head) - 4, 2)
        advice = advice[: max(free - len(below), free // 2)]
        below = below[-max(free - len(advice), 1) :]
        for text in (*head, *below):
            text.no_wrap, text.overflow = True, "ellipsis"
    parts = [*head, *([Text(), *map(Text, advice)] if advice else [])]
    parts += [Text(), *below] if below else []
    return Group(*parts, *([Text(foot, style="dim")] if foot else []))


def last_of_each_kind(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """The last event of each kind of alarm and how many there were, in order; every other event."""
    last: dict[str, Event] = {}
    often = Counter(each.kind or each.text for each in events)
    for each in events:
        last.pop(each.kind or each.text, None)
        last[each.kind or each.text] = each
    return [(each, often[kind]) for kind, each in last.items()]


def redraw(watcher: Watcher, console: Console) -> None:
    """Redraw the screen once a second until Ctrl-C; the last state stays."""

    def drawn() -> object:
        return screen(watcher.state(), watcher.clock(), console.width, console.height, _FOOT)

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(drawn(), refresh=True)  # type: ignore[arg-type]
            time.sleep(max(_EVERY, watcher.rest))


def lines(watcher: Watcher, out: IO[str], sleep: Callable[[float], None] = time.sleep) -> None:
    """A line when there are new rows, at most every ten seconds, until the run has ended; events
    and changes of phase at once."""
    shown, printed, due = "", 0, 0.0
    while True:
        state, now = watcher.state(), watcher.clock()
        for event in state.view.events[printed:]:
            print(f"  {event_line(state, event)}", file=out, flush=True)
        printed = len(state.view.events)
        if state.phase != shown or (now >= due and state.phase == "running"):
            print(f"{time.strftime('%H:%M:%S', time.localtime(now))} {line(state, now)}",
                  file=out, flush=True)  # fmt: skip
            shown, due = state.phase, now + _LINES
        if state.phase in _OVER:
            return
        sleep(max(_EVERY, watcher.rest))


def page(watcher: Watcher, port: int, opened: bool, console: Console) -> None:
    """The report on this machine until Ctrl-C, rendered again as the run grows.

    Raises:
        InputError: the port cannot be had.
    """
    from gradlab.watching.server import Server

    with Server(watcher, port) as server:
        notice = printable(f"watching {watcher.path} at {server.url} (Ctrl-C ends it)")
        console.print(notice, markup=False, soft_wrap=True)
        if opened:
            webbrowser.open(server.url)
        threading.Thread(target=server.serve_forever, args=(_EVERY / 20,), daemon=True).start()
        try:
            while True:
                server.reports.renew()
                time.sleep(_EVERY)
        finally:
            server.shutdown()
