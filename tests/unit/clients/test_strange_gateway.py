"""What `ocelli` makes of servers that are not a gateway, or a broken one: plain words, right exit codes, no secret sent on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.clients.command_line import CommandLine, Run
from tests.unit.clients.photographs import write_images

PIECES_LIMIT = 1000
FAILED, NOT_REACHABLE, TIMED_OUT = 1, 4, 6


class _Server(ThreadingHTTPServer):
    """Answers each request in the same way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.endless = False
        self.requests = 0
        self.stopped = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)
        pieces = 0
        while self.server.endless and pieces < PIECES_LIMIT and not self.server.stopped.wait(0.05):
            self.wfile.write(b" ")
            pieces += 1

    def log_message(self, *values: object) -> None:
        """Quiet."""


@contextmanager
def running_server() -> Iterator[_Server]:
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.stopped.set()
        running.shutdown()


@pytest.fixture
def server() -> Iterator[_Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def other() -> Iterator[_Server]:
    with running_server() as running:
        yield running


def ask(user: CommandLine, server: _Server, *options: str) -> Run:
    return user.run("list", "-o", "json", *options, OCELLI_URL=server.address, OCELLI_API_KEY="k3y")


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (200, b"<h1>Welcome</h1>", FAILED, "and not as Ocelli does; check the address"),
        (500, b"<h1>Broken</h1>", FAILED, "answered 500"),
        (502, b"<h1>Bad gateway</h1>", NOT_REACHABLE, "answered 502 Bad Gateway; try again later"),
        (200, b'{"classifiers": [', FAILED, "and not as Ocelli does"),
        (200, b'{"ok": true}', FAILED, "and not as Ocelli does"),
        (200, b"[1]", FAILED, "and not as Ocelli does"),
        (200, b"[" * 100_000, FAILED, "and not as Ocelli does"),
    ],
    ids=["a page", "a broken server", "a proxy", "cut JSON", "other JSON", "a list", "deep JSON"],
)
def test_an_answer_that_is_not_of_a_gateway(
    stranger: CommandLine, server: _Server, status: int, body: bytes, code: int, message: str
) -> None:
    server.status, server.body = status, body
    run = ask(stranger, server)
    assert (run.code, run.out) == (code, "")
    assert message in run.err


@pytest.mark.parametrize("headers", [{"Content-Length": "500"}, {"Content-Encoding": "gzip"}], ids=["cut", "not compressed"])
def test_an_answer_that_is_damaged_on_the_way(stranger: CommandLine, server: _Server, headers: dict[str, str]) -> None:
    server.headers, server.body = headers, b"{}"
    run = ask(stranger, server)
    assert (run.code, run.out) == (NOT_REACHABLE, "")
    assert f"The connection to {server.address} was lost" in run.err


def test_a_redirection_is_named_and_not_followed(stranger: CommandLine, server: _Server, other: _Server) -> None:
    secret = other.address.replace("http://", "http://anna:pa55@")
    server.status, server.headers = 302, {"Location": f"{secret}/elsewhere?token=pa55"}
    run = ask(stranger, server)
    assert (run.code, run.out) == (FAILED, "")
    assert f"redirects to {other.address}/elsewhere; if that is the gateway, give its address" in run.err
    assert "pa55" not in run.err
    assert other.requests == 0


def test_an_answer_that_does_not_end_is_given_up(stranger: CommandLine, server: _Server) -> None:
    server.endless = True
    run = ask(stranger, server, "--timeout", "0.5")
    assert (run.code, run.out) == (TIMED_OUT, "")
    assert "did not send all of its answer in time" in run.err


def test_a_pause_longer_than_the_time_limit_is_not_waited_for(stranger: CommandLine, server: _Server, tmp_path: Path) -> None:
    for number, name in enumerate(("heron", "owl")):
        write_images(tmp_path / name, range(10 * number, 10 * number + 10))
    server.status, server.headers = 503, {"Retry-After": "200"}
    server.body = b'{"code": 503, "error": "Not ready.", "error_id": "unavailable"}'
    address = {"OCELLI_URL": server.address, "OCELLI_API_KEY": "k3y"}
    run = stranger.run("create", "birds", str(tmp_path), "--timeout", "100", **address)
    assert (run.code, run.out) == (TIMED_OUT, "")
    assert "Not ready.; trying again in 200 s" in run.err
    assert "repeat the command to resume it: timed out after 100 s" in run.err
