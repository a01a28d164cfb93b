"""Undoes the compression of one entry of a zip, never more than a given number of bytes at a time."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

STORED, DEFLATED, BZIP2 = 0, 8, 12
BZIP2_BLOCK_BYTES = 900_000
"""The largest block. bzip2 always inflates a whole block, also for a few bytes."""
WORK_PER_BYTE = {STORED: 1, DEFLATED: 1, BZIP2: 8}
"""The supported methods, and how much work an inflated byte is compared with deflate."""
METHOD_NAMES = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    10: "PKWARE DCL Implode",
    14: "LZMA",
    16: "CMPSC",
    18: "TERSE",
    19: "LZ77",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES encryption",
}


class Inflater(Protocol):
    """Undoes the compression of one entry."""

    eof: bool
    needs_input: bool

    def inflate(self, source: bytes, limit_bytes: int) -> tuple[bytes, bytes]:
        """At most `limit_bytes` inflated bytes, and the rest of the source. Raises ValueError or zlib.error."""


class _Stored:
    def __init__(self) -> None:
        self.eof, self.needs_input = False, True

    def inflate(self, source: bytes, limit_bytes: int) -> tuple[bytes, bytes]:
        self.eof = not source
        return source[:limit_bytes], source[limit_bytes:]


class _Deflated:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self.eof, self.needs_input = False, True

    def inflate(self, source: bytes, limit_bytes: int) -> tuple[bytes, bytes]:
        data = self._stream.decompress(source, limit_bytes)
        self.eof = self._stream.eof
        return data, self._stream.unconsumed_tail


class _Bzip2:
    def __init__(self) -> None:
        self._stream = bz2.BZ2Decompressor()
        self.eof, self.needs_input = False, True

    def inflate(self, source: bytes, limit_bytes: int) -> tuple[bytes, bytes]:
        try:
            data = self._stream.decompress(source, limit_bytes)
        except OSError as error:
            raise ValueError("not bzip2 data") from error
        # It keeps the input that it has not used yet.
        self.eof, self.needs_input = self._stream.eof, self._stream.needs_input
        return data, b""


def open_inflater(method: int) -> Inflater:
    """The inflater for one of the supported methods."""
    return _INFLATERS[method]()


_INFLATERS: Mapping[int, Callable[[], Inflater]] = {STORED: _Stored, DEFLATED: _Deflated, BZIP2: _Bzip2}
