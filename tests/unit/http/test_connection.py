"""Limits for connections of unknown clients."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ocelli_gateway.http_protocol import CALLER_KEY, ContractProtocol, build_protocol
from ocelli_http import connection as limits
from ocelli_http.connection import DRAINING, LimitedProtocol
from ocelli_http.server import Server, ServerSettings, build_config

Address = tuple[str, int]
HEAD = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def answer_at_once(_request: Request) -> Response:
    return PlainTextResponse("quick")


async def read_and_answer(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def wait_for_leaving(request: Request) -> Response:
    """Reports, at `/left`, that the client of this request has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    request.app.state.left = True
    return PlainTextResponse("dropped")


async def answer_in_halves(_request: Request) -> Response:
    async def halves() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0.6)
        yield b"two"

    return StreamingResponse(halves())


async def keep_known_client(request: Request) -> Response:
    """An answer without an end, for a known user."""
    request.scope[CALLER_KEY] = "anna"

    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(60)

    return StreamingResponse(endless())


async def answer_much(request: Request) -> Response:
    request.scope[CALLER_KEY] = "anna"
    return PlainTextResponse("x" * 8_000_000)


async def keep_unknown_client(request: Request) -> Response:
    """Waits, as for the answer to a wrong password."""
    await asyncio.sleep(60)
    return PlainTextResponse("late")


async def has_left(request: Request) -> Response:
    return PlainTextResponse(str(getattr(request.app.state, "left", False)))


