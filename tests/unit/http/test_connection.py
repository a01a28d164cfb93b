"""What a connection may cost before anything is known of who has it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ocelli_gateway.http_protocol import build_protocol
from ocelli_http.server import ServerSettings, build_config

Address = tuple[str, int]
HEAD = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def answer_at_once(_request: Request) -> Response:
    return PlainTextResponse("quick")


async def read_and_answer(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@contextmanager
def running(settings: ServerSettings) -> Iterator[Address]:
    app = Starlette(
        routes=[
            Route("/quick", answer_at_once, methods=["GET", "POST"]),
            Route("/read", read_and_answer, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(build_config(app, **{"timeout_graceful_shutdown": 1, **settings}))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def address() -> Iterator[Address]:
    with running({}) as address:
        yield address


@pytest.fixture
def impatient() -> Iterator[Address]:
    """A server that waits for a head no longer than a moment."""
    with running({"timeout_keep_alive": 0.3}) as address:
        yield address


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=10)


def read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def send_until_refused(connection: socket.socket, piece: bytes, limit_bytes: int = 20_000_000) -> int:
    """How many bytes the server took, and its kernel."""
    sent = 0
    try:
        while sent < limit_bytes:
            sent += connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def test_an_endless_head_is_refused(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000)
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain")


@pytest.mark.parametrize("path", [b"quick", b"read"], ids=["answered", "unanswered"])
@pytest.mark.parametrize("start", [b"0\r\nX: ", b"1;"], ids=["trailer", "chunk extension"])
def test_what_is_endless_beside_a_body_is_broken_off(address: Address, path: bytes, start: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(CHUNKED % path + start)
        assert send_until_refused(connection, b"x" * 65536) < 20_000_000


def test_a_body_in_many_small_chunks_is_taken(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(CHUNKED % b"read" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
        answer = b""
        while not answer.endswith(b"100000"):
            chunk = connection.recv(65536)
            assert chunk, answer
            answer += chunk


def test_a_connection_that_sends_nothing_is_closed(impatient: Address) -> None:
    with connect(impatient) as connection:
        assert read_to_end(connection) == b""


def test_a_head_that_comes_to_no_end_is_told_so(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /quick HTTP/1.1\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_the_gateway_tells_it_by_its_contract() -> None:
    settings: ServerSettings = {"timeout_keep_alive": 0.3, "http": build_protocol(stall_seconds=60)}
    with running(settings) as address, connect(address) as connection:
        connection.sendall(b"GET /quick HTTP/1.1\r\n")
        assert b'{"code": 408, "error": "The request\'s address and headers did not come' in read_to_end(connection)


def test_a_second_head_that_comes_to_no_end_is_told_so(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"GET /quick HTTP/1.1\r\n")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


@pytest.mark.parametrize("drop", [b"\r\n", b""], ids=["empty lines", "nothing"])
def test_empty_lines_keep_no_connection_open(impatient: Address, drop: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD)
        deadline = time.monotonic() + 5
        connection.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                if drop:
                    connection.sendall(drop)
                if not connection.recv(65536):
                    return
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return
    pytest.fail("it is still open")


def test_a_body_that_goes_on_after_its_answer_keeps_no_connection_open(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(CHUNKED % b"quick")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                connection.sendall(b"1\r\nx\r\n")
            except (BrokenPipeError, ConnectionResetError):
                return
            time.sleep(0.05)
    pytest.fail("it is still open")


def test_a_body_may_take_longer_than_a_head(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(CHUNKED % b"read")
        time.sleep(0.6)
        connection.sendall(b"1\r\nx\r\n0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_idle_connections_make_room_for_new_ones() -> None:
    with running({"limit_concurrency": 5}) as address, ExitStack() as stack:
        silent = [stack.enter_context(connect(address)) for _ in range(20)]
        with connect(address) as connection:
            connection.sendall(HEAD)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert read_to_end(silent[0]) == b""


def test_requests_under_way_are_not_given_up_for_new_ones() -> None:
    with running({"limit_concurrency": 5}) as address, ExitStack() as stack:
        busy = [stack.enter_context(connect(address)) for _ in range(5)]
        for connection in busy:
            connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
            # It waits for the body.
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        with connect(address) as connection:
            assert read_to_end(connection).startswith(b"HTTP/1.1 503 ")
        for connection in busy:
            connection.sendall(b"x")
        assert {connection.recv(65536)[:13] for connection in busy} == {b"HTTP/1.1 200 "}
