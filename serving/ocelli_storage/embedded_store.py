"""Client of the embedded store (`ocelli_store`), and the addresses that both of them know.

    GET, HEAD, PUT, DELETE  /objects/KEY
    GET                     /list?prefix=PREFIX       {"objects": [{"key", "sizeBytes", "modifiedAt"}, …]}
    GET                     /folders?prefix=PREFIX    {"folders": ["name", …]}

A request that met no answer, or 502, 503 or 504, is sent again for `RETRY_LIMIT_SECONDS`: the store is one Pod, and restarts.
Every request of the protocol does no more when it is sent twice. 413 says that the quota of the key's namespace has no room.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout

from ocelli_api.pods import STORE_AUDIENCE, STORE_TOKEN_FILE, Environment
from ocelli_storage.object_store import (
    ObjectNotFoundError,
    ObjectStore,
    StoreConfigurationError,
    StoredObject,
    StoreQuotaError,
    StoreUnavailableError,
    collect_chunks,
)

RETRY_LIMIT_SECONDS = 30.0
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
    def open(cls, url: str, environment: Mapping[str, str] = os.environ) -> EmbeddedStore:
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
        return cls(url, token_file)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        async with self._request("GET", "read", key) as response:
            chunks = response.content.iter_chunked(_CHUNK_BYTES)
            return await collect_chunks(key, chunks, size_bytes=response.content_length or 0, limit_bytes=limit_bytes)

    async def open_read(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
        async with self._request("GET", "read", key) as response:
            async for chunk in response.content.iter_chunked(chunk_bytes):
                yield chunk

    async def put(self, key: str, data: bytes | Path) -> None:
        async with self._request("PUT", "write", key, data=data):
            pass

    async def size_of(self, key: str) -> int:
        async with self._request("HEAD", "look up", key) as response:
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
        async with self._request("DELETE", "delete", key):
            pass

    async def _list(self, what: str, prefix: str) -> dict[str, Any]:
        async with self._request("GET", "list", prefix, address=f"/{what}?prefix={quote(prefix, safe='')}") as response:
            document: dict[str, Any] = json.loads(await response.read())
            return document

    @asynccontextmanager
    async def _request(
        self, method: str, verb: str, key: str, *, address: str | None = None, data: bytes | Path | None = None
    ) -> AsyncIterator[ClientResponse]:
        """The answer to a request that succeeded, its body unread."""
        url = self._base + (f"/objects/{quote(key)}" if address is None else address)
        # A session of its own for each request: the store is asked seldom, and belongs to no event loop this way.
        async with ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session:
            try:
                response = await self._send(session, method, url, data)
            except _AnswerError as error:
                if error.status == 404 and address is None:
                    raise ObjectNotFoundError(key) from error
                if error.status == 413:
                    raise StoreQuotaError(key, error.reason) from error
                raise _unavailable(verb, key, str(error)) from error
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _unavailable(verb, key, f"the answer broke off: {error or type(error).__name__}") from error
            finally:
                response.release()

    async def _send(self, session: ClientSession, method: str, url: str, data: bytes | Path | None) -> ClientResponse:
        """The answer of the store, once it succeeds. Raises _AnswerError where it does not, or not in time."""
        give_up = time.monotonic() + self._retry_limit_seconds
        pause_seconds = _PAUSE_FIRST_SECONDS
        while True:
            try:
                response = await session.request(method, url, data=_body(data), headers=self._headers(data))
                if response.ok:
                    return response
                failure = _AnswerError(response.status, await _reason(response))
                response.release()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = _AnswerError(None, f"no answer of {self._base}: {error or type(error).__name__}")
            if failure.status not in _PASSING or time.monotonic() + pause_seconds > give_up:
                raise failure
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_LIMIT_SECONDS)

    def _headers(self, data: bytes | Path | None) -> dict[str, str]:
        try:
            # The kubelet renews the file; it is read for every request.
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise StoreUnavailableError(f"object store: the token {str(self._token_file)!r} cannot be read: {error}") from error
        headers = {"Authorization": f"Bearer {token}"}
        if isinstance(data, Path):
            # With it the store can tell a whole upload from one that was cut off.
            headers["Content-Length"] = str(data.stat().st_size)
        return headers


class _AnswerError(Exception):
    """The store did not do what it was asked to; `status` is None where it did not answer."""

    def __init__(self, status: int | None, reason: str) -> None:
        super().__init__(reason if status is None else f"{status} {reason}")
        self.status = status
        self.reason = reason


def _body(data: bytes | Path | None) -> BytesIO | AsyncIterator[bytes] | None:
    if isinstance(data, Path):
        return _read_file(data)
    return None if data is None else BytesIO(data)


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk


async def _reason(response: ClientResponse) -> str:
    try:
        return (await response.text())[:500].strip() or str(response.reason)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return str(response.reason)


def _unavailable(verb: str, key: str, trouble: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"object store: could not {verb} {key!r}: {trouble}")
