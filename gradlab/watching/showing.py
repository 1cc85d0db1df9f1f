"""Continuous views of a run: a screen that is redrawn, plain lines into a pipe, or a page.

The page is served on this machine, with two answers only:

    GET /             the report as last rendered, by the one renderer of `gradlab.reporting`
    GET /state.json   a line about the run now, and the mark of that report

It listens on 127.0.0.1 alone, and answers requests to a name of this machine only: a page from
elsewhere whose name was pointed here (DNS rebinding) is refused. Requests are compared with these
two words and never used as a path. Few are served at a time, each for a few seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import textwrap
import threading
import time
import webbrowser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import IO, Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import fault
from gradlab.verdicts.screen import Screen
from gradlab.verdicts.screen import lines as first_lines
from gradlab.watching.state import (
    SHARE,
    Event,
    State,
    Watcher,
    event_line,
    how_far,
    line,
    phase_line,
    printable,
)
from gradlab.wording import duration, unnumbered

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
_LOOPBACK = "127.0.0.1"
_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_MOST = 16  # requests at a time
_SLOW, LONGEST = 5.0, 15.0  # seconds without a byte, and of one request
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_FRAMED = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"  # the rest is in the page
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


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
    advice = [part for each in _first(state) for part in textwrap.wrap(printable(each), wide)]
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
    """The last event of each alarm's fault and how many there were, in order; every other event."""
    last: dict[str, Event] = {}
    named = [fault(each.kind, each.text) or each.text for each in events]
    often = Counter(named)
    for name, each in zip(named, events, strict=True):
        last.pop(name, None)
        last[name] = each
    return [(each, often[name]) for name, each in last.items()]


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
    and changes of phase at once, an alarm once, and at the end its count and the report's first
    screen."""
    shown, printed, due, told = "", 0, 0.0, set[tuple[str, str]]()
    while True:
        state, now = watcher.state(), watcher.clock()
        for event in state.view.events[printed:]:
            words = event.kind, unnumbered(event.text)
            if not event.kind or words not in told:
                print(f"  {event_line(state, event)}", file=out, flush=True)
            told.add(words)
        printed = len(state.view.events)
        counts = [
            f"  ! {event.kind}: {often} times, the last at {event.at:,}"
            for event, often in last_of_each_kind(state.view.events)
            if event.kind and often > 1
        ]
        for each in [*counts, *_first(state)] if state.phase in _OVER else ():
            print(printable(each), file=out, flush=True)
        if state.phase != shown or (now >= due and state.phase == "running"):
            hint = " (Ctrl-C ends the view)" if state.phase == "waiting" else ""
            print(f"{time.strftime('%H:%M:%S', time.localtime(now))} {line(state, now)}{hint}",
                  file=out, flush=True)  # fmt: skip
            shown, due = state.phase, now + _LINES
        if state.phase in _OVER:
            return
        sleep(max(_EVERY, watcher.rest))


def _first(state: State) -> list[str]:
    """The report's first screen, without its notice: the phase says whether the run was closed."""
    shown = state.view.screen
    return [] if shown is None else first_lines(replace(shown, notice=""))


def page(watcher: Watcher, port: int, opened: bool, console: Console) -> None:
    """The report on this machine until Ctrl-C, rendered again as the run grows.

    Raises:
        InputError: the port cannot be had.
    """
    with Server(watcher, port) as server:
        notice = printable(f"watching {watcher.path} at {server.url} (Ctrl-C ends it)")
        console.print(notice, soft_wrap=True)
        if opened:
            webbrowser.open(server.url)
        threading.Thread(target=server.serve_forever, args=(_EVERY / 20,), daemon=True).start()
        try:
            while True:
                server.reports.renew()
                time.sleep(_EVERY)
        finally:
            server.shutdown()


