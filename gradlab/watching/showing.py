"""Continuous views of a run: a screen that is redrawn, plain lines into a pipe, or a page."""

from __future__ import annotations

import threading
import time
import webbrowser
from collections.abc import Callable
from typing import IO

from rich.console import Console
from rich.live import Live

from gradlab.watching.state import State, Watcher, event_line, line, printable
from gradlab.watching.terminal import room, screen

_EVERY = 1.0  # seconds between two readings
LINES = 10.0  # seconds between two lines
_FOOT = "Ctrl-C ends this view, not the run."
_OVER = ("ended", "stopped")


def redraw(watcher: Watcher, console: Console) -> None:
    """Redraw the screen once a second until Ctrl-C; the last state stays."""

    def drawn() -> object:
        return screen(watcher.state(), watcher.clock(), room(console, console.height), _FOOT)

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
        printed = _events(state, printed, out)
        if state.phase != shown or (now >= due and state.phase == "running"):
            print(f"{time.strftime('%H:%M:%S', time.localtime(now))} {line(state, now)}",
                  file=out, flush=True)  # fmt: skip
            shown, due = state.phase, now + LINES
        if state.phase in _OVER:
            return
        sleep(max(_EVERY, watcher.rest))


def _events(state: State, printed: int, out: IO[str]) -> int:
    """Print new events; returns the number of all."""
    events = state.view.events
    for event in events[printed:]:
        print(f"  {event_line(state, event)}", file=out, flush=True)
    return len(events)


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
