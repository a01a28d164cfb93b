"""uvicorn with the settings that all of Ocelli's servers share. A signal stops the server, not the process.

It must not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypedDict, Unpack

import uvicorn
from starlette.types import ASGIApp

from ocelli_http.connection import DRAINING, LimitedProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an idle connection, including load balancers with their 60 seconds. Otherwise a request could arrive
on a connection that has just been closed."""


BACKLOG = 2048
EVERY_ADDRESS = "*"
_DRAIN_POLL_SECONDS = 0.05


class BindError(Exception):
    """The address cannot be bound. The message has the address, the reason and the remedy."""


def bind(address: str, port: int) -> socket.socket:
    """A listening socket at an IPv4 or IPv6 address, or at all addresses (`*`). Raises BindError."""
    try:
        if address != EVERY_ADDRESS:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family, backlog=BACKLOG)
        if socket.has_dualstack_ipv6():
            # IPv6 may be supported by the kernel and disabled.
            with contextlib.suppress(OSError):
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        raise BindError(
            f"cannot listen on {address} port {port}: {error.strerror}; free the port, or set another address"
        ) from error


class ServerSettings(TypedDict, total=False):
    """The settings that differ between servers, by uvicorn's names."""

    http: type[LimitedProtocol]
    limit_concurrency: int
    """The limit on open connections, see `LimitedProtocol`."""
    timeout_keep_alive: float
    timeout_graceful_shutdown: int


def build_config(app: ASGIApp, **own: Unpack[ServerSettings]) -> uvicorn.Config:
    """The shared settings, and those of this server."""
    shared: dict[str, Any] = {
        "http": LimitedProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "backlog": BACKLOG,
    }
    return uvicorn.Config(app, **{**shared, **own})


class Server(uvicorn.Server):
    """A server that drains when it is stopped, and leaves the process running.

    uvicorn's own server sends itself the signal again once it has stopped, before anything else is closed. It also closes idle
    connections immediately, so a request that is being sent at that moment is lost. This server keeps answering for up to
    `drain_seconds`: each answer closes its connection, and idle connections stay open until their clients have used them once
    more. SIGINT, which a person sends, ends the drain.
    """

    def __init__(self, config: uvicorn.Config, *, drain_seconds: float = 0.0) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._interrupted = self._interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain_connections()
        await super().shutdown(sockets)

    async def _drain_connections(self) -> None:
        setattr(self.server_state, DRAINING, True)
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedProtocol):
                connection.begin_drain()
        deadline = time.monotonic() + self._drain_seconds
        # uvicorn has no event for a change of its set of connections.
        while self.server_state.connections and time.monotonic() < deadline:
            if self._interrupted or self.force_exit:
                return
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
