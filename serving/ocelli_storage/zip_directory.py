"""The directory of a zip: its end, and its entries (APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16).

`zipfile` is not used: it stops at the first name that it cannot decode, and does not detect entries that overlap. This module
only reads numbers and names; whether a zip is accepted is decided in `archives`.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import IO, NamedTuple

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LOCAL_SIGNATURE = b"PK\x03\x04"
IN_64 = 0xFFFFFFFF
"""Marks a number that has 64 bits and is stored elsewhere."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_END_SIGNATURE, _END_64_SIGNATURE, _LOCATOR_64_SIGNATURE = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY_SIGNATURE = b"PK\x01\x02"
_COMMENT_BYTES = 0xFFFF
_EXTRA_64 = 1
_UTF8_NAME_FLAG = 0x800


class ZipEntry(NamedTuple):
    """One entry, as the directory lists it."""

    name: str
    hidden: bool
    """See `is_hidden`."""
    offset: int
    """Of its local header in the file."""
    least_end: int
    """The entry ends here or later: its local header may be longer."""
    method: int
    flags: int
    checksum: int
    compressed_bytes: int
    size_bytes: int
    is_link: bool


@dataclass(frozen=True, kw_only=True)
class DirectoryEnd:
    """The record that follows the directory of a zip."""

    position: int
    """Where the directory ends in the file."""
    directory_bytes: int
    directory_offset: int
    """Where the directory begins, according to the zip."""


def is_hidden(name: str) -> bool:
    """Whether a file of this name (with its folders) is one that file managers leave behind; no message mentions these."""
    parts = name.replace("\\", "/").split("/")
    base = parts[-1]
    return not base or "__MACOSX" in parts[:-1] or base.startswith(".") or base.casefold() in ("thumbs.db", "desktop.ini")


def find_directory_end(file: IO[bytes]) -> DirectoryEnd | None:
    """The end of the zip in a seekable file; None if there is none."""
    size = file.seek(0, 2)
    tail_start = max(0, size - _END.size - _COMMENT_BYTES)
    file.seek(tail_start)
    tail = file.read()
    places: list[int] = []
    found = len(tail) - _END.size + 1
    while (found := tail.rfind(_END_SIGNATURE, 0, max(0, found + len(_END_SIGNATURE) - 1))) >= 0:
        places.append(found)
    if not places:
        return None
    # The comment after the record may contain the signature too: the record is the one whose comment ends with the file.
    found = next((place for place in places if place + _END.size + _END.unpack_from(tail, place)[-1] == len(tail)), places[0])
    position = tail_start + found
    *_, directory_bytes, offset, _ = _END.unpack_from(tail, found)
    start_64 = position - _LOCATOR_64.size - _END_64.size
    if start_64 >= 0:
        file.seek(start_64)
        record = file.read(_END_64.size + _LOCATOR_64.size)
        if record[_END_64.size :].startswith(_LOCATOR_64_SIGNATURE) and record.startswith(_END_64_SIGNATURE):
            *_, directory_bytes, offset = _END_64.unpack_from(record)
            position = start_64
    return DirectoryEnd(position=position, directory_bytes=directory_bytes, directory_offset=offset)


def parse_entry(directory: bytes, position: int, shift: int) -> tuple[ZipEntry, int]:
    """The entry at a position of a directory, and the position after it.

    `shift` is the number of bytes before the zip in its file. Raises ValueError, OverflowError or struct.error where the
    directory is damaged.
    """
    values = _DIRECTORY_ENTRY.unpack_from(directory, position)
    signature, flags, method, checksum = values[0], values[3], values[4], values[7]
    compressed, size, name_bytes, extra_bytes, comment_bytes = values[8:13]
    attributes, offset = values[15], values[16]
    name_start = position + _DIRECTORY_ENTRY.size
    extra_start = name_start + name_bytes
    end = extra_start + extra_bytes + comment_bytes
    if signature != _ENTRY_SIGNATURE or end > len(directory):
        raise ValueError("not an entry")
    if IN_64 in (compressed, size, offset):
        size, compressed, offset = _in_64(directory[extra_start : extra_start + extra_bytes], size, compressed, offset)
    name, path = _decode_name(directory[name_start:extra_start], flags)
    offset += shift
    entry = ZipEntry(
        name=name,
        hidden=is_hidden(path),
        offset=offset,
        least_end=offset + LOCAL_HEADER.size + name_bytes + compressed,
        method=method,
        flags=flags,
        checksum=checksum,
        compressed_bytes=compressed,
        size_bytes=size,
        is_link=stat.S_ISLNK(attributes >> 16),
    )
    return entry, end


def _in_64(extra: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers, with those that need 64 bits read from the entry's extra field."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if tag == _EXTRA_64:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            size, compressed, offset = (next(numbers, IN_64) if old == IN_64 else old for old in (size, compressed, offset))
            break
        position += length
    return size, compressed, offset


def _decode_name(raw: bytes, flags: int) -> tuple[str, str]:
    """The name that messages show, and the path by which `is_hidden` decides.

    Macs write UTF-8 without setting the flag; other programs set the flag and write something else. If the name is not UTF-8,
    its encoding is unknown. A byte that looks like a backslash may then be half a letter (Shift JIS, Big5), so it does not
    separate folders.
    """
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", errors="replace") if flags & _UTF8_NAME_FLAG else raw.decode("cp437")
        return name, name.replace("\\", "_")
    return name, name
