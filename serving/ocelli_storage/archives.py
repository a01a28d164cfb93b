"""The zip rules: which entries of a zip are images, and how they are read without trusting anything that the zip claims.

Used for example sets (gateway and trainer) and for zips of images to classify. It knows signatures, not pixels: whether an
image can be decoded is for others to find out. Names of entries are shown to people and never used as paths.
"""

from __future__ import annotations

import bz2
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Protocol

MEGABYTE = 1024 * 1024
IMAGE_BYTES_LIMIT = 10 * MEGABYTE
IMAGES_LIMIT = 10_000
SHOWN_NAME_LIMIT = 120


class ImageKind(StrEnum):
    """The kinds of images that Ocelli reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    TIFF = "TIFF"


EXAMPLE_KINDS = frozenset({ImageKind.JPEG, ImageKind.PNG})
"""Kinds that can be learned from."""
CLASSIFY_KINDS = frozenset(ImageKind)
"""Kinds that can be classified."""

_SIGNATURES = (
    (b"\xff\xd8\xff", ImageKind.JPEG),
    (b"\x89PNG\r\n\x1a\n", ImageKind.PNG),
    (b"GIF87a", ImageKind.GIF),
    (b"GIF89a", ImageKind.GIF),
    (b"II*\0", ImageKind.TIFF),
    (b"MM\0*", ImageKind.TIFF),
    (b"II+\0", ImageKind.TIFF),
    (b"MM\0+", ImageKind.TIFF),
)
SIGNATURE_BYTES = 8
"""So many leading bytes of a file tell what kind of image it is."""

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_CHUNK_BYTES = 256 * 1024
# Structures of a zip (APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16). The directory is read here and not by `zipfile`, which
# gives up at the first name that it cannot decode and does not see that entries overlap.
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_SIGNATURE, _END_64_SIGNATURE, _LOCATOR_64_SIGNATURE = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY_SIGNATURE, _LOCAL_SIGNATURE = b"PK\x01\x02", b"PK\x03\x04"
_COMMENT_BYTES = 0xFFFF
_IN_64 = 0xFFFFFFFF
"""Stands where a number has 64 bits and is elsewhere."""
_EXTRA_64 = 1
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW_FLAG = 0x8
_UTF8_NAME_FLAG = 0x800
_EMPTY_BYTES = 14
"""What nothing takes at most, compressed: by bzip2."""
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_BZIP2_BLOCK_BYTES = 900_000
"""The largest block: less than it inflates nothing, whatever is asked for."""
_INFLATING_WORK = {_STORED: 1, _DEFLATED: 1, _BZIP2: 8}
"""The methods that are read, with how much more work a byte is."""
_METHOD_NAMES = {
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
# What is raised over bytes that are no valid zip.
_MALFORMED = (ValueError, OverflowError, EOFError, struct.error, zlib.error)


def image_kind(head: bytes) -> ImageKind | None:
    """The kind of image that begins with these bytes (at least `SIGNATURE_BYTES`), or None where Ocelli reads no such kind."""
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least four) claims to be a zip."""
    return head.startswith(_ZIP_SIGNATURES)


def is_zip_file(file: IO[bytes]) -> bool:
    """Whether a seekable file is a zip, by its first bytes or behind something else, such as a program that unpacks it."""
    file.seek(0)
    head = file.read(SIGNATURE_BYTES)
    if image_kind(head) is not None:
        return False
    return is_zip(head) or _find_end(file) is not None


def is_hidden(name: str) -> bool:
    """Whether a file of this name (with its folders) is one that file managers leave behind: no message names it."""
    parts = name.replace("\\", "/").split("/")
    base = parts[-1]
    return not base or "__MACOSX" in parts[:-1] or base.startswith(".") or base.casefold() in ("thumbs.db", "desktop.ini")


def shown_name(name: str, limit: int = SHOWN_NAME_LIMIT) -> str:
    """The name as messages show it: no control characters, at most `limit` characters."""
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    if len(printable) <= limit:
        return printable
    return f"{printable[: limit // 2]}…{printable[1 - limit // 2 :]}"


