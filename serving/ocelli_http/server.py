"""uvicorn with the settings that all of Ocelli's servers share, and with signals that leave the process to its owner.

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
"""Longer than who calls keeps an idle connection, load balancers with their minute among them: else a request may meet a
connection that just closed."""


BACKLOG = 2048
EVERY_ADDRESS = "*"
_DRAIN_POLL_SECONDS = 0.05


class BindError(Exception):
    """The address cannot be bound. The message says which, why, and what to do."""


def bind(address: str, port: int) -> socket.socket:
    """A listening socket at an address of IPv4 or IPv6, or at all of both (`*`). Raises BindError."""
    try:
        if address != EVERY_ADDRESS:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family, backlog=BACKLOG)
        if socket.has_dualstack_ipv6():
            # IPv6 may be compiled in and switched off.
            with contextlib.suppress(OSError):
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        raise BindError(f"cannot listen on {address} port {port}: {error.strerror}; free the address") from error


class ServerSettings(TypedDict, total=False):
    """What differs from server to server, by uvicorn's names."""

    http: type[LimitedProtocol]
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
        "backlog": BACKLOG,
    }
    return uvicorn.Config(app, **{**shared, **own})


class Server(uvicorn.Server):
    """uvicorn's server would end the process by the same signal once it has stopped, before anything else is closed.

    uvicorn also closes idle connections at once, and a request that is on its way just then is lost. This one drains first: it
    goes on answering, each answer says that it is the last of its connection, and idle connections stay open until their
    clients have used them once more, for so many seconds at most. SIGINT, the interrupt of a person who waits, ends the drain.
    """

    def __init__(self, config: uvicorn.Config, *, drain_seconds: float = 0.0) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._interrupted = self._interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._use_up_connections()
        await super().shutdown(sockets)

    async def _use_up_connections(self) -> None:
        setattr(self.server_state, DRAINING, True)
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedProtocol):
                connection.begin_drain()
        deadline = time.monotonic() + self._drain_seconds
        # uvicorn keeps a set of connections, and no event of its change.
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
