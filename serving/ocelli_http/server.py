"""uvicorn with the settings that all of Ocelli's servers share, and with signals that leave the process to its owner.

It must not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Any, TypedDict, Unpack

import uvicorn
from starlette.types import ASGIApp

from ocelli_http.connection import LimitedProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than who calls keeps an idle connection, load balancers with their minute among them: else a request may meet a
connection that just closed."""


class ServerSettings(TypedDict, total=False):
    """What differs from server to server, by uvicorn's names."""

    host: str
    port: int
    http: type[LimitedProtocol]
    backlog: int
    limit_concurrency: int
    """How many connections may be open, see `LimitedProtocol`."""
    timeout_keep_alive: float
    timeout_graceful_shutdown: int


def build_config(app: ASGIApp, **own: Unpack[ServerSettings]) -> uvicorn.Config:
    """The settings of a server: those that all share, and its own."""
    shared: dict[str, Any] = {
        "http": LimitedProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
    }
    return uvicorn.Config(app, **{**shared, **own})


class Server(uvicorn.Server):
    """uvicorn's server would end the process by the same signal once it has stopped, before anything else is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
