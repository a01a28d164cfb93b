"""The images in a tar, plain or compressed by gzip or bzip2, read once from start to end and without trusting what it claims.

Names of members appear in messages and are never used as paths. Links, devices and sparse files are skipped.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from ocelli_storage.archives import (
    EXAMPLE_KINDS,
    MEGABYTE,
    SIGNATURE_BYTES,
    ArchiveError,
    ArchiveFault,
    ArchiveImage,
    ArchiveLimits,
    EntryFault,
    SkippedEntry,
    image_kind,
)
from ocelli_storage.zip_directory import is_hidden

_BLOCK_BYTES = 512
_MAGIC = slice(257, 262)
TAR_HEAD_BYTES = _BLOCK_BYTES
_NAME_BYTES_LIMIT = 64 * 1024
_CHUNK_BYTES = MEGABYTE
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_BZIP2_WORK_PER_BYTE = 8
"""As for zips: bzip2 is so much slower."""
_FILES = (b"0", b"\0", b"7")
_LONG_NAME, _PAX, _PAX_FOR_ALL = b"L", b"x", b"g"
_LINKS = (b"1", b"2")
_FOLDER = b"5"
# Raised by the decompressors when their bytes are not valid.
_MALFORMED = (ValueError, OSError, EOFError, zlib.error)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 512, if it has them) is a tar, or compressed as tars are."""
    return head[_MAGIC] == b"ustar" or head.startswith((_GZIP, _BZIP2, _XZ, _ZSTD))


