"""The client of the embedded store (`ocelli_store`), and the protocol between them.

    GET, HEAD, PUT, DELETE  /objects/KEY
    GET                     /list?prefix=PREFIX       {"objects": [{"key", "sizeBytes", "modifiedAt"}, …]}
    GET                     /folders?prefix=PREFIX    {"folders": ["name", …]}

A request is retried for `RETRY_LIMIT_SECONDS` if there is no answer, only a part of one, or 502, 503 or 504: the store is one
Pod, and can restart. All requests of the protocol are idempotent. A long read resumes where it was interrupted (`Range`,
`If-Range`). 413 means that the quota of the key's namespace is exceeded.
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
    check_range,
    collect_chunks,
)

_PAUSE_FIRST_SECONDS = 0.1
_PAUSE_LIMIT_SECONDS = 2.0
_RETRIED = frozenset({None, 502, 503, 504})
"""Statuses after which a request is retried; None: there was no answer."""
_CHUNK_BYTES = 1024 * 1024
# No limit for a whole transfer, whose size is unknown here. A connection without data for a minute is dead.
_TIMEOUT = ClientTimeout(total=None, sock_connect=5, sock_read=60)


class EmbeddedStore(ObjectStore):
    """The embedded store, under the identity of a projected ServiceAccount token."""

    def __init__(self, url: str, token_file: Path, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS) -> None:
        self.url = url
        self._base = url.rstrip("/")
        self._token_file = token_file
        self._retry_limit_seconds = retry_limit_seconds

    @classmethod
    def open(cls, url: str, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS) -> EmbeddedStore:
        """The store at an `http(s)://host` URL, with the token in `OCELLI_STORE_TOKEN_FILE`.

        Raises:
            StoreConfigurationError: the URL has no host, or there is no token.
        """
        if not urlsplit(url).hostname:
            raise StoreConfigurationError(f"object store: {url!r} has no host; set http://HOST of the embedded store")
        token_file = Path(os.environ.get(Environment.STORE_TOKEN_FILE) or STORE_TOKEN_FILE)
        if not token_file.is_file():
            raise StoreConfigurationError(
                f"object store: there is no ServiceAccount token at {str(token_file)!r} for {url!r}; mount one with the "
                f"audience {STORE_AUDIENCE!r} there, or set {Environment.STORE_TOKEN_FILE}"
            )
        return cls(url, token_file, retry_limit_seconds=retry_limit_seconds)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        async def read(response: ClientResponse) -> bytes:
            chunks = response.content.iter_chunked(_CHUNK_BYTES)
            return await collect_chunks(key, chunks, size_bytes=response.content_length or 0, limit_bytes=limit_bytes)

        return await self._read_whole(_Request(method="GET", verb="read", key=key), read)

    async def get_range(self, key: str, *, offset: int, length: int) -> bytes:
        if not length:
            return b""

        async def read(response: ClientResponse) -> bytes:
            chunks = response.content.iter_chunked(_CHUNK_BYTES)
            size_bytes = response.content_length or 0
            return check_range(key, await collect_chunks(key, chunks, size_bytes=size_bytes, limit_bytes=length), length)

        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        return await self._read_whole(_Request(method="GET", verb="read", key=key, headers=wanted), read)

    async def open_read(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
        read_bytes, tag = 0, ""
        attempts = _Attempts(self._retry_limit_seconds)
        while True:
            rest = {"Range": f"bytes={read_bytes}-", "If-Range": tag} if read_bytes else {}
            try:
                async with self._answer(_Request(method="GET", verb="read", key=key, headers=rest)) as response:
                    if read_bytes and response.status != HTTPStatus.PARTIAL_CONTENT:
                        fact = "the connection was interrupted, and the object has changed since; read it again"
                        raise StoreUnavailableError(_failure("read", key, fact))
                    tag = response.headers.get("ETag", "")
                    async for chunk in response.content.iter_chunked(chunk_bytes):
                        read_bytes += len(chunk)
                        # Each interruption has its own retries.
                        attempts = _Attempts(self._retry_limit_seconds)
                        yield chunk
                    return
            except _InterruptedError:
                if (read_bytes and not tag) or not await attempts.wait_for_next():
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
        attempts = _Attempts(self._retry_limit_seconds)
        while True:
            try:
                async with self._answer(request) as response:
                    return await read(response)
            except _InterruptedError:
                if not await attempts.wait_for_next():
                    raise

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[ClientResponse]:
        """The answer to a successful request, with its body unread. Raises _InterruptedError if the body is not complete."""
        # A session for each request: requests are rare, and this way the store is not bound to an event loop.
        async with ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session:
            try:
                response = await self._send(session, request)
            except _AnswerError as error:
                if error.status == HTTPStatus.NOT_FOUND and request.list_address is None:
                    raise ObjectNotFoundError(request.key) from error
                if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise StoreQuotaError(request.key, error.reason) from error
                kind = StoreUnreachableError if error.status in _RETRIED else StoreUnavailableError
                raise kind(_failure(request.verb, request.key, str(error))) from error
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                fact = f"the connection was interrupted ({_describe_cause(error)}); try again when the store is ready"
                raise _InterruptedError(_failure(request.verb, request.key, fact)) from error
            finally:
                response.release()

    async def _send(self, session: ClientSession, request: _Request) -> ClientResponse:
        """The answer to a request that succeeds. Raises _AnswerError if it fails, or if there is no answer in time."""
        url = self._base + (request.list_address or f"/objects/{quote(request.key)}")
        attempts = _Attempts(self._retry_limit_seconds)
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
                    # aiohttp reports this as a failed connection.
                    raise body.failure from None
                fact = f"no answer from {self._base} ({_describe_cause(error)}); check that the store is running"
                failure = _AnswerError(None, fact)
            if failure.status not in _RETRIED or not await attempts.wait_for_next():
                raise failure

    def _headers(self, request: _Request) -> dict[str, str]:
        try:
            # The kubelet renews the file, so it is read for every request.
            token = self._token_file.read_text().strip()
        except OSError as error:
            fact = f"the token {str(self._token_file)!r} cannot be read ({error.strerror})"
            raise StoreUnavailableError(f"object store: {fact}; mount the ServiceAccount token there") from error
        headers = {"Authorization": f"Bearer {token}", **request.headers}
        if isinstance(request.data, _LocalFile):
            # It lets the store detect an upload that is cut off.
            headers["Content-Length"] = str(request.data.size_bytes)
        return headers


class _LocalFile:
    """A file as a body that can be sent more than once. Errors of the file are kept apart from those of the store."""

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
                raise OSError(f"{str(self._path)!r} became shorter while it was being sent to the object store")
        except OSError as error:
            self.failure = error
            raise


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A request to the store. `verb` and `key` are used in messages."""

    method: str
    verb: str
    key: str
    list_address: str | None = None
    """Path and query of a listing; `key` is its prefix."""
    data: bytes | _LocalFile | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Attempts:
    """The pauses between the attempts of one request."""

    def __init__(self, limit_seconds: float) -> None:
        self._give_up = time.monotonic() + limit_seconds
        self._pause_seconds = _PAUSE_FIRST_SECONDS

    async def wait_for_next(self) -> bool:
        """Wait until the next attempt. False, without waiting, if there is no time for another."""
        if time.monotonic() + self._pause_seconds > self._give_up:
            return False
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _PAUSE_LIMIT_SECONDS)
        return True


class _InterruptedError(StoreUnreachableError):
    """The answer of the store was not complete."""


class _AnswerError(Exception):
    """The request failed; `status` is None if there was no answer."""

    def __init__(self, status: int | None, reason: str) -> None:
        super().__init__(reason if status is None else f"{status} {reason}")
        self.status = status
        self.reason = reason


async def _reason(response: ClientResponse) -> str:
    try:
        return (await response.text())[:500].strip() or str(response.reason)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return str(response.reason)


def _describe_cause(error: Exception) -> str:
    """Why a connection failed, without the texts of libraries."""
    match error:
        case TimeoutError():
            return "timed out"
        case aiohttp.ClientConnectorDNSError():
            return "the host name is not known"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(), strerror=str(cause))):
            return cause
        case OSError(errno=int(), strerror=str(cause)):
            return cause
        case _:
            return "the connection was closed"


def _failure(verb: str, key: str, fact: str) -> str:
    return f"object store: could not {verb} {key!r}: {fact}"