class ArchiveFault(StrEnum):
    """Why a zip as a whole is refused."""

    NOT_A_ZIP = "NotAZip"
    DAMAGED = "Damaged"
    """It is cut off, or its directory is broken."""
    ENCRYPTED = "Encrypted"
    EMPTY = "Empty"
    """It holds no file besides those that are passed over without a word."""
    TOO_MANY_ENTRIES = "TooManyEntries"
    """Its directory is larger than any honest zip of so many images needs."""
    TOO_MANY_IMAGES = "TooManyImages"
    TOO_MUCH_DATA = "TooMuchData"
    """Its entries inflate to more than the limit for a whole zip: a bomb."""
    OVERLAPPING = "Overlapping"
    """Several of its entries are the same bytes: a small zip of this kind inflates to petabytes, and no tool makes one."""


class ArchiveError(Exception):
    """A zip is refused as a whole. The message says fact and remedy and leaves the name of the zip to the caller."""

    def __init__(self, fault: ArchiveFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class EntryFault(StrEnum):
    """Why one entry of a zip, or one file of a folder, is skipped."""

    NOT_AN_IMAGE = "NotAnImage"
    """Its bytes are of no kind that is asked for."""
    TOO_LARGE = "TooLarge"
    """It has more bytes than an image may have."""
    DAMAGED = "Damaged"
    """It cannot be inflated, its checksum is wrong, or it has another size than it claims."""
    UNSUPPORTED_COMPRESSION = "UnsupportedCompression"
    """It is compressed by another method than deflate and bzip2; those need memory without bound, or readers of their own."""
    SYMBOLIC_LINK = "SymbolicLink"


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Bounds of the work that one zip may cause."""

    image_bytes: int = IMAGE_BYTES_LIMIT
    """Inflating an entry stops here."""
    images: int = IMAGES_LIMIT
    entries: int = 50_000
    """All entries, those that are passed over too (a Mac doubles the number)."""
    directory_bytes: int = 8 * MEGABYTE
    """Size of the zip's directory: each of its entries costs memory before the first can be looked at."""
    inflated_bytes: int = 2048 * MEGABYTE
    """All that is inflated of one zip; what bzip2 inflates counts eightfold, as it takes so much longer."""


CLASSIFY_LIMITS = ArchiveLimits(entries=2_000, directory_bytes=MEGABYTE)
"""Of a zip to classify the first few images count: what it costs to find them is bounded more closely."""


@dataclass(frozen=True, kw_only=True)
class ArchiveImage:
    """One entry that has the signature of an image."""

    name: str
    """As the zip has it, folders included; any text, unique or not."""
    kind: ImageKind
    data: bytes


@dataclass(frozen=True, kw_only=True)
class SkippedEntry:
    """One entry that should have been an image and is not usable."""

    name: str
    fault: EntryFault
    method: str = ""
    """The name of the compression, where it is not supported."""


class _Entry(NamedTuple):
    """One entry, as the directory has it."""

    name: str
    hidden: bool
    offset: int
    """Of its local header in the file."""
    least_end: int
    """It ends here, or later: its local header may be longer."""
    method: int
    flags: int
    checksum: int
    compressed_bytes: int
    size_bytes: int
    is_link: bool


class ImageArchive(AbstractContextManager["ImageArchive"]):
    """The images of one zip, in the order of its directory. One thread at a time.

    Iterating yields an `ArchiveImage` or a `SkippedEntry` for every entry that is not hidden; each is read only when its turn
    comes and forgotten after it. Iterating may be repeated; the limit on inflated bytes holds for all together.
    """

    def __init__(self, file: Path | IO[bytes], *, kinds: frozenset[ImageKind], limits: ArchiveLimits | None = None) -> None:
        """Read the directory of the zip at a path, or in a seekable binary file (which is left open).

        Raises:
            ArchiveError: the zip is refused as a whole.
            OSError: the file cannot be read.
        """
        self._kinds = kinds
        self._limits = limits or ArchiveLimits()
        self._inflated_bytes = 0
        self._resources = ExitStack()
        try:
            self._file = self._resources.enter_context(file.open("rb")) if isinstance(file, Path) else file
            entries, directory_offset = self._open()
            self._ends = _check_overlaps(entries, directory_offset)
            self._candidates = [entry for entry in entries if not entry.hidden and not _is_empty(entry)]
            self._check_candidates()
        except BaseException:
            self.close()
            raise

    @property
    def candidates(self) -> int:
        """The number of entries that are not hidden: what iterating yields."""
        return len(self._candidates)

    def candidate_names(self, count: int) -> list[str]:
        """The names of the first entries that are not hidden."""
        return [entry.name for entry in self._candidates[:count]]

    @property
    def inflating_work(self) -> int:
        """What has been inflated, as `ArchiveLimits.inflated_bytes` counts it."""
        return self._inflated_bytes

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the entries one after the other.

        Raises:
            ArchiveError: the zip is refused as a whole; it may come after any number of entries.
        """
        return self.read_from(0)

    def read_from(self, position: int, *, images: int = 0, inflating_work: int = 0) -> Iterator[ArchiveImage | SkippedEntry]:
        """The same for those behind so many entries that were read before: with so many images, for so much work."""
        self._inflated_bytes += inflating_work
        for entry in self._candidates[position:]:
            item = self._read(entry)
            if isinstance(item, ArchiveImage):
                images += 1
                if images > self._limits.images:
                    message = f"the zip has more than {self._limits.images} images; split it into several"
                    raise ArchiveError(ArchiveFault.TOO_MANY_IMAGES, message)
            yield item

    def close(self) -> None:
        """Close what was opened here."""
        self._resources.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _open(self) -> tuple[list[_Entry], int]:
        """The entries, and where the directory begins."""
        self._file.seek(0)
        head = self._file.read(4)
        if not head:
            raise ArchiveError(ArchiveFault.EMPTY, "the file is empty; send the images packed as one .zip")
        end = _find_end(self._file)
        if end is None:
            if is_zip(head):
                raise _damaged("its end is missing")
            raise ArchiveError(ArchiveFault.NOT_A_ZIP, "the file is not a zip; send the images packed as one .zip")
        try:
            return self._read_directory(end)
        except _MALFORMED as error:
            raise _damaged("its list of files is broken") from error

    def _read_directory(self, end: _DirectoryEnd) -> tuple[list[_Entry], int]:
        start = end.position - end.directory_bytes
        shift = start - end.directory_offset
        """What stands before the zip."""
        if start < 0 or shift < 0:
            raise ValueError("the directory lies outside")
        if end.directory_bytes > self._limits.directory_bytes:
            fact = f"the zip's list of files has {end.directory_bytes} bytes and may have {self._limits.directory_bytes}"
            raise _too_many_entries(fact)
        self._file.seek(start)
        directory = self._file.read(end.directory_bytes)
        entries: list[_Entry] = []
        position = 0
        while position < len(directory):
            entry, position = _parse_entry(directory, position, shift)
            entries.append(entry)
            if len(entries) > self._limits.entries:
                raise _too_many_entries(f"the zip has more than {self._limits.entries} entries")
        return entries, start

    def _check_candidates(self) -> None:
        if not self._candidates:
            raise ArchiveError(ArchiveFault.EMPTY, "the zip holds no files; put the images into it")
        encrypted = next((entry for entry in self._candidates if entry.flags & _ENCRYPTED_FLAGS), None)
        if encrypted is not None:
            name = shown_name(encrypted.name)
            raise ArchiveError(ArchiveFault.ENCRYPTED, f"the zip is encrypted ({name}); make it again without a password")

    def _read(self, entry: _Entry) -> ArchiveImage | SkippedEntry:
        if entry.is_link:
            return SkippedEntry(name=entry.name, fault=EntryFault.SYMBOLIC_LINK)
        if entry.method not in _INFLATING_WORK:
            method = _METHOD_NAMES.get(entry.method, f"method {entry.method}")
            return SkippedEntry(name=entry.name, fault=EntryFault.UNSUPPORTED_COMPRESSION, method=method)
        # A claim can only make it worse for the entry: one that claims less is stopped at the limit all the same.
        if entry.size_bytes > self._limits.image_bytes:
            return SkippedEntry(name=entry.name, fault=EntryFault.TOO_LARGE)
        try:
            return self._inflate(entry)
        except _MALFORMED:
            return SkippedEntry(name=entry.name, fault=EntryFault.DAMAGED)

    def _inflate(self, entry: _Entry) -> ArchiveImage | SkippedEntry:
        data = bytearray()
        kind: ImageKind | None = None
        for chunk in self._chunks(entry):
            data += chunk
            if len(data) > self._limits.image_bytes:
                return SkippedEntry(name=entry.name, fault=EntryFault.TOO_LARGE)
            if kind is None and len(data) >= SIGNATURE_BYTES:
                kind = image_kind(bytes(data[:SIGNATURE_BYTES]))
                if kind is None or kind not in self._kinds:
                    break
        if kind is None or kind not in self._kinds:
            return SkippedEntry(name=entry.name, fault=EntryFault.NOT_AN_IMAGE)
        if len(data) != entry.size_bytes or zlib.crc32(data) != entry.checksum:
            raise ValueError("another size or checksum than claimed")
        return ArchiveImage(name=entry.name, kind=kind, data=bytes(data))

    def _chunks(self, entry: _Entry) -> Iterator[bytes]:
        """The inflated bytes of an entry, the first few by themselves. Raises one of `_MALFORMED` where they are cut off."""
        position, end = self._find_data(entry)
        inflater = _inflater(entry.method)
        # Of bzip2 the first byte takes as long as its whole block, so a block is asked for, and one byte more than an entry
        # claims to have: then what it takes is what it claims, or the claim is seen to be a lie.
        wanted = min(entry.size_bytes + 1, _BZIP2_BLOCK_BYTES) if entry.method == _BZIP2 else SIGNATURE_BYTES
        inflated = 0
        source, exhausted = b"", False
        while not inflater.eof:
            if not source and inflater.needs_input:
                self._file.seek(position)
                source = self._file.read(min(_CHUNK_BYTES, end - position))
                position += len(source)
                exhausted = not source
            chunk, source = inflater.inflate(source, wanted)
            if exhausted and not chunk and not inflater.eof:
                raise EOFError
            inflated += len(chunk)
            lies = entry.method == _BZIP2 and inflated - len(chunk) <= entry.size_bytes < inflated
            self._count_inflated((_BZIP2_BLOCK_BYTES if lies else len(chunk)) * _INFLATING_WORK[entry.method])
            yield chunk
            wanted = _CHUNK_BYTES

    def _find_data(self, entry: _Entry) -> tuple[int, int]:
        """Where the bytes of an entry begin and end. Raises ValueError where its own header says something else."""
        self._file.seek(entry.offset)
        header = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        signature, flags, method, compressed, size, name_bytes, extra_bytes = (
            header[index] for index in (0, 2, 3, 7, 8, 9, 10)
        )
        start = entry.offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        claimed = (compressed in (0, _IN_64, entry.compressed_bytes)) and (size in (0, _IN_64, entry.size_bytes))
        if signature != _LOCAL_SIGNATURE or method != entry.method or not (claimed or flags & _SIZES_FOLLOW_FLAG):
            raise ValueError("the header of the entry differs from the directory")
        if start + entry.compressed_bytes > self._ends[entry.offset]:
            raise ValueError("the entry reaches into the next one")
        return start, start + entry.compressed_bytes

    def _count_inflated(self, count: int) -> None:
        self._inflated_bytes += count
        if self._inflated_bytes > self._limits.inflated_bytes:
            limit = self._limits.inflated_bytes // MEGABYTE
            message = f"the zip inflates to more than {limit} MB in all; send fewer or smaller images"
            raise ArchiveError(ArchiveFault.TOO_MUCH_DATA, message)


class _Inflater(Protocol):
    """Undoes one compression, never more than asked for at a time."""

    eof: bool
    needs_input: bool

    def inflate(self, source: bytes, limit_bytes: int) -> tuple[bytes, bytes]:
        """At most so many bytes, and what is left of the source."""


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
            raise ValueError("no bzip2 data") from error
        # It keeps what it has not used yet.
        self.eof, self.needs_input = self._stream.eof, self._stream.needs_input
        return data, b""


def _inflater(method: int) -> _Inflater:
    return _Stored() if method == _STORED else _Deflated() if method == _DEFLATED else _Bzip2()


@dataclass(frozen=True, kw_only=True)
class _DirectoryEnd:
    """What stands behind the directory of a zip."""

    position: int
    """Where the directory ends in the file."""
    directory_bytes: int
    directory_offset: int
    """Where the directory begins, as the zip says."""


def _find_end(file: IO[bytes]) -> _DirectoryEnd | None:
    """The end of the zip in a file, None where there is none."""
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
    # The comment behind it may hold the signature, too: the end is where the comment goes on to the end of the file.
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
    return _DirectoryEnd(position=position, directory_bytes=directory_bytes, directory_offset=offset)


def _parse_entry(directory: bytes, position: int, shift: int) -> tuple[_Entry, int]:
    """The entry at a position of a directory, and the position behind it."""
    values = _DIRECTORY_ENTRY.unpack_from(directory, position)
    signature, flags, method, checksum = values[0], values[3], values[4], values[7]
    compressed, size, name_bytes, extra_bytes, comment_bytes = values[8:13]
    attributes, offset = values[15], values[16]
    name_start = position + _DIRECTORY_ENTRY.size
    extra_start = name_start + name_bytes
    end = extra_start + extra_bytes + comment_bytes
    if signature != _ENTRY_SIGNATURE or end > len(directory):
        raise ValueError("no entry")
    if _IN_64 in (compressed, size, offset):
        size, compressed, offset = _in_64(directory[extra_start : extra_start + extra_bytes], size, compressed, offset)
    raw = directory[name_start:extra_start]
    name, told_by = _decode_name(raw, flags)
    offset += shift
    entry = _Entry(
        name=name,
        hidden=is_hidden(told_by),
        offset=offset,
        least_end=offset + _LOCAL_HEADER.size + name_bytes + compressed,
        method=method,
        flags=flags,
        checksum=checksum,
        compressed_bytes=compressed,
        size_bytes=size,
        is_link=stat.S_ISLNK(attributes >> 16),
    )
    return entry, end


def _in_64(extra: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """The numbers in the extra field of an entry, in the place of those that did not fit."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if tag == _EXTRA_64:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            size, compressed, offset = (next(numbers, _IN_64) if old == _IN_64 else old for old in (size, compressed, offset))
            break
        position += length
    return size, compressed, offset


def _decode_name(raw: bytes, flags: int) -> tuple[str, str]:
    """The name as people see it, and the one that tells whether it is hidden.

    Macs write UTF-8 without saying so, others say so and don't. Where it is neither, nobody says what it is: then a byte that
    looks like a backslash may be half of a letter (Shift JIS, Big5) and parts no folders.
    """
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", errors="replace") if flags & _UTF8_NAME_FLAG else raw.decode("cp437")
        return name, name.replace("\\", "_")
    return name, name


def _is_empty(entry: _Entry) -> bool:
    return not entry.size_bytes and entry.compressed_bytes <= _EMPTY_BYTES


def _check_overlaps(entries: list[_Entry], directory_offset: int) -> dict[int, int]:
    """Where at the latest the entries end, by their offsets. Raises ArchiveError where some have bytes in common."""
    ordered = sorted(entries, key=attrgetter("offset"))
    for first, second in pairwise(ordered):
        if first.least_end > second.offset:
            names = f"{shown_name(first.name)} and {shown_name(second.name)}"
            message = f"the zip has entries that overlap ({names}); make the zip again"
            raise ArchiveError(ArchiveFault.OVERLAPPING, message)
    if ordered and ordered[-1].least_end > directory_offset:
        raise _damaged(f"the entry {shown_name(ordered[-1].name)} is longer than the zip")
    ends = [*(entry.offset for entry in ordered[1:]), directory_offset]
    return {entry.offset: end for entry, end in zip(ordered, ends, strict=False)}


def _damaged(fact: str) -> ArchiveError:
    return ArchiveError(ArchiveFault.DAMAGED, f"the zip is cut off or damaged ({fact}); make and send it again")


def _too_many_entries(fact: str) -> ArchiveError:
    return ArchiveError(ArchiveFault.TOO_MANY_ENTRIES, f"{fact}; split it into several")
