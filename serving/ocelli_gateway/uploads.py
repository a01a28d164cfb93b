"""Request bodies: read once, in bounded time, with files on disk and never in memory.

A `BodyReader` gives the bytes of one request within its limits, a `Spool` keeps the files that came in it, and both vanish with
the request. It must not know what the files mean.
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

from ocelli_gateway.errors import InputError, LimitExceededError, ParameterError, TooLargeError
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.http_protocol import CUT_OFF_KEY, LEFT_KEY
from ocelli_gateway.multipart import (
    PARTS_LIMIT,
    MultipartError,
    PartHead,
    PartSink,
    TooManyPartsError,
    parse_boundary,
    read_parts,
)
from ocelli_http.body_pace import BodyPace, BodyStalledError, BodyTooSlowError
from ocelli_storage.archives import MEGABYTE, SIGNATURE_BYTES, is_zip, shown_name

TEXT_BYTES_LIMIT = MEGABYTE
RECEIVED_KEY = "ocelli.received"
"""Of an ASGI scope: how many bytes of the body were read."""
_WRITE_BYTES = 256 * 1024
_LENGTH_DIGITS = 18


class PartUse(Protocol):
    """Decides by a part's name what it is."""

    def is_file(self, name: str) -> bool:
        """Whether the part is a file, to be kept on disk."""

    def is_text(self, name: str) -> bool:
        """Whether the part is a text field. What is neither is read and dropped."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Bounds of one kind of request."""

    body_bytes: int
    file_bytes: int
    """Of a zip, and of any other file, unless `drops_others`."""
    drops_others: bool = False
    """A larger file that is no zip has its size kept, and no more bytes: it is refused as the image that it should be."""


@dataclass(frozen=True, kw_only=True)
class SpooledFile:
    """One file part, on disk for as long as its request lives."""

    part_name: str
    filename: str | None
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form as it was sent: files and texts in their order."""

    files: tuple[SpooledFile, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    """Names of parts that were dropped."""


@dataclass(frozen=True, kw_only=True)
class UploadSpace:
    """Where uploads lie while they are checked, and how many requests may use it at a time."""

    folder: Path
    slots: FairSlots
    pace: BodyPace

    @asynccontextmanager
    async def receive_form(self, request: Request, use: PartUse, limits: UploadLimits, *, tenant: str) -> AsyncIterator[Form]:
        """The form in the body of a tenant's request; its files vanish when the context is left.

        Raises:
            InputError, ParameterError, LimitExceededError, TooLargeError: it cannot be read as a form within the limits.
        """
        check_declared_length(request.headers, limits.body_bytes)
        boundary = _boundary(request.headers)
        async with self.slots.slot(tenant, left=request.scope.get(LEFT_KEY)):
            folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="ocelli-upload-", dir=self.folder)
            try:
                collector = _FormCollector(folder=Path(folder.name), use=use, limits=limits)
                try:
                    await read_parts(self.read_body(request, limits.body_bytes), boundary, collector.open_sink)
                except TooManyPartsError as error:
                    raise LimitExceededError(f"{error}; send fewer.") from error
                except MultipartError as error:
                    raise InputError(f"{error}.") from error
                finally:
                    await collector.close()
                yield Form(files=tuple(collector.files), texts=tuple(collector.texts), ignored=tuple(collector.ignored))
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
        # A megabyte of escapes takes long enough to hold up everybody else.
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
            raise InputError(f"The request body is cut off: {received} of {declared} bytes came; send it again.")
        if request.scope.get(CUT_OFF_KEY):
            raise InputError(f"The request body is cut off: {received} bytes came, and not its last chunk; send it again.")


def parse_urlencoded(text: str) -> tuple[tuple[str, str], ...]:
    """The fields of a query or a body, in their order. Raises LimitExceededError where there are too many."""
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=PARTS_LIMIT))
    except ValueError as error:
        raise LimitExceededError(f"The request has more than {PARTS_LIMIT} fields; send fewer.") from error


def declared_length(headers: Mapping[str, str]) -> int | None:
    """How many bytes the body has, as the request says; None where it says nothing. Raises InputError for what is no number."""
    declared = headers.get("content-length")
    if declared is None:
        return None
    if not (declared.isascii() and declared.isdigit()):
        raise InputError("The header Content-Length is not a number; give the number of bytes in the body.")
    # Python reads no number of thousands of digits, and the first few tell that it is above every limit.
    return int(declared.lstrip("0")[:_LENGTH_DIGITS] or "0")


def check_declared_length(headers: Mapping[str, str], limit_bytes: int) -> None:
    """Refuse a body that says it is too large.

    Raises:
        TooLargeError: its declared length is above the limit.
        InputError: the declared length is no number.
    """
    if (declared_length(headers) or 0) > limit_bytes:
        raise _body_too_large(limit_bytes)


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether the request brings a body of at least one byte, or of unknown length."""
    return headers.get("content-length", "0").lstrip("0") != "" or "transfer-encoding" in headers


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of the body, lower case, without parameters; empty where none is declared."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _boundary(headers: Mapping[str, str]) -> bytes:
    try:
        return parse_boundary(headers.get("content-type"))
    except MultipartError as error:
        raise InputError(f"{error}.") from error


def _body_too_large(limit_bytes: int) -> TooLargeError:
    shown = f"{limit_bytes // MEGABYTE} MB" if limit_bytes >= MEGABYTE else f"{limit_bytes // 1024} KB"
    return TooLargeError(f"The request body is larger than {shown}; send a smaller one.")


@dataclass(kw_only=True)
class _FormCollector:
    folder: Path
    use: PartUse
    limits: UploadLimits
    files: list[SpooledFile] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    text_bytes: int = 0
    """Of all text fields: these lie in memory."""
    _open: _FileSink | None = None

    async def open_sink(self, head: PartHead) -> PartSink:
        if self.use.is_file(head.name):
            path = self.folder / str(len(self.files))
            file = await asyncio.to_thread(path.open, "wb")
            self._open = _FileSink(self, head, path, file)
            return self._open
        if self.use.is_text(head.name):
            return _TextSink(self, head)
        self.ignored.append(head.name)
        return _NullSink()

    async def close(self) -> None:
        """Close the file of a part that did not come to its end."""
        if self._open is not None:
            await asyncio.to_thread(self._open.file.close)


class _FileSink:
    def __init__(self, collector: _FormCollector, head: PartHead, path: Path, file: IO[bytes]) -> None:
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
            # Editors on Windows write a byte order mark before it.
            text = self._data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ParameterError(f'The field "{self._head.name}" is not UTF-8 text; save it as UTF-8.') from error
        self._collector.texts.append((self._head.name, text))


class _NullSink:
    async def write(self, data: bytes) -> None:
        pass

    async def close(self) -> None:
        pass
