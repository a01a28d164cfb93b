"""Connections to where a Classifier's author said examples are: who may write Classifiers must not thereby reach what only a
trainer can reach.

An address is checked at the socket that is connected, for every connection and so for every redirect: between the check and the
connection there is no name left that could come to mean something else. It must not know what is fetched.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ocelli_api.network_addresses import NetworkRules, is_internal_name


class AddressNotAllowedError(Exception):
    """The rules do not allow a connection to this address, or that this name is looked up."""


def open_connector(rules: NetworkRules) -> aiohttp.TCPConnector:
    """A connector for sessions that connect only to where the rules allow."""

    def open_socket(target: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = target
        if not rules.may_connect(str(address[0])):
            raise AddressNotAllowedError
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=_GuardedResolver(rules),
        # One after the other: an address that may not be connected to ends the attempt, whichever comes first.
        happy_eyeballs_delay=None,
        socket_factory=open_socket,
    )


class _GuardedResolver(AbstractResolver):
    """Where no private network is allowed, no answer tells which names there are in the cluster."""

    def __init__(self, rules: NetworkRules) -> None:
        self._rules = rules
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        name = host.rstrip(".")
        if not self._rules.internal_names:
            if is_internal_name(name):
                raise AddressNotAllowedError
            # As a whole: the search domains of the Pod would make internal names of others.
            name = f"{name}."
        return await self._resolver.resolve(name, port, family)

    async def close(self) -> None:
        await self._resolver.close()
