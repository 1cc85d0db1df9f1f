"""The server of a live page answers two questions of this machine, and refuses everything else."""

import hashlib
import http.client
import json
import re
import socket
import threading
from base64 import b64encode

import pytest

from gradlab.errors import InputError
from gradlab.watching.showing import Server
from gradlab.watching.state import Watcher
from tests.watching import grown


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    with grown.training(tmp_path_factory.mktemp("server") / "run.h5", grown.ATTACK) as writer:
        writer.append("updates", grown.update_row(1))
        yield writer


@pytest.fixture(scope="module")
def server(writer):
    (writer.path.parent / "secret.txt").write_text("secret")
    with Server(Watcher(writer.path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def asked(server, path="/", method="GET", host="127.0.0.1", **headers):
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    if host is not None:
        connection.putheader("Host", host)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def raw(server, data, wait=True):
    """What comes back for bytes as they are."""
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        connection.sendall(data)
        return connection.makefile("rb").read() if wait else b""


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    others = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)}
    for address in others - {"127.0.0.1", "::1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, server.server_address[1]), timeout=1).close()


def test_the_line_is_the_runs_and_the_mark_the_pages(server, writer):
    status, headers, body = asked(server, "/state.json")
    state = json.loads(body)
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert state["line"].startswith("running; ") and "iteration 10 of 1,000" in state["line"]
    page = asked(server)[2]
    assert hashlib.sha256(page).hexdigest().startswith(state["page"])
    writer.append("updates", grown.update_row(2))
    server.reports.renew()
    assert "iteration 20 of 1,000" in json.loads(asked(server, "/state.json")[2])["line"]


@pytest.mark.parametrize("path", ["/", "/state.json", "/none"])
def test_every_answer_forbids_what_a_page_could_do(server, path):
    _, headers, _ = asked(server, path)
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert headers["Server"] == "gradlab "


def test_the_page_runs_its_own_script_and_asks_its_own_server_alone(server):
    body = asked(server)[2].decode()
    (policy,) = re.findall(r'Policy" content="(.*?)">', body)
    (script,) = re.findall("<script>(.*?)</script>", body, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; connect-src 'self'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(
        r"https?://(?!www.w3.org/2000/svg)|@import|<[^>]*src=|url\(|innerHTML", body
    )


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "BREW"])
def test_nothing_can_be_sent_or_changed(server, method):
    status, headers, _ = asked(server, "/state.json", method)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


PATHS = (
    "/../secret.txt", "/..%2fsecret.txt", "/state.json?x=1", "/state.json%00", "/run.h5",
    "http://evil.example/", "*", "file:///etc/passwd", "/" + "a" * 20_000, "/%ff%fe",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_there_are_two_addresses_and_no_path(server, path):
    status, _, body = asked(server, path)
    assert status == 404 and body == b"Not Found\n"


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\x00 HTTP/1.0", b"GET /state.json\x00 HTTP/1.0", b"GET " + b"/a" * 40_000,
        b"\x00\xff\x16\x03\x01", b"GET", b"GET / HTTP/9.9", b"GET / FTP/1.0", b"/ / / /",
    ],
    ids=range(8),
)  # fmt: skip
def test_nonsense_is_refused_and_says_nothing_of_the_run(server, line):
    answer = raw(server, line + b"\r\nHost: 127.0.0.1\r\n\r\n")
    assert b"200" not in answer.split(b"\r\n")[0] and b"pendulum" not in answer
    assert b"mpg" not in answer and b"<" not in answer


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "localhost.evil.example", "",
     "127.0.0.1@evil.example", "0.0.0.0", "127.0.0.1:80:80", "127.0.0.1 evil", None],
)  # fmt: skip
def test_a_page_from_elsewhere_whose_name_leads_here_gets_nothing(server, host):
    for path in ("/", "/state.json"):
        status, _, body = asked(server, path, host=host)
        assert status == 421 and b"mpg" not in body


def test_a_port_that_is_taken_is_refused(server, writer):
    with pytest.raises(InputError, match="cannot be had"):
        Server(Watcher(writer.path), server.server_address[1])
