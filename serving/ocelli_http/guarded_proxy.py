"""An HTTP proxy inside the trainer that connects only where the rules for sources allow.

Clients of buckets open their own sockets, which cannot be checked, so they connect through it. It is also the one place that
knows the installation's own proxy. It listens on the loopback interface and asks for a password that only this process knows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import secrets
import socket
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ocelli_api.network_addresses import NetworkRules, is_internal_name

_HEAD_BYTES_LIMIT = 64 * 1024
_CHUNK_BYTES = 256 * 1024
_LOGIN = "proxy-authorization"
REFUSED_HEADER = "Ocelli-Refused"
"""A header of the proxy's own responses; it tells them apart from those of servers."""
_END = b"\r\n\r\n"


class AddressNotAllowedError(Exception):
    """The rules do not allow a connection to this address, or a lookup of this name."""


class GuardedResolver(AbstractResolver):
    """Where private networks are not allowed, no answer reveals which names exist in the cluster."""

    def __init__(self, rules: NetworkRules) -> None:
        self._rules = rules
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        name = host.rstrip(".")
        if not self._rules.internal_names:
            if is_internal_name(name):
                raise AddressNotAllowedError
            # Fully qualified: the Pod's search domains would turn other names into internal ones.
            name = f"{name}."
        return await self._resolver.resolve(name, port, family)

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()


