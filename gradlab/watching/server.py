"""A live view as a page on this machine: two answers only.

    GET /             the page
    GET /state.json   the state; 304 where it has not changed (ETag)

It listens on 127.0.0.1 alone, and answers requests to a name of this machine only: a page from
elsewhere whose name was pointed here (DNS rebinding) is refused. Requests are compared with these
two words and never used as a path. Few are served at a time (`places`), each for a few seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, final

from gradlab.errors import InputError
from gradlab.watching import page
from gradlab.watching.places import Places, cut
from gradlab.watching.state import State, Watcher, document

LOOPBACK = "127.0.0.1"
NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
MOST = 16  # requests at a time
SLOW = 5.0  # seconds without a byte
LONGEST = 15.0  # seconds of one request
FRESH = 0.5  # seconds for which a state is served again
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"


@final
class States:
    """The state as bytes with its mark, made anew when something has changed."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._lock = threading.Lock()
        self._looked = -FRESH
        self._shown: State | None = None
        self._body, self._mark = b"", ""

    def now(self) -> tuple[bytes, str]:
        """JSON and ETag."""
        with self._lock:
            if time.monotonic() - self._looked >= max(FRESH, self.watcher.rest):
                state = self.watcher.state()
                if self._shown is None or vars(state) != vars(self._shown):
                    self._body = json.dumps(document(state), allow_nan=False).encode()
                    self._mark = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
                    self._shown = state
                self._looked = time.monotonic()
            return self._body, self._mark


@final
class Server(ThreadingHTTPServer):
    """Use as a context manager; `serve_forever` answers until it is shut down.

    Raises:
        InputError: the port is taken or not allowed.
    """

    daemon_threads = True
    request_queue_size = 2 * MOST  # with fewer, connections at one time wait for a second
    block_on_close = False
    allow_reuse_address = False  # else two views could share a port, and one be never seen

    def __init__(self, watcher: Watcher, port: int = 0) -> None:
        self.states = States(watcher)
        self.page, self.policy = page.document().encode(), page.policy()
        self.places = Places(MOST)
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError as error:
            raise InputError(
                f"--port {port} cannot be had ({error.strerror}): choose another"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the network for a name that nobody needs.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, while there are places."""
        if not self.places.enter(request):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(LONGEST, cut, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self.places.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


@final
class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "gradlab", ""
    timeout = SLOW

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        self.server.places.answer(self.connection)
        names = self.headers.get_all("Host", [])
        if len(names) != 1 or not NAMES.fullmatch(names[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            kind = "text/html; charset=utf-8"
            self._send(200, self.server.page if body else b"", kind, self.server.policy)
        elif self.path == "/state.json":
            self._state(body)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _state(self, body: bool) -> None:
        state, mark = self.server.states.now()
        held = [mark.strip() for mark in self.headers.get("If-None-Match", "").split(",")]
        same = mark in held
        content = b"" if same or not body else state
        self._send(304 if same else 200, content, "application/json", NOTHING, {"ETag": mark})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The bare status: nothing of a request comes back. All but GET and HEAD are refused."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        allowed = {"Allow": "GET, HEAD"} if code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        text = b"" if self.command == "HEAD" else f"{HTTPStatus(code).phrase}\n".encode()
        self._send(code, text, "text/plain; charset=utf-8", NOTHING, allowed)

    def _send(
        self, code: int, body: bytes, kind: str, policy: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(code)
        sizes = {} if code == HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(body))}
        headers = {"Content-Type": kind, "Content-Security-Policy": policy, **sizes, **HEADERS}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page that asks once a second would drown what matters."""
