"""Probes and metrics on their own port, while the other server serves."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ocelli_http import internal_server as internal_server_module
from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answer_alive(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def answer_endlessly(_request: Request) -> Response:
    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(60)

    return StreamingResponse(endless())


APP = Starlette(routes=[Route("/livez", answer_alive), Route("/endless", answer_endlessly)])


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_it_answers_while_the_block_runs_and_leaves_signals_alone() -> None:
    port, handler = find_free_port(), signal.getsignal(signal.SIGTERM)
    async with internal_server(APP, "127.0.0.1", port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).text == "ok"
        assert signal.getsignal(signal.SIGTERM) is handler
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_probe_is_answered_at_the_limit_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internal_server_module, "INTERNAL_CONNECTIONS", 1)
    port = find_free_port()
    address = f"http://127.0.0.1:{port}"
    async with (
        internal_server(APP, "127.0.0.1", port),
        httpx.AsyncClient(base_url=address) as client,
        client.stream("GET", "/endless"),
        httpx.AsyncClient(base_url=address) as prober,
    ):
        assert (await prober.get("/livez")).text == "ok"
        assert (await prober.get("/metrics")).status_code == 503


async def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"port {port}"):
            async with internal_server(APP, "127.0.0.1", port):
                pass
