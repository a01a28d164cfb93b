"""Reading `multipart/form-data` as it streams in, as real clients send it.

`python-multipart` finds the boundaries; this module names the parts and passes their bytes on. Only the name says what a part
is: clients add file names to text, leave them off large files, and declare any media type. It must not know what the parts
mean.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from ocelli_gateway.refusals import InputError, LimitExceededError

PARTS_LIMIT = 1000
_PART_HEADER_BYTES_LIMIT = 8 * 1024
_PARAMETERS_LIMIT = 8
_AFTER_BOUNDARY = b"\r\n- \t"
_LEAVE_IT = "let the HTTP library write this header"
"""The library chooses the boundary: a header written by hand cannot match it."""
_NAME_IT = 'send one such as Content-Disposition: form-data; name="url"'
_OTHER_BODY = f"The body does not match its Content-Type: it is damaged or has another boundary; {_LEAVE_IT}."
_EXTENDED_CHARSETS = ("utf-8", "iso-8859-1")
# It begins with the semicolon, and blanks are matched possessively: else a header of blanks takes quadratic time.
_PARAMETER = re.compile(r""";\s*+([^\s=;]++)\s*+=\s*+(?:"((?:[^"\\]|\\.|"(?!\s*(?:;|$)))*)"|([^;]*))""", re.DOTALL)
# HTML escapes exactly these three in names; the SDKs' HTTP libraries follow it.
_HTML_ESCAPES = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))


@dataclass(frozen=True, kw_only=True)
class PartHead:
    """The names in the head of a part."""

    name: str
    filename: str | None


class PartSink(Protocol):
    """Receives the bytes of one part."""

    async def write(self, data: bytes) -> None:
        """Add the next bytes."""

    async def close(self) -> None:
        """End the part."""


class _EventKind(Enum):
    HEAD = auto()
    DATA = auto()
    END = auto()


_Event = tuple[_EventKind, Any]
OpenSink = Callable[[PartHead], Coroutine[Any, Any, PartSink | None]]


def parse_boundary(content_type: str | None) -> bytes:
    """The boundary in a `Content-Type` header.

    Raises:
        InputError: it is not a multipart form, or has no boundary.
    """
    media_type, _, parameters = (content_type or "").partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        raise InputError("The body must be multipart/form-data.")
    boundary = _parse_parameters(";" + parameters).get("boundary", "")
    if not boundary:
        raise InputError(f"The Content-Type multipart/form-data lacks its boundary; {_LEAVE_IT}.")
    try:
        return boundary.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InputError("The boundary in Content-Type has characters outside Latin-1; use letters and digits.") from error


async def read_parts(chunks: AsyncIterable[bytes], boundary: bytes, open_sink: OpenSink) -> None:
    """Read a multipart message; the bytes of each part go to the sink that `open_sink` returns for it, if any.

    Raises:
        InputError: the message is malformed or cut off.
        LimitExceededError: it has too many parts.
    """
    reader = _Reader(boundary)
    sink: PartSink | None = None
    async for chunk in chunks:
        for kind, value in reader.feed(chunk):
            if kind is _EventKind.HEAD:
                sink = await open_sink(value)
            elif kind is _EventKind.DATA and sink is not None:
                await sink.write(value)
            elif kind is _EventKind.END and sink is not None:
                await sink.close()
                sink = None
    if reader.found_nothing:
        raise InputError(_OTHER_BODY)
    if not reader.ended:
        raise InputError("The multipart body is cut off before its closing boundary; send it again.")


class _Reader:
    """Turns the parser's callbacks into events, so that sinks may be asynchronous."""

    def __init__(self, boundary: bytes) -> None:
        self.ended = False
        self._events: list[_Event] = []
        self._parts = 0
        self._field = b""
        self._value = b""
        self._disposition: bytes | None = None
        self._delimiter = b"\n--" + boundary
        # Bytes before the first boundary are ignored (RFC 2046, 5.1.1). The boundary may be the first line.
        self._preamble: bytearray | None = bytearray(b"\n")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_size=_PART_HEADER_BYTES_LIMIT,
            )
        except FormParserError as error:
            raise InputError("The boundary in Content-Type is too long; use one of at most 70 characters.") from error

    @property
    def found_nothing(self) -> bool:
        """Whether there were bytes, but no boundary."""
        return self._preamble is not None and self._preamble != b"\n"

    def feed(self, data: bytes) -> list[_Event]:
        data = self._without_preamble(data)
        if not data:
            return []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InputError(_OTHER_BODY) from error
        events, self._events = self._events, []
        return events

    def _without_preamble(self, data: bytes) -> bytes:
        if self._preamble is None:
            return data
        self._preamble += data
        begin = 0
        while (found := self._preamble.find(self._delimiter, begin)) >= 0:
            end = found + len(self._delimiter)
            if end == len(self._preamble):
                begin = found
                break
            if self._preamble[end] in _AFTER_BOUNDARY:
                rest, self._preamble = bytes(self._preamble[found + 1 :]), None
                return rest
            begin = end
        del self._preamble[: max(begin, len(self._preamble) - len(self._delimiter))]
        return b""

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise LimitExceededError(f"The request has more than {PARTS_LIMIT} parts; send fewer.")
        self._disposition = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        self._events.append((_EventKind.HEAD, parse_part_head(self._disposition)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append((_EventKind.DATA, data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append((_EventKind.END, None))

    def _on_end(self) -> None:
        self.ended = True


def parse_part_head(disposition: bytes | None) -> PartHead:
    """The head of a part from its `Content-Disposition`.

    Raises:
        InputError: the header or the name is missing, or the name is not UTF-8.
    """
    if disposition is None:
        raise InputError(f"A part of the form lacks its Content-Disposition header; {_NAME_IT}.")
    try:
        text = disposition.decode("utf-8")
    except UnicodeDecodeError:
        # The name of a file is only shown. The name of a part matters: a lone surrogate in it is refused below.
        text = disposition.decode("utf-8", errors="surrogateescape")
    kind, separator, rest = text.partition(";")
    parameters = _parse_parameters(separator + rest)
    name = parameters.get("name")
    if kind.strip().lower() != "form-data" or name is None:
        raise InputError(f"A part of the form lacks its name; {_NAME_IT}.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("The name of a part is not UTF-8; encode it as UTF-8.") from error
    filename = parameters.get("filename")
    if filename is not None:
        filename = filename.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return PartHead(name=name, filename=filename)


def _parse_parameters(text: str) -> dict[str, str]:
    """The parameters of a header; an extended one (`filename*=UTF-8''…`) wins over the plain one."""
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    # Every client sends a few; thousands would take quadratic time.
    for match in islice(_PARAMETER.finditer(text), _PARAMETERS_LIMIT):
        key, quoted, bare = match[1].lower(), match[2], match[3]
        value = _unescape(quoted) if quoted is not None else (bare or "").strip()
        if key.endswith("*"):
            decoded = _decode_extended(value)
            if decoded is not None:
                extended.setdefault(key[:-1], decoded)
        else:
            plain.setdefault(key, value)
    return plain | extended


def _unescape(quoted: str) -> str:
    text = re.sub(r'\\(["\\])', r"\1", quoted)
    for escape, character in _HTML_ESCAPES:
        text = text.replace(escape, character)
    return text


def _decode_extended(value: str) -> str | None:
    charset, _, rest = value.partition("'")
    _, _, encoded = rest.partition("'")
    if charset.lower() not in _EXTENDED_CHARSETS:
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeDecodeError:
        return None
