"""An HTTP client for addresses that users chose: it connects only where the installation allows.

An address is checked at the socket, for every connection and every redirect: no name can change its meaning between the check
and the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp

from ocelli_api.network_addresses import NetworkRules
from ocelli_http.guarded_proxy import AddressNotAllowedError, GuardedProxy, GuardedResolver


@dataclass(frozen=True, kw_only=True)
class ConnectionRules:
    """How the installation connects to the servers of sources."""

    networks: NetworkRules
    proxy_url: str = ""
    """The installation's proxy; empty: connect directly."""
    certificates: str = ""
    """Certificates (PEM) of authorities to trust in addition to the usual ones."""


class GuardedClient:
    """A session of `aiohttp` that is opened when it is needed. Requests must name `proxy_url` as their proxy."""

    def __init__(self, rules: ConnectionRules, *, user_agent: str) -> None:
        self._rules = rules
        self._user_agent = user_agent
        self._resources = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._proxy: GuardedProxy | None = None

    @property
    def proxy_url(self) -> str | None:
        """The proxy that each request has to use; None: none."""
        return None if self._proxy is None else self._proxy.url

    async def open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                rules = self._rules
                context = _trust(rules.certificates)
                if rules.proxy_url:
                    # It checks each redirect as well, which the installation's proxy would not.
                    proxy = GuardedProxy(rules.networks, upstream=rules.proxy_url)
                    self._proxy = await self._resources.enter_async_context(proxy)
                    connector = aiohttp.TCPConnector(ssl=context)
                else:
                    connector = _open_connector(rules.networks, context)
                headers = {"Accept-Encoding": "identity", "User-Agent": self._user_agent}
                session = aiohttp.ClientSession(connector=connector, headers=headers)
                self._session = await self._resources.enter_async_context(session)
            return self._session

    async def close(self) -> None:
        """Close the connections. Another `open` makes new ones."""
        self._session = self._proxy = None
        await self._resources.aclose()


def _trust(certificates: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if certificates:
        context.load_verify_locations(cadata=certificates)
    return context


def _open_connector(rules: NetworkRules, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    """A connector that connects only where the rules allow."""

    def open_socket(target: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = target
        if not rules.may_connect(str(address[0])):
            raise AddressNotAllowedError
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        ssl=context,
        resolver=GuardedResolver(rules),
        # One after the other: a forbidden address ends the attempt, in any order.
        happy_eyeballs_delay=None,
        socket_factory=open_socket,
    )
