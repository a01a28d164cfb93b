"""Client of the embedded store (`ocelli_store`), and the addresses that both of them know.

    GET, HEAD, PUT, DELETE  /objects/KEY
    GET                     /list?prefix=PREFIX       {"objects": [{"key", "sizeBytes", "modifiedAt"}, …]}
    GET                     /folders?prefix=PREFIX    {"folders": ["name", …]}

A request that met no answer, half of one, 502, 503 or 504, is sent again for `RETRY_LIMIT_SECONDS`: the store is one Pod, and
restarts. Every request of the protocol does no more when it is sent twice. A long read goes on where it broke off (`Range`,
`If-Range`). 413 says that the quota of the key's namespace has no room.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout

from ocelli_api.pods import STORE_AUDIENCE, STORE_TOKEN_FILE, Environment
from ocelli_storage.object_store import (
    RETRY_LIMIT_SECONDS,
    ObjectNotFoundError,
    ObjectStore,
    StoreConfigurationError,
    StoredObject,
    StoreQuotaError,
    StoreUnavailableError,
    StoreUnreachableError,
    collect_chunks,
)

_PAUSE_FIRST_SECONDS = 0.1
_PAUSE_LIMIT_SECONDS = 2.0
_PASSING = frozenset({None, 502, 503, 504})
"""Statuses that another try may change; None: there was no answer."""
_CHUNK_BYTES = 1024 * 1024
# No limit over a whole transfer, whose size nobody knows here; a connection that carries nothing for a minute is dead.
_TIMEOUT = ClientTimeout(total=None, sock_connect=5, sock_read=60)


class EmbeddedStore(ObjectStore):
    """The embedded store, under the identity of a projected ServiceAccount token."""

    def __init__(self, url: str, token_file: Path, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS) -> None:
        self.url = url
        self._base = url.rstrip("/")
        self._token_file = token_file
        self._retry_limit_seconds = retry_limit_seconds

    @classmethod
    def open(
        cls, url: str, environment: Mapping[str, str] = os.environ, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS
    ) -> EmbeddedStore:
        """The store at an `http(s)://host` URL; the token lies where `OCELLI_STORE_TOKEN_FILE` says.

        Raises:
            StoreConfigurationError: the URL names no host, or there is no token.
        """
        if not urlsplit(url).hostname:
            raise StoreConfigurationError(f"object store: {url!r} names no host; set http://HOST of the embedded store")
        token_file = Path(environment.get(Environment.STORE_TOKEN_FILE) or STORE_TOKEN_FILE)
        if not token_file.is_file():
            raise StoreConfigurationError(
                f"object store: there is no ServiceAccount token at {str(token_file)!r} to show to {url!r}; mount one with the "
                f"audience {STORE_AUDIENCE!r} there, or set {Environment.STORE_TOKEN_FILE}"
            )
        return cls(url, token_file, retry_limit_seconds=retry_limit_seconds)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        async def read(response: ClientResponse) -> bytes:
            chunks = response.content.iter_chunked(_CHUNK_BYTES)
            return await collect_chunks(key, chunks, size_bytes=response.content_length or 0, limit_bytes=limit_bytes)

        return await self._read_whole(_Request(method="GET", verb="read", key=key), read)

    async def open_read(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
        read_bytes, tag = 0, ""
        tries = _Tries(self._retry_limit_seconds)
        while True:
            rest = {"Range": f"bytes={read_bytes}-", "If-Range": tag} if read_bytes else {}
            try:
                async with self._answer(_Request(method="GET", verb="read", key=key, headers=rest)) as response:
                    if read_bytes and response.status != HTTPStatus.PARTIAL_CONTENT:
                        trouble = "the answer broke off, and the object was replaced since"
                        raise StoreUnavailableError(_tell_trouble("read", key, trouble))
                    tag = response.headers.get("ETag", "")
                    async for chunk in response.content.iter_chunked(chunk_bytes):
                        read_bytes += len(chunk)
                        # Each time that it breaks off is a trouble of its own.
                        tries = _Tries(self._retry_limit_seconds)
                        yield chunk
                    return
            except _BrokenOffError:
                if (read_bytes and not tag) or not await tries.wait_for_next():
                    raise

    async def put(self, key: str, data: bytes | Path) -> None:
        body = _LocalFile.open(data) if isinstance(data, Path) else data
        async with self._answer(_Request(method="PUT", verb="write", key=key, data=body)):
            pass

    async def size_of(self, key: str) -> int:
        async with self._answer(_Request(method="HEAD", verb="look up", key=key)) as response:
            return int(response.headers["Content-Length"])

    async def list_objects(self, prefix: str) -> list[StoredObject]:
        document = await self._list("list", prefix)
        return [
            StoredObject(key=item["key"], size_bytes=item["sizeBytes"], modified_at=datetime.fromisoformat(item["modifiedAt"]))
            for item in document["objects"]
        ]

    async def list_folders(self, prefix: str) -> list[str]:
        return [str(name) for name in (await self._list("folders", prefix))["folders"]]

    async def delete(self, key: str) -> None:
        async with self._answer(_Request(method="DELETE", verb="delete", key=key)):
            pass

    async def _list(self, what: str, prefix: str) -> dict[str, Any]:
        address = f"/{what}?prefix={quote(prefix, safe='')}"
        answer = await self._read_whole(
            _Request(method="GET", verb="list", key=prefix, list_address=address), ClientResponse.read
        )
        document: dict[str, Any] = json.loads(answer)
        return document

    async def _read_whole(self, request: _Request, read: Callable[[ClientResponse], Awaitable[bytes]]) -> bytes:
        tries = _Tries(self._retry_limit_seconds)
        while True:
            try:
                async with self._answer(request) as response:
                    return await read(response)
            except _BrokenOffError:
                if not await tries.wait_for_next():
                    raise

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[ClientResponse]:
        """The answer to a request that succeeded, its body unread. Raises _BrokenOffError where that does not come whole."""
        # A session of its own for each request: the store is asked seldom, and belongs to no event loop this way.
        async with ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session:
            try:
                response = await self._send(session, request)
            except _AnswerError as error:
                if error.status == HTTPStatus.NOT_FOUND and request.list_address is None:
                    raise ObjectNotFoundError(request.key) from error
                if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise StoreQuotaError(request.key, error.reason) from error
                kind = StoreUnreachableError if error.status in _PASSING else StoreUnavailableError
                raise kind(_tell_trouble(request.verb, request.key, str(error))) from error
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                trouble = f"the answer broke off ({_describe_failure(error)}); try again when the store is well"
                raise _BrokenOffError(_tell_trouble(request.verb, request.key, trouble)) from error
            finally:
                response.release()

    async def _send(self, session: ClientSession, request: _Request) -> ClientResponse:
        """The answer of the store, once it succeeds. Raises _AnswerError where it does not, or not in time."""
        url = self._base + (request.list_address or f"/objects/{quote(request.key)}")
        tries = _Tries(self._retry_limit_seconds)
        while True:
            body = BytesIO(request.data) if isinstance(request.data, bytes) else request.data
            try:
                response = await session.request(request.method, url, data=body, headers=self._headers(request))
                if response.ok:
                    return response
                failure = _AnswerError(response.status, await _reason(response))
                response.release()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(body, _LocalFile) and body.failure is not None:
                    # To aiohttp it is a connection that failed.
                    raise body.failure from None
                fact = f"no answer of {self._base} ({_describe_failure(error)}); check that the store runs"
                failure = _AnswerError(None, fact)
            if failure.status not in _PASSING or not await tries.wait_for_next():
                raise failure

    def _headers(self, request: _Request) -> dict[str, str]:
        try:
            # The kubelet renews the file; it is read for every request.
            token = self._token_file.read_text().strip()
        except OSError as error:
            place = f"the token {str(self._token_file)!r} cannot be read ({error.strerror})"
            raise StoreUnavailableError(f"object store: {place}; mount the ServiceAccount token there") from error
        headers = {"Authorization": f"Bearer {token}", **request.headers}
        if isinstance(request.data, _LocalFile):
            # With it the store can tell a whole upload from one that was cut off.
            headers["Content-Length"] = str(request.data.size_bytes)
        return headers


class _LocalFile:
    """A file as a body, which may be sent more than once. What is wrong with it is no trouble of the store's."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self.size_bytes = size_bytes
        self.failure: OSError | None = None
        """Why it could not be read."""

    @classmethod
    def open(cls, path: Path) -> _LocalFile:
        """Raises OSError."""
        with path.open("rb") as file:
            return cls(path, os.fstat(file.fileno()).st_size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left_bytes = self.size_bytes
        try:
            with await asyncio.to_thread(self._path.open, "rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    left_bytes -= len(chunk)
                    yield chunk
            if left_bytes > 0:
                raise OSError(f"{str(self._path)!r} became shorter while it was sent to the object store")
        except OSError as error:
            self.failure = error
            raise


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What is asked of the store. `verb` and `key` are for messages too."""

    method: str
    verb: str
    key: str
    list_address: str | None = None
    """Path and query of a listing, whose prefix is `key` then."""
    data: bytes | _LocalFile | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Tries:
    """The pauses between the tries of one request, for as long as there is time for another."""

    def __init__(self, limit_seconds: float) -> None:
        self._give_up = time.monotonic() + limit_seconds
        self._pause_seconds = _PAUSE_FIRST_SECONDS

    async def wait_for_next(self) -> bool:
        """False, at once, where there is to be no other."""
        if time.monotonic() + self._pause_seconds > self._give_up:
            return False
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _PAUSE_LIMIT_SECONDS)
        return True


class _BrokenOffError(StoreUnreachableError):
    """The store began to answer, and did not end."""


class _AnswerError(Exception):
    """The store did not do what it was asked to; `status` is None where it did not answer."""

    def __init__(self, status: int | None, reason: str) -> None:
        super().__init__(reason if status is None else f"{status} {reason}")
        self.status = status
        self.reason = reason


async def _reason(response: ClientResponse) -> str:
    try:
        return (await response.text())[:500].strip() or str(response.reason)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return str(response.reason)


def _describe_failure(error: Exception) -> str:
    """What happened to a connection, in words of the operating system at most."""
    match error:
        case TimeoutError():
            return "it took too long"
        case aiohttp.ClientConnectorDNSError():
            return "its host name is not known"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(), strerror=str(cause))):
            return cause
        case OSError(errno=int(), strerror=str(cause)):
            return cause
        case _:
            return "the connection broke off"


def _tell_trouble(verb: str, key: str, trouble: str) -> str:
    return f"object store: could not {verb} {key!r}: {trouble}"