@final
class _Reports:
    """The report as bytes with its mark, rendered again when rows have come.

    `renew` is called by one thread, `page` and `line` by those that answer.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._stamp: object = ()
        self._due = 0.0
        self._made = watcher.clock()
        self._shown = (b"", "")
        self._state = watcher.state()
        self.renew()

    def renew(self) -> None:
        """Read what is new; render it where the last rendering is paid for (`SHARE` of a core)."""
        state = self._state = self.watcher.state()
        stamp = self.watcher.stamp if state.view.screen else state.told
        if stamp == self._stamp or time.monotonic() < self._due:
            return
        begun = time.thread_time()
        text = _rendered(state, self.watcher, self._line())
        self._stamp, body = stamp, text.encode(errors="replace")
        self._shown = body, hashlib.sha256(body).hexdigest()[:32]
        self._made, spent = self.watcher.clock(), time.thread_time() - begun
        self._due = time.monotonic() + spent / SHARE

    def page(self) -> bytes:
        return self._shown[0]

    def line(self) -> bytes:
        """JSON: the state in a line, and the mark of the page."""
        return json.dumps({"line": self._line(), "page": self._shown[1]}).encode()

    def _line(self) -> str:
        state, now = self._state, self.watcher.clock()
        parts = [phase_line(state, now)]
        if state.view.progress is not None:
            parts.append(how_far(state, state.view.progress))
        if state.phase in ("running", "silent") and state.view.screen:
            parts.append(f"the report below is {duration(max(now - self._made, 0.0))} old")
        return "; ".join(parts)


def _rendered(state: State, watcher: Watcher, live: str) -> str:
    """The report; before the first row, or where it cannot be made, what is the matter."""
    # Figures, which a terminal does not need.
    from gradlab.reporting.kinds import page_of
    from gradlab.reporting.page import Page, render
    from gradlab.reporting.probe_page import RETURN
    from gradlab.reporting.training_page import LEARNING

    # Unfolded: return, the critic's value against it, realised gains.
    first, told = (RETURN, LEARNING), state.told
    if state.view.screen:
        try:
            page = page_of(watcher.path)
            sections = (replace(s, opened=s.opened or s.title in first) for s in page.sections)
            return render(replace(page, sections=tuple(sections)), live=live)
        except InputError as error:
            told = str(error)
    headline = f"{told[:1].upper()}{told[1:]}."
    title = state.view.title or watcher.path.stem
    screen = Screen(headline, "choose", "no row yet")
    return render(Page(title, "Watching a run", {"run": state.run}, screen), live=live)


def _cut(one: socket.socket) -> None:
    """End a connection whose thread may be waiting on it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@final
class Server(ThreadingHTTPServer):
    """Use as a context manager; `serve_forever` answers until it is shut down.

    Raises:
        InputError: the port is taken or not allowed.
    """

    daemon_threads = True
    request_queue_size = 2 * _MOST  # with fewer, connections at one time wait for a second
    block_on_close = False
    allow_reuse_address = False  # else two views could share a port, and one be never seen

    def __init__(self, watcher: Watcher, port: int = 0) -> None:
        self._places = threading.BoundedSemaphore(_MOST)
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise InputError(
                f"--port {port} cannot be had ({error.strerror}): choose another"
            ) from error
        self.reports = _Reports(watcher)

    @property
    def url(self) -> str:
        return f"http://{_LOOPBACK}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the network for a name that nobody needs.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _LOOPBACK, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, while there are places."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(LONGEST, _cut, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


@final
class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "gradlab", ""
    timeout = _SLOW

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        names = self.headers.get_all("Host", [])
        if len(names) != 1 or not _NAMES.fullmatch(names[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            content = self.server.reports.page() if body else b""
            self._send(200, content, "text/html; charset=utf-8", _FRAMED)
        elif self.path == "/state.json":
            content = self.server.reports.line() if body else b""
            self._send(200, content, "application/json", _NOTHING)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The bare status: nothing of a request comes back. All but GET and HEAD are refused."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        allowed = {"Allow": "GET, HEAD"} if code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        text = b"" if self.command == "HEAD" else f"{HTTPStatus(code).phrase}\n".encode()
        self._send(code, text, "text/plain; charset=utf-8", _NOTHING, allowed)

    def _send(
        self, code: int, body: bytes, kind: str, policy: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}
        headers["Content-Security-Policy"] = policy
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request a second would drown what matters."""
