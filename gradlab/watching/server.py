"""The report of a growing run on this machine: two answers only.

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
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, final

from gradlab.errors import InputError
from gradlab.reporting.kinds import page_of
from gradlab.reporting.page import Page, render
from gradlab.reporting.probe_panels import RETURN
from gradlab.reporting.training_page import LEARNING
from gradlab.verdicts.screen import Screen
from gradlab.watching.state import SHARE, State, Watcher, how_far, phase_line
from gradlab.wording import duration

_LOOPBACK = "127.0.0.1"
_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_MOST = 16  # requests at a time
_SLOW, LONGEST = 5.0, 15.0  # seconds without a byte, and of one request
_FIRST = (RETURN, LEARNING)  # unfolded: return, the critic's value against it, realised gains
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
        text = render(_page(state, self.watcher), live=self._line())
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


def _page(state: State, watcher: Watcher) -> Page:
    """The report; before the first row, or where it cannot be made, what is the matter."""
    told = state.told
    if state.view.screen:
        try:
            page = page_of(watcher.path)
            sections = (replace(s, opened=s.opened or s.title in _FIRST) for s in page.sections)
            return replace(page, sections=tuple(sections))
        except InputError as error:
            told = str(error)
    headline = f"{told[:1].upper()}{told[1:]}."
    title = state.view.title or watcher.path.stem
    return Page(
        title, "Watching a run", {"run": state.run}, Screen(headline, "choose", "no row yet")
    )


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