@dataclass(frozen=True, kw_only=True)
class ProxyLimits:
    """Limits of each connection."""

    connect_seconds: float = 15
    hosts: frozenset[str] | None = None
    """The only hosts that clients may ask for; None: any. A redirect to another host ends there."""
    received_bytes: int | None = None
    """The connection is closed after the server has sent more than this; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class ProxyRefusal:
    """Why a client got no connection, or not to its end."""

    not_allowed: bool = False
    """The rules for sources do not allow the address."""
    other_host: bool = False
    """It is not one of the hosts that the client is for."""
    too_large: bool = False
    """The server sent more than `ProxyLimits.received_bytes`."""
    cause: str = ""


class GuardedProxy(AbstractAsyncContextManager["GuardedProxy"]):
    """The proxy. `url` is the address for clients, with the password."""

    def __init__(self, networks: NetworkRules, *, upstream: str = "", limits: ProxyLimits | None = None) -> None:
        """`upstream` is the URL of the installation's proxy; empty: connect directly."""
        self._networks = networks
        self._upstream = urlsplit(upstream) if upstream else None
        self._limits = limits or ProxyLimits()
        self._resolver: GuardedResolver | None = None
        self._password = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.served = 0
        """Number of connections made."""
        self.refusal: ProxyRefusal | None = None
        """Why the last connection failed; None if it did not."""

    @property
    def authorization(self) -> str:
        """The header `Proxy-Authorization` that `url` stands for."""
        return "Basic " + base64.b64encode(f"ocelli:{self._password}".encode()).decode()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://ocelli:{self._password}@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> GuardedProxy:
        # It needs the running loop.
        self._resolver = GuardedResolver(self._networks)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES_LIMIT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._resolver is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._resolver.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, asyncio.CancelledError):
            # The client learns it from the closed connection. Nothing waits for a cancelled one, and asyncio would log it.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *headers = (await reader.readuntil(_END)).decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = request.split(" ")
        is_tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if is_tunnel else target)
        host, port = parts.hostname or "", parts.port or (443 if is_tunnel else 80)
        # First: a client that follows a redirect leaves out the password.
        if self._limits.hosts is not None and host not in self._limits.hosts:
            self._refuse(writer, ProxyRefusal(other_host=True))
            return
        logins = [value.encode() for name, _, value in (header.partition(": ") for header in headers) if name.lower() == _LOGIN]
        if not any(secrets.compare_digest(login, self.authorization.encode()) for login in logins):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            server_reader, server_writer = await self._connect(host, port, tunnel=is_tunnel)
        except (AddressNotAllowedError, OSError, TimeoutError) as error:
            not_allowed = isinstance(error, AddressNotAllowedError)
            self._refuse(writer, ProxyRefusal(not_allowed=not_allowed, cause=_describe(error)))
            return
        self.refusal = None
        self.served += 1
        try:
            if is_tunnel:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                # One request for each connection: a second one on it might name another host.
                kept = [item for item in headers if not item.lower().startswith(("proxy-", "connection:"))]
                kept += ["Connection: close", *self._upstream_login()]
                path = target if self._upstream else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                head = "\r\n".join([f"{method} {path} {version}", *kept])
                server_writer.write(head.encode("latin-1") + _END)
            await self._relay(reader, writer, server_reader, server_writer)
        finally:
            server_writer.close()

    def _refuse(self, writer: asyncio.StreamWriter, refusal: ProxyRefusal) -> None:
        self.refusal = refusal
        status = "502" if refusal.cause else "403"
        head = (
            f"HTTP/1.1 {status} {refusal.cause or 'Forbidden'}\r\n{REFUSED_HEADER}: 1\r\nConnection: close\r\nContent-Length: 0"
        )
        writer.write(head.encode("ascii", "replace") + _END)

    async def _connect(self, host: str, port: int, *, tunnel: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a server, or to the installation's proxy for it. Raises AddressNotAllowedError, OSError, TimeoutError."""
        async with asyncio.timeout(self._limits.connect_seconds):
            if self._upstream is not None:
                return await self._connect_upstream(host, port, tunnel=tunnel)
            addresses = [host]
            assert self._resolver is not None
            if not _is_numeric(host):
                addresses = [item["host"] for item in await self._resolver.resolve(host, port, socket.AF_UNSPEC)]
            # As for other downloads: a forbidden address ends the attempt, in any order.
            if not all(self._networks.may_connect(address) for address in addresses):
                raise AddressNotAllowedError
            fault: OSError | None = None
            for address in addresses:
                try:
                    return await asyncio.open_connection(address, port)
                except OSError as error:
                    fault = error
            raise fault or OSError("the name has no address")

    async def _connect_upstream(
        self, host: str, port: int, *, tunnel: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The proxy resolves names and decides about their addresses; what is internal by its name is not even asked for."""
        assert self._upstream is not None
        name = host.rstrip(".")
        try:
            # In every spelling that a resolver takes for an address, such as 127.1 and 0x7f000001.
            numeric = host if _is_numeric(host) else socket.inet_ntoa(socket.inet_aton(name))
        except OSError:
            allowed = self._networks.internal_names or not is_internal_name(name)
        else:
            allowed = self._networks.may_connect(numeric)
        if not allowed:
            raise AddressNotAllowedError
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port or 80)
        if tunnel:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            head = "\r\n".join([f"CONNECT {place} HTTP/1.1", f"Host: {place}", *self._upstream_login()])
            writer.write(head.encode("latin-1") + _END)
            answer = (await reader.readuntil(_END)).decode("latin-1").split("\r\n")[0].split(" ")
            if len(answer) < 2 or answer[1] != "200":
                writer.close()
                raise OSError(f"the installation's proxy answered {answer[1] if len(answer) > 1 else 'nothing'}")
        return reader, writer

    def _upstream_login(self) -> list[str]:
        if self._upstream is None or self._upstream.username is None:
            return []
        login = f"{unquote(self._upstream.username)}:{unquote(self._upstream.password or '')}"
        return [f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}"]

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Copy both ways until the server has ended, or the client is gone."""
        sending = asyncio.create_task(_copy(reader, server_writer, None))
        receiving = asyncio.create_task(self._receive(server_reader, writer))
        await _until_first(sending, receiving)

    async def _receive(self, server_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await _copy(server_reader, writer, self._limits.received_bytes):
            self.refusal = ProxyRefusal(too_large=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, limit_bytes: int | None) -> bool:
    """Returns whether it came to the end before the limit."""
    copied = 0
    while chunk := await source.read(_CHUNK_BYTES):
        allowed = len(chunk) if limit_bytes is None else limit_bytes - copied
        target.write(chunk[:allowed])
        await target.drain()
        copied += len(chunk)
        if allowed < len(chunk):
            return False
    return True


async def _until_first(*copies: asyncio.Task[bool | None]) -> None:
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


def _is_numeric(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return True
    return False


def _describe(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, OSError):
        return str(error.strerror or error) or type(error).__name__
    return ""
