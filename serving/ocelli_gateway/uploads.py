"""Request bodies: read once, in limited time, with files on disk and never in memory.

The files of a request are deleted with it. It must not know what the files mean.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.http_protocol import CUT_OFF_KEY, LEFT_KEY
from ocelli_gateway.multipart import (
    PARTS_LIMIT,
    PartHead,
    PartSink,
    parse_boundary,
    read_parts,
)
from ocelli_gateway.refusals import InputError, LimitExceededError, ParameterError, TooLargeError
from ocelli_http.body_pace import BodyPace, BodyStalledError, BodyTooSlowError
from ocelli_storage.archives import MEGABYTE, SIGNATURE_BYTES, is_zip, shown_name

TEXT_BYTES_LIMIT = MEGABYTE
RECEIVED_KEY = "ocelli.received"
"""Key of the scope that holds the number of bytes of the body that were read."""
_WRITE_BYTES = 256 * 1024
_LENGTH_DIGITS = 18


class PartUse(Protocol):
    """Decides by its name what a part is."""

    def is_file(self, name: str) -> bool:
        """Whether the part is a file, which is written to disk."""

    def is_text(self, name: str) -> bool:
        """Whether the part is a text field. Parts that are neither are read and dropped."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits of one kind of request."""

    body_bytes: int
    file_bytes: int
    """For zips, and for any other file unless `drops_others`."""
    drops_others: bool = False
    """Of a larger file that is not a zip only the size is kept: it is refused later as a too large image."""


@dataclass(frozen=True, kw_only=True)
class SpooledFile:
    """One file part, on disk until the end of its request."""

    part_name: str
    filename: str | None
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form: files and texts in their order."""

    files: tuple[SpooledFile, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    """Names of parts that were dropped."""


@dataclass(frozen=True, kw_only=True)
class UploadSpace:
    """The folder for uploads in flight, and the slots of the requests that use it."""

    folder: Path
    slots: FairSlots
    pace: BodyPace

    @asynccontextmanager
    async def receive_form(self, request: Request, use: PartUse, limits: UploadLimits, *, tenant: str) -> AsyncIterator[Form]:
        """The form in the body of a tenant's request; its files are deleted when the context is left.

        Raises:
            InputError, ParameterError, LimitExceededError, TooLargeError: it cannot be read as a form within the limits.
        """
        check_declared_length(request.headers, limits.body_bytes)
        boundary = parse_boundary(request.headers.get("content-type"))
        async with self._open_folder(request, tenant) as folder:
            collector = _FormCollector(folder=folder, limits=limits, use=use)
            try:
                await read_parts(self.read_body(request, limits.body_bytes), boundary, collector.open_sink)
            finally:
                await collector.close()
            yield Form(files=tuple(collector.files), texts=tuple(collector.texts), ignored=tuple(collector.ignored))

    @asynccontextmanager
    async def receive_file(self, request: Request, name: str, limit_bytes: int, *, tenant: str) -> AsyncIterator[SpooledFile]:
        """The body of a tenant's request as a file, which is deleted when the context is left; `name` is for messages.

        Raises:
            InputError, TooLargeError: it cannot be read within the limits.
        """
        check_declared_length(request.headers, limit_bytes)
        async with self._open_folder(request, tenant) as folder:
            limits = UploadLimits(body_bytes=limit_bytes, file_bytes=limit_bytes)
            collector = _FileCollector(folder=folder, limits=limits)
            try:
                sink = await collector.open_file(PartHead(name=name, filename=None))
                async for chunk in self.read_body(request, limit_bytes):
                    await sink.write(chunk)
                await sink.close()
            finally:
                await collector.close()
            yield collector.files[0]

    @asynccontextmanager
    async def _open_folder(self, request: Request, tenant: str) -> AsyncIterator[Path]:
        """A slot, and an empty folder that is deleted when the context is left."""
        async with self.slots.slot(tenant, left=request.scope.get(LEFT_KEY)):
            folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="ocelli-upload-", dir=self.folder)
            try:
                yield Path(folder.name)
            finally:
                await asyncio.to_thread(folder.cleanup)

    async def read_urlencoded(self, request: Request, limit_bytes: int = TEXT_BYTES_LIMIT) -> Form:
        """The fields of an `application/x-www-form-urlencoded` body.

        Raises:
            InputError, LimitExceededError, TooLargeError: it cannot be read within the limits.
        """
        check_declared_length(request.headers, limit_bytes)
        body = bytearray()
        async for chunk in self.read_body(request, limit_bytes):
            body += chunk
        # A megabyte of escapes takes long enough to block other requests.
        return Form(texts=await asyncio.to_thread(parse_urlencoded, body.decode("utf-8", errors="replace")))

    async def read_body(self, request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body in chunks.

        Raises:
            InputError: it is cut off, or stops arriving.
            TooLargeError: it grows past the limit.
        """
        received = 0
        try:
            async for chunk in self.pace.read(aiter(request.stream())):
                received += len(chunk)
                request.scope[RECEIVED_KEY] = received
                if received > limit_bytes:
                    raise _body_too_large(limit_bytes)
                if chunk:
                    yield chunk
        except BodyStalledError as error:
            raise InputError("The request body stopped arriving; send it again.") from error
        except BodyTooSlowError as error:
            raise InputError(f"The request body arrives too slowly: {error}.") from error
        except ClientDisconnect as error:
            raise InputError("The connection was closed before the request body was complete; send it again.") from error
        declared = declared_length(request.headers)
        if declared is not None and received < declared:
            raise InputError(f"The request body is cut off: {received} of {declared} bytes arrived; send it again.")
        if request.scope.get(CUT_OFF_KEY):
            raise InputError(f"The request body is cut off: {received} bytes arrived, but not the last chunk; send it again.")


