"""A second server in the process, for probes and metrics, on its own port.

Clients of the first port cannot read them, and probes are answered however many connections the first port has. It must not
know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from ocelli_http.connection import LimitedProtocol
from ocelli_http.server import bind, build_config

INTERNAL_CONNECTIONS = 64
"""Few clients send probes or read metrics."""


@contextlib.asynccontextmanager
async def internal_server(app: ASGIApp, address: str, port: int) -> AsyncIterator[None]:
    """Serves while the context is open, including the drain of the other server.

    Raises:
        BindError: the address cannot be used.
    """
    listener = bind(address, port)
    config = build_config(app, http=_InternalProtocol, limit_concurrency=INTERNAL_CONNECTIONS, timeout_graceful_shutdown=1)
    server = _InternalServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="internal server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class _InternalProtocol(LimitedProtocol):
    probe_paths = frozenset({"/healthz", "/livez", "/readyz"})


class _InternalServer(uvicorn.Server):
    """The other server handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