class ImageTar(AbstractContextManager["ImageTar"]):
    """The images of one tar, in its order. Iterate once."""

    def __init__(self, path: Path, *, limits: ArchiveLimits) -> None:
        """Open the file.

        Raises:
            ArchiveError: it is compressed by another method.
            OSError: it cannot be read.
        """
        self._limits = limits
        self._file = path.open("rb")
        self._size_bytes = path.stat().st_size
        self._entries = 0
        self._read_bytes = 0
        self._work_per_byte = 1
        head = self._file.read(8)
        self._file.seek(0)
        self._data: IO[bytes] = self._file
        if head.startswith(_GZIP):
            self._data = cast(IO[bytes], gzip.GzipFile(fileobj=self._file))
        elif head.startswith(_BZIP2):
            self._data = bz2.BZ2File(self._file)
            self._work_per_byte = _BZIP2_WORK_PER_BYTE
        elif head.startswith((_XZ, _ZSTD)):
            self._file.close()
            method = "xz" if head.startswith(_XZ) else "zstd"
            fact = f"the file is compressed by {method}, which is not supported; compress the tar with gzip"
            raise ArchiveError(ArchiveFault.NOT_A_ZIP, fact)

    @property
    def candidates(self) -> int:
        """The number of members, estimated from how much of the file was read: a tar has no directory."""
        position = max(1, self._file.tell())
        return max(self._entries, round(self._entries * self._size_bytes / position), 1)

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the members in order.

        Raises:
            ArchiveError: the tar is refused as a whole. It can be raised after any number of members.
        """
        images = 0
        try:
            for item in self._read_members():
                if isinstance(item, ArchiveImage):
                    images += 1
                    if images > self._limits.images:
                        message = f"the tar has more than {self._limits.images} images; split it into several tars"
                        raise ArchiveError(ArchiveFault.TOO_MANY_IMAGES, message)
                yield item
        except _MALFORMED as error:
            raise ArchiveError(ArchiveFault.DAMAGED, "the tar is cut off or damaged; create it again and send it") from error
        if not self._entries:
            raise ArchiveError(ArchiveFault.EMPTY, "the tar contains no files; add images to it")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _read_members(self) -> Iterator[ArchiveImage | SkippedEntry]:
        long_name, members = "", 0
        while (member := self._read_header()) is not None:
            members += 1
            if members > self._limits.entries:
                message = f"the tar has more than {self._limits.entries} members; split it into several tars"
                raise ArchiveError(ArchiveFault.TOO_MANY_ENTRIES, message)
            if member.kind in (_LONG_NAME, _PAX):
                text = self._read_exactly(min(member.size_bytes, _NAME_BYTES_LIMIT))
                self._skip(member.padded_bytes - len(text))
                long_name = _parse_pax_path(text) if member.kind == _PAX else text.rstrip(b"\0").decode(errors="replace")
                continue
            name, long_name = long_name or member.name, "" if member.kind != _PAX_FOR_ALL else long_name
            if member.kind in (_FOLDER, _PAX_FOR_ALL) or is_hidden(name) or (member.kind in _FILES and not member.size_bytes):
                self._skip(member.padded_bytes)
                continue
            self._entries += 1
            yield self._read_file(name, member)

    def _read_file(self, name: str, member: _Member) -> ArchiveImage | SkippedEntry:
        fault = None
        if member.kind in _LINKS:
            fault = EntryFault.SYMBOLIC_LINK
        elif member.kind not in _FILES:
            fault = EntryFault.NOT_AN_IMAGE
        elif member.size_bytes > self._limits.image_bytes:
            fault = EntryFault.TOO_LARGE
        if fault is not None:
            self._skip(member.padded_bytes if member.kind not in _LINKS else 0)
            return SkippedEntry(name=name, fault=fault)
        data = self._read_exactly(member.size_bytes)
        self._skip(member.padded_bytes - member.size_bytes)
        kind = image_kind(data[:SIGNATURE_BYTES])
        if kind is None or kind not in EXAMPLE_KINDS:
            return SkippedEntry(name=name, fault=EntryFault.NOT_AN_IMAGE)
        return ArchiveImage(name=name, kind=kind, data=data)

    def _read_header(self) -> _Member | None:
        """The next member; None at the end, which is a block of zeros. Raises one of `_MALFORMED`."""
        block = self._read(_BLOCK_BYTES)
        # Some tools leave out the blocks at the end.
        if not block.strip(b"\0"):
            return None
        if len(block) < _BLOCK_BYTES:
            raise EOFError
        return _parse_header(block)

    def _read_exactly(self, size_bytes: int) -> bytes:
        data = self._read(size_bytes)
        if len(data) < size_bytes:
            raise EOFError
        return data

    def _read(self, size_bytes: int) -> bytes:
        self._read_bytes += size_bytes * self._work_per_byte
        if self._read_bytes > self._limits.inflated_bytes:
            limit = self._limits.inflated_bytes // MEGABYTE
            message = f"the tar inflates to more than {limit} MB in total; send fewer or smaller images"
            raise ArchiveError(ArchiveFault.TOO_MUCH_DATA, message)
        return self._data.read(size_bytes)

    def _skip(self, size_bytes: int) -> None:
        while size_bytes > 0:
            size_bytes -= len(self._read_exactly(min(size_bytes, _CHUNK_BYTES)))


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    kind: bytes
    size_bytes: int

    @property
    def padded_bytes(self) -> int:
        return -(-self.size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _parse_header(block: bytes) -> _Member:
    """A header by POSIX.1-1988 (ustar) and GNU's extensions. Raises ValueError if it is not one."""
    # The checksum counts its own eight bytes as spaces.
    if int(block[148:156].strip(b" \0") or b"0", 8) != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise ValueError("not a header")
    field = block[124:136]
    # GNU: a large number in binary, marked by its first bit.
    size = int.from_bytes(field[1:], "big") if field[0] & 0x80 else int(field.strip(b" \0") or b"0", 8)
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    if prefix and block[257:265] == b"ustar\x0000":
        name = prefix + b"/" + name
    return _Member(name=name.decode(errors="replace"), kind=block[156:157], size_bytes=size)


def _parse_pax_path(text: bytes) -> str:
    """The `path` of a pax header, whose records are `LENGTH KEY=VALUE` and a line break; empty if it has none."""
    position = 0
    while position < len(text):
        length, space, _ = text[position:].partition(b" ")
        if not space or not length.isdigit() or int(length) <= len(length) + 1:
            return ""
        key, _, value = text[position + len(length) + 1 : position + int(length)].rstrip(b"\n").partition(b"=")
        if key == b"path":
            return value.decode(errors="replace")
        position += int(length)
    return ""