class UnsignalledServer(Server):
    """Signals belong to the test runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def running(settings: ServerSettings, *, drain_seconds: float = 0) -> Iterator[Address]:
    with running_server(settings, drain_seconds=drain_seconds) as (address, _server):
        yield address


@contextmanager
def running_server(settings: ServerSettings, *, drain_seconds: float = 0) -> Iterator[tuple[Address, Server]]:
    app = Starlette(
        routes=[
            Route("/quick", answer_at_once, methods=["GET", "POST"]),
            Route("/read", read_and_answer, methods=["POST"]),
            Route("/wait", wait_for_leaving),
            Route("/left", has_left),
            Route("/known", keep_known_client),
            Route("/much", answer_much),
            Route("/unknown", keep_unknown_client),
            Route("/livez", answer_at_once),
            Route("/readyz", answer_at_once),
            Route("/halves", answer_in_halves),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = UnsignalledServer(build_config(app, **{"timeout_graceful_shutdown": 1, **settings}), drain_seconds=drain_seconds)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield listener.getsockname(), server
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def address() -> Iterator[Address]:
    with running({}) as address:
        yield address


@pytest.fixture
def impatient() -> Iterator[Address]:
    """A server with a short timeout for heads."""
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


def read_until(connection: socket.socket, end: bytes) -> bytes:
    answer = b""
    while not answer.endswith(end):
        chunk = connection.recv(65536)
        assert chunk, answer
        answer += chunk
    return answer


def send_until_refused(connection: socket.socket, piece: bytes, limit_bytes: int = 20_000_000) -> int:
    """How many bytes the server and its kernel accepted."""
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
def test_endless_chunk_headers_and_trailers_are_aborted(address: Address, path: bytes, start: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(CHUNKED % path + start)
        assert send_until_refused(connection, b"x" * 65536) < 20_000_000


def test_body_in_many_small_chunks_is_read(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(CHUNKED % b"read" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
        read_until(connection, b"100000")


def test_a_connection_that_sends_nothing_is_closed(impatient: Address) -> None:
    with connect(impatient) as connection:
        assert read_to_end(connection) == b""


def test_head_without_an_end_is_answered(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /quick HTTP/1.1\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.slow
def test_gateway_answers_it_in_the_form_of_its_contract() -> None:
    settings: ServerSettings = {"timeout_keep_alive": 0.3, "http": build_protocol(stall_seconds=60)}
    with running(settings) as address, connect(address) as connection:
        connection.sendall(b"GET /quick HTTP/1.1\r\n")
        assert b'{"code": 408, "error": "Timed out waiting for the request\'s address and headers' in read_to_end(connection)


def test_second_head_without_an_end_is_answered(impatient: Address) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"GET /quick HTTP/1.1\r\n")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


@pytest.mark.parametrize("drop", [b"\r\n", b""], ids=["empty lines", "nothing"])
def test_empty_lines_do_not_keep_a_connection_open(impatient: Address, drop: bytes) -> None:
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


def test_body_after_its_answer_does_not_keep_a_connection_open(impatient: Address) -> None:
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


@pytest.mark.slow
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


def test_new_connection_does_not_search_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[LimitedProtocol] = []
    rank = LimitedProtocol._rank_to_end

    def count(connection: LimitedProtocol) -> tuple[int, float] | None:
        looked_at.append(connection)
        return rank(connection)

    monkeypatch.setattr(LimitedProtocol, "_rank_to_end", count)
    with running({"limit_concurrency": 20}) as address, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(address))
        assert finds_a_place(address)
    assert looked_at == []


@pytest.mark.slow
def test_requests_in_flight_are_not_replaced_by_new_connections() -> None:
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


def requests_in_memory() -> int:
    """The number of requests, answered or not: the server runs in this process."""
    return sum(isinstance(item, RequestResponseCycle) for item in gc.get_objects())


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"GET /quick HTTP/1.1\r\n\r\n", b"GET /wait HTTP/1.1\r\n\r\n"], ids=["quick", "slow"])
def test_requests_are_not_read_while_the_client_does_not_read_its_answers(address: Address, first: bytes) -> None:
    before, most = requests_in_memory(), 0
    with connect(address) as connection, suppress(TimeoutError):
        connection.settimeout(1)
        connection.sendall(first)
        for _ in range(20):
            connection.sendall(HEAD * 1000)
            most = max(most, requests_in_memory() - before)
    assert most < 20


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 4\r\n\r\n\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"],
    ids=["length", "chunks"],
)
def test_pipelined_requests_are_answered_in_order(address: Address, body: bytes) -> None:
    count = 500
    with connect(address) as connection:
        connection.sendall((HEAD + b"POST /read HTTP/1.1\r\n" + body) * count)
        connection.sendall(b"GET /left HTTP/1.1\r\nConnection: close\r\n\r\n")
        connection.settimeout(20)
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in read_to_end(connection).split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [*[b"quick", b"4"] * count, b"False"]


def test_pipelined_request_notices_that_its_client_left(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\n\r\n" + HEAD)
    deadline = time.monotonic() + 5
    answer = b""
    while b"True" not in answer:
        assert time.monotonic() < deadline, answer
        with connect(address) as connection:
            connection.sendall(b"GET /left HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = read_to_end(connection)


def build_gateway_protocol() -> type[ContractProtocol]:
    return build_protocol(stall_seconds=60)


def test_bodies_of_unknown_clients_make_room_for_new_connections() -> None:
    with running({"limit_concurrency": 5, "http": build_gateway_protocol()}) as address, ExitStack() as stack:
        slow = [stack.enter_context(connect(address)) for _ in range(5)]
        for connection in slow:
            connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        with connect(address) as connection:
            connection.sendall(HEAD)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert read_to_end(slow[0]) == b""


@contextmanager
def full_gateway(busy_request: bytes = b"GET /known HTTP/1.1\r\n\r\n", *, count: int = 1) -> Iterator[Address]:
    """A server at its limit of connections."""
    with running({"limit_concurrency": count, "http": build_gateway_protocol()}) as address, ExitStack() as stack:
        for _ in range(count):
            busy = stack.enter_context(connect(address))
            busy.sendall(busy_request)
            assert busy.recv(65536).startswith(b"HTTP/1.1 ")
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("request_bytes", [b"", HEAD, CHUNKED % b"read" + b"1\r\nx\r\n"], ids=["nothing", "request", "body"])
def test_the_gateway_refuses_a_connection_by_its_contract(request_bytes: bytes) -> None:
    with full_gateway() as address, connect(address) as connection:
        connection.sendall(request_bytes)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert b'"error_id": "unavailable"' in answer


@pytest.mark.slow
def test_probe_is_answered_at_the_limit_of_connections() -> None:
    with full_gateway() as address, connect(address) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


@pytest.mark.slow
def test_probe_of_the_internal_port_does_not_count_at_the_public_port() -> None:
    with full_gateway() as address, connect(address) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 503 ")


def test_silent_connections_do_not_block_probes() -> None:
    with full_gateway() as address, ExitStack() as stack:
        for _ in range(3 * limits.PROBE_CONNECTIONS):
            stack.enter_context(connect(address))
        with connect(address) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def finds_a_place(address: Address) -> bool:
    """Whether a new connection is answered."""
    with connect(address) as connection:
        connection.sendall(HEAD)
        return connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /unknown HTTP/1.1\r\n\r\n", b"GET \0 HTTP/1.1\r\n\r\n", HEAD * 200_000],
    ids=["waits", "lingers", "deaf"],
)
def test_connection_of_an_unknown_client_is_replaced(request_bytes: bytes) -> None:
    settings: ServerSettings = {"limit_concurrency": 5, "http": build_gateway_protocol()}
    with running(settings) as address, ExitStack() as stack:
        held = [stack.enter_context(connect(address)) for _ in range(5)]
        for connection in held:
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.sendall(request_bytes)
        assert [finds_a_place(address) for _ in range(10)] == [True] * 10


def test_connection_of_a_known_client_that_does_not_read_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPARED_STALL_SECONDS", 0.2)
    with full_gateway(b"GET /much HTTP/1.1\r\n\r\n", count=3) as address:
        deadline = time.monotonic() + 5
        while not finds_a_place(address):
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "before", [b"", HEAD, b"\r\n", b"POST /read HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\n", b"BREW /quick HTTP/1.1\r\n\r\n"]
)
@pytest.mark.parametrize("ends", [(), (1, 3, 30)], ids=["whole", "in pieces"])
def test_unknown_method_is_named_at_any_place(before: bytes, ends: tuple[int, ...]) -> None:
    request = b"BREW /quick HTTP/1.1\r\nConnection: close\r\n\r\n"
    with running({"http": build_gateway_protocol()}) as address, connect(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(before + request[: ends[0] if ends else None])
        for begin, end in pairwise((*ends, None) if ends else ()):
            time.sleep(0.02)
            connection.sendall(request[begin:end])
        answer = read_to_end(connection)
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", answer)
    assert statuses[-1] == b"405", answer
    assert b"400" not in statuses


def test_unknown_method_is_named_after_a_head_in_two_pieces() -> None:
    with running({"http": build_gateway_protocol()}) as address, connect(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD[:-2])
        time.sleep(0.05)
        connection.sendall(HEAD[-2:] + b"BREW /quick HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = read_to_end(connection)
    assert re.findall(rb"HTTP/1\.1 (\d{3})", answer) == [b"200", b"405"]


@pytest.mark.parametrize("http", [LimitedProtocol, build_gateway_protocol()], ids=["store and inference server", "gateway"])
@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (b"\x16\x03\x01\r\n\r\n", 400, "first line or one of its headers is not valid HTTP; send METHOD ADDRESS HTTP/1.1"),
        (b"GET /quick HTTP/7.7\r\n\r\n", 400, "first line or one of its headers is not valid HTTP; send"),
        (b"GET /quick HTTP/1.1\r\nno colon\r\n\r\n", 400, "each header on its own line as NAME: VALUE"),
        (b"GET quick HTTP/1.1\r\n\r\n", 400, "The address in the request's first line is not valid; send a path"),
        (b"GET http://x:99999999/ HTTP/1.1\r\n\r\n", 400, "The address in the request's first line is not valid; send a path"),
        (b"POST /read HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400, "Content-Length and Transfer-Encoding do not define"),
        (b"POST /read HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "send one of them once"),
        (b"POST /read HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "send one of them once"),
        (CHUNKED % b"read" + b"zz\r\n", 400, "The chunks of the request body are not valid HTTP; send"),
        (CHUNKED % b"read" + b"f" * 30 + b"\r\n", 413, "declared length of the request body is too large; send a shorter body"),
        (b"POST /read HTTP/1.1\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\n", 413, "send a shorter body"),
    ],
)
def test_errors_of_the_parser_have_fact_and_remedy(
    http: type[LimitedProtocol], request_bytes: bytes, status: int, words: str
) -> None:
    with running({"http": http}) as address, connect(address) as connection:
        connection.sendall(request_bytes)
        answer = read_to_end(connection).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert words in answer


def wait_for_drain(server: Server) -> None:
    deadline = time.monotonic() + 5
    while not getattr(server.server_state, DRAINING, False):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("http", [LimitedProtocol, build_gateway_protocol()], ids=["store and inference server", "gateway"])
def test_an_idle_connection_is_used_once_more_while_the_server_drains(http: type[LimitedProtocol]) -> None:
    with running_server({"http": http}, drain_seconds=10) as (address, server), connect(address) as connection:
        connection.sendall(HEAD)
        assert b"connection: close" not in read_until(connection, b"quick")
        server.should_exit = True
        wait_for_drain(server)
        connection.sendall(HEAD)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


def test_draining_server_stops_when_every_client_has_left() -> None:
    began = time.monotonic()
    with running_server({}, drain_seconds=60) as (address, server):
        with connect(address) as connection:
            connection.sendall(HEAD)
            connection.recv(65536)
        server.should_exit = True
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_draining_server_waits_for_idle_clients_up_to_its_limit() -> None:
    with running_server({}, drain_seconds=0.2) as (address, server), connect(address) as connection:
        server.should_exit = True
        assert read_to_end(connection) == b""


@pytest.mark.slow
def test_answer_that_keeps_its_connection_open_keeps_it_open() -> None:
    with running_server({}, drain_seconds=10) as (address, server), connect(address) as connection:
        connection.sendall(b"GET /halves HTTP/1.1\r\n\r\n")
        assert b"connection: close" not in read_until(connection, b"one\r\n")
        server.should_exit = True
        wait_for_drain(server)
        read_until(connection, b"0\r\n\r\n")
        connection.sendall(HEAD)
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")
