"""Probes and metrics on a port of their own, while the other server serves."""

from __future__ import annotations

import signal
import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answer_alive(_request: Request) -> Response:
    return PlainTextResponse("ok")


APP = Starlette(routes=[Route("/livez", answer_alive)])


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


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"port {port}"):
            async with internal_server(APP, "127.0.0.1", port):
                pass
