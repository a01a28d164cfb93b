"""Images by URL: fetched for a user, who must not reach addresses that only the gateway can reach.

Addresses are checked at the socket, for every connection and so for every redirect: between check and connection no name is
resolved again. Answers do not show which names exist inside the cluster. Fetched images are on disk. It must not know what the
image is used for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ocelli_api.network_addresses import NetworkRules, is_internal_name
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.image_files import TOO_LARGE
from ocelli_gateway.refusals import GatewayError, InputError, LimitExceededError
from ocelli_storage.archives import IMAGE_BYTES_LIMIT, SIGNATURE_BYTES, image_kind, is_zip

TIMEOUT_SECONDS = 20.0
CONNECT_TIMEOUT_SECONDS = 5.0
"""For one address of a host: if it has several, there is time for the next one."""
REDIRECTS_LIMIT = 10
URL_CHARACTERS_LIMIT = 8192
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 256 * 1024
_PREFIX = "URL Fetcher error: "
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WRITTEN_OUT = re.compile(r"[!-~]+")
"""Only characters that need no escaping."""
_LOOKUPS: ContextVar[list[asyncio.Future[Any]]] = ContextVar("lookups")
"""The look-ups of the current fetch: the HTTP client calls the resolver in a separate task."""


@dataclass(frozen=True, kw_only=True)
class FetchedImage:
    """The outcome of a URL: the image in a file, or the error."""

    source_url: str
    """The URL in the request."""
    resolved_url: str | None = None
    """After redirects; None where no server answered."""
    file: IO[bytes] | None = None
    error: GatewayError | None = None


class _AddressNotAllowedError(Exception):
    pass


class UrlFetcher:
    """Fetches images over a new connection for each request, without proxies, cookies or credentials."""

    def __init__(self, *, folder: Path, slots: FairSlots, resolver: AbstractResolver, rules: NetworkRules) -> None:
        """`slots` limits the number of concurrent fetches and look-ups."""
        self._folder = folder
        self._slots = slots
        self._rules = rules
        self._resolver = _GuardedResolver(resolver, internal_names=rules.internal_names)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                resolver=self._resolver,
                # One after the other: the first forbidden address ends the attempt.
                happy_eyeballs_delay=None,
                socket_factory=self._open_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ocelli", "Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._resolver.close()

    @asynccontextmanager
    async def fetch(self, url: str, tenant: str) -> AsyncIterator[FetchedImage]:
        """The image at a URL; its file is deleted when the context is left.

        Raises:
            TooManyRequestsError, UnavailableError: too many images are being fetched.
            OSError: the file cannot be written.
        """
        file = await asyncio.to_thread(self._open_file)
        try:
            yield await self._fetch_in_turn(url, file, tenant)
        finally:
            await asyncio.to_thread(file.close)

    async def _fetch_in_turn(self, url: str, file: IO[bytes], tenant: str) -> FetchedImage:
        await self._slots.acquire(tenant)
        lookups: list[asyncio.Future[Any]] = []
        _LOOKUPS.set(lookups)
        try:
            return await self._fetch(url, file)
        finally:
            if lookups and not lookups[-1].done():
                # A look-up of the system cannot be cancelled. Its thread counts for the tenant until it ends.
                lookups[-1].add_done_callback(lambda _: self._slots.release(tenant))
            else:
                self._slots.release(tenant)

    async def _fetch(self, source_url: str, file: IO[bytes]) -> FetchedImage:
        visited: list[URL] = []
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._follow(source_url, file, visited)
        except Exception as error:
            failure = _describe(error)
            if failure is None:
                raise
            shown = str(visited[-1]) if visited else None
            return FetchedImage(source_url=source_url, resolved_url=shown, error=failure)
        return FetchedImage(source_url=source_url, resolved_url=str(visited[-1]), file=file)

    async def _follow(self, source_url: str, file: IO[bytes], visited: list[URL]) -> None:
        """Write the image to the file, and add every URL that a server has answered to `visited`."""
        url = _parse_url(source_url)
        for _ in range(REDIRECTS_LIMIT + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                visited.append(url)
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    await _save(response, file)
                    return
            url = _parse_url(location, url)
        raise _not_fetched(f"More than {REDIRECTS_LIMIT} redirects")

    def _open_file(self) -> IO[bytes]:
        return tempfile.TemporaryFile("w+b", prefix="ocelli-url-", dir=self._folder)

    def _open_socket(self, target: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = target
        if not self._rules.may_connect(str(address[0])):
            raise _AddressNotAllowedError
        return socket.socket(family, kind, protocol)


class _GuardedResolver(AbstractResolver):
    """Looks up names without showing which names exist in the cluster.

    Where no network is allowed, internal names are not looked up. Otherwise a name outside the allowed networks gets the same
    answer as an unknown name. Other names are looked up as absolute: the search domains of the Pod could make them internal.
    """

    def __init__(self, resolver: AbstractResolver, *, internal_names: bool) -> None:
        self._resolver = resolver
        self._internal_names = internal_names

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        name = host.rstrip(".")
        internal = is_internal_name(name)
        if internal and not self._internal_names:
            raise _AddressNotAllowedError
        lookup = asyncio.ensure_future(self._resolver.resolve(name if internal else f"{name}.", port, family))
        _LOOKUPS.get().append(lookup)
        try:
            return await asyncio.shield(lookup)
        except OSError as error:
            if internal:
                raise _AddressNotAllowedError from error
            raise

    async def close(self) -> None:
        await self._resolver.close()


class ThreadedResolver(AbstractResolver):
    """The system's resolver in separate threads: slow names do not delay other work."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="resolver")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(kind, str(address[0])) for kind, _, _, _, address in found]


