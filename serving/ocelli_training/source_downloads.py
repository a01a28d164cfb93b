"""Downloads by HTTP from addresses that the author of a Classifier chose.

A user who can write Classifiers must not reach through the trainer what only the trainer can reach. So an address is checked at
the socket, for every connection and every redirect: no name can change its meaning between the check and the connection.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ocelli_api.network_addresses import NetworkRules, is_internal_name
from ocelli_storage.archives import MEGABYTE, shown_name
from ocelli_training.sources import SourceError, SourceLimits

_TRANSIENT_STATUSES = frozenset({408, 425, 429})


class AddressNotAllowedError(Exception):
    """The rules do not allow a connection to this address, or a lookup of this name."""


class Downloads:
    """Connections to the servers of sources."""

    def __init__(self, networks: NetworkRules) -> None:
        self._session = aiohttp.ClientSession(
            connector=_open_connector(networks),
            headers={"Accept-Encoding": "identity", "User-Agent": "ocelli-trainer"},
        )

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limits: SourceLimits) -> AsyncGenerator[bytes]:
        """The bytes behind an address, in chunks.

        Raises:
            SourceError: they cannot be fetched. The message is fact and remedy, without the address.
        """
        timeout = aiohttp.ClientTimeout(
            total=limits.fetch_seconds, sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds
        )
        with _readable_errors(limits):
            # A plain ASCII address is sent unchanged: quoting it again would break the signature of a presigned one.
            address = URL(url, encoded=url.isascii() and " " not in url)
            # aiohttp counts the first answer as well.
            async with self._session.get(address, max_redirects=limits.redirects + 1, timeout=timeout) as response:
                if response.status != 200:
                    transient = response.status >= 500 or response.status in _TRANSIENT_STATUSES
                    fact = f"the server answered {response.status} {shown_name(response.reason or '')}".rstrip()
                    remedy = "try again when the server is available" if transient else "correct the address or its permissions"
                    delay = response.headers.get("Retry-After", "")
                    raise SourceError(
                        f"{fact}; {remedy}",
                        transient=transient,
                        retry_after_seconds=float(delay) if delay.isascii() and delay.isdigit() else None,
                    )
                limits.check_size(response.content_length or 0)
                async for chunk in response.content.iter_chunked(MEGABYTE):
                    yield chunk


@contextmanager
def _readable_errors(limits: SourceLimits) -> Iterator[None]:
    try:
        yield
    except AddressNotAllowedError as error:
        raise SourceError(
            "the address, or a redirect from it, is in a private or denied network; use a public address, or allow the network "
            "for the installation (OCELLI_SOURCES_ALLOWED_NETWORKS; in the chart: sources.allowedNetworks)"
        ) from error
    except aiohttp.TooManyRedirects as error:
        raise SourceError(f"it redirects more than {limits.redirects} times; give the final address") from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
        raise SourceError(
            "the address, or a redirect from it, is not a valid http or https URL; correct the address"
        ) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise SourceError(
            "the server's certificate is not trusted; install a trusted certificate there, or use another address"
        ) from error
    except aiohttp.ClientConnectorDNSError as error:
        raise SourceError("the host name is not known; correct the address", transient=True) from error
    except TimeoutError as error:
        raise SourceError("the server did not answer in time; try again when it is available", transient=True) from error
    except aiohttp.ClientConnectorError as error:
        cause = f" ({error.os_error.strerror})" if error.os_error.errno is not None else ""
        fact = f"the connection failed{cause}; check the address and that the server is running"
        raise SourceError(fact, transient=True) from error
    except aiohttp.ClientError as error:
        raise SourceError("the connection was interrupted; try again when the server is available", transient=True) from error


def _open_connector(rules: NetworkRules) -> aiohttp.TCPConnector:
    """A connector that connects only where the rules allow."""

    def open_socket(target: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = target
        if not rules.may_connect(str(address[0])):
            raise AddressNotAllowedError
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=_GuardedResolver(rules),
        # One after the other: a forbidden address ends the attempt, in any order.
        happy_eyeballs_delay=None,
        socket_factory=open_socket,
    )


class _GuardedResolver(AbstractResolver):
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
        await self._resolver.close()