def parse_urlencoded(text: str) -> tuple[tuple[str, str], ...]:
    """The fields of a query or a body, in their order. Raises LimitExceededError where there are too many."""
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=PARTS_LIMIT))
    except ValueError as error:
        raise LimitExceededError(f"The request has more than {PARTS_LIMIT} fields; send fewer.") from error


def declared_length(headers: Mapping[str, str]) -> int | None:
    """The `Content-Length` of a request; None where there is none. Raises InputError if it is not a number."""
    declared = headers.get("content-length")
    if declared is None:
        return None
    if not (declared.isascii() and declared.isdigit()):
        raise InputError("The header Content-Length is not a number; give the number of bytes in the body.")
    # Python does not parse thousands of digits, and the first ones show that it is above every limit.
    return int(declared.lstrip("0")[:_LENGTH_DIGITS] or "0")


def check_declared_length(headers: Mapping[str, str], limit_bytes: int) -> None:
    """Refuse a body with a declared length above the limit.

    Raises:
        TooLargeError: its declared length is above the limit.
        InputError: the declared length is not a number.
    """
    if (declared_length(headers) or 0) > limit_bytes:
        raise _body_too_large(limit_bytes)


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether the request has a body of at least one byte, or of unknown length."""
    return headers.get("content-length", "0").lstrip("0") != "" or "transfer-encoding" in headers


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of the body, lower case, without parameters; empty where none is declared."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _body_too_large(limit_bytes: int) -> TooLargeError:
    shown = f"{limit_bytes // MEGABYTE} MB" if limit_bytes >= MEGABYTE else f"{limit_bytes // 1024} KB"
    return TooLargeError(f"The request body is larger than {shown}; send a smaller one.")


@dataclass(kw_only=True)
class _FileCollector:
    folder: Path
    limits: UploadLimits
    files: list[SpooledFile] = field(default_factory=list)
    _open: _FileSink | None = None

    async def open_file(self, head: PartHead) -> _FileSink:
        path = self.folder / str(len(self.files))
        file = await asyncio.to_thread(path.open, "wb")
        self._open = _FileSink(self, head, path, file)
        return self._open

    async def close(self) -> None:
        """Close the file of an incomplete part."""
        if self._open is not None:
            await asyncio.to_thread(self._open.file.close)


@dataclass(kw_only=True)
class _FormCollector(_FileCollector):
    use: PartUse
    texts: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    text_bytes: int = 0
    """Of all text fields, which are kept in memory."""

    async def open_sink(self, head: PartHead) -> PartSink | None:
        if self.use.is_file(head.name):
            return await self.open_file(head)
        if self.use.is_text(head.name):
            return _TextSink(self, head)
        self.ignored.append(head.name)
        return None


class _FileSink:
    def __init__(self, collector: _FileCollector, head: PartHead, path: Path, file: IO[bytes]) -> None:
        self.file = file
        self._collector = collector
        self._head = head
        self._path = path
        self._digest = hashlib.sha256()
        self._head_bytes = bytearray()
        self._size_bytes = 0
        self._pending = bytearray()

    async def write(self, data: bytes) -> None:
        self._size_bytes += len(data)
        limit_bytes = self._collector.limits.file_bytes
        if len(self._head_bytes) < SIGNATURE_BYTES:
            self._head_bytes += data[:SIGNATURE_BYTES]
        if self._size_bytes > limit_bytes:
            if self._collector.limits.drops_others and not is_zip(bytes(self._head_bytes)):
                return
            part = shown_name(self._head.name)
            raise TooLargeError(f'The file in "{part}" is larger than {limit_bytes // MEGABYTE} MB; put fewer images in it.')
        self._pending += data
        if len(self._pending) >= _WRITE_BYTES:
            await asyncio.to_thread(self._flush)

    async def close(self) -> None:
        await asyncio.to_thread(self._finish)
        self._collector.files.append(
            SpooledFile(
                part_name=self._head.name,
                filename=self._head.filename,
                path=self._path,
                size_bytes=self._size_bytes,
                sha256=self._digest.hexdigest(),
            )
        )

    def _flush(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        self._digest.update(data)
        self.file.write(data)

    def _finish(self) -> None:
        self._flush()
        self.file.close()


class _TextSink:
    def __init__(self, collector: _FormCollector, head: PartHead) -> None:
        self._collector = collector
        self._head = head
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        self._data += data
        self._collector.text_bytes += len(data)
        if self._collector.text_bytes > TEXT_BYTES_LIMIT:
            raise LimitExceededError(f"The text fields are longer than {TEXT_BYTES_LIMIT // MEGABYTE} MB in all; shorten them.")

    async def close(self) -> None:
        try:
            # Editors on Windows write a byte order mark at the beginning.
            text = self._data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ParameterError(f'The field "{self._head.name}" is not UTF-8 text; save it as UTF-8.') from error
        self._collector.texts.append((self._head.name, text))