def _parse_url(text: str, base: URL | None = None) -> URL:
    """The absolute URL, with an IPv4 address as four numbers.

    Raises:
        InputError: it cannot be fetched.
    """
    text = text.strip()
    if len(text) > URL_CHARACTERS_LIMIT or _CONTROL.search(text):
        raise _not_fetched("Bad URL; it is too long or has characters that are not allowed")
    try:
        # Escapes must not change: signatures cover them.
        url = URL(text, encoded=_WRITTEN_OUT.fullmatch(text) is not None)
        if base is not None:
            url = base.join(url)
        if url.scheme not in ("http", "https"):
            raise _not_fetched("Bad URL; only http and https addresses are fetched")
        host = url.host
        # Reading the port validates it.
        if not host or not url.port:
            raise ValueError
        return url.with_host(_normalize_address(host))
    except ValueError as error:
        raise _not_fetched("Bad URL; give one such as https://example.org/owl.jpg") from error


def _normalize_address(host: str) -> str:
    """`127.1`, `2130706433` and `0x7f000001` as the C library reads them: 127.0.0.1."""
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, UnicodeEncodeError):
        return host


async def _save(response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
    if response.status != 200:
        raise _not_fetched(f"The server answered with status {response.status}")
    size_bytes = 0
    head = bytearray()
    pending = bytearray()
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > IMAGE_BYTES_LIMIT:
            raise LimitExceededError(_PREFIX + TOO_LARGE.removesuffix("."))
        head += chunk[: SIGNATURE_BYTES - len(head)]
        pending += chunk
        if len(pending) >= _CHUNK_BYTES:
            await asyncio.to_thread(file.write, bytes(pending))
            pending.clear()
    if is_zip(bytes(head)):
        raise InputError(f"{_PREFIX}A zip is not fetched; send it as images_file")
    if image_kind(bytes(head)) is None:
        raise InputError(f"{_PREFIX}Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF")
    await asyncio.to_thread(file.write, bytes(pending))


def _not_fetched(why: str) -> InputError:
    return InputError(f"{_PREFIX}Could not fetch URL: {why}")


def _describe(error: Exception) -> GatewayError | None:
    """The error of the image; None where the URL is not the cause."""
    match error:
        case GatewayError():
            return error
        case _AddressNotAllowedError():
            return _not_fetched("Address not allowed")
        case TimeoutError():
            return _not_fetched(f"No image arrived within {TIMEOUT_SECONDS:.0f} seconds")
        case aiohttp.ClientConnectorDNSError():
            return _not_fetched("The host's name cannot be resolved")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return _not_fetched("The host's certificate or encryption is not trusted")
        case aiohttp.ClientConnectorError():
            return _not_fetched("The connection to the host failed")
        case aiohttp.InvalidURL() | UnicodeError():
            return _not_fetched("Bad URL; its host is not a name")
        case aiohttp.ClientError():
            return _not_fetched("The server's answer is cut off or malformed")
        case _:
            return None
