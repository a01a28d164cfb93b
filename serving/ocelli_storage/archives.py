"""The zip rules: which entries of a zip are images, and how they are read without trusting what the zip claims.

Used for example sets (gateway and trainer) and for zips of images to classify. This module knows signatures, not pixels:
whether an image can be decoded is decided elsewhere. Names of entries appear in messages and are never used as paths.
"""

from __future__ import annotations

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
from typing import IO

from ocelli_storage.inflating import BZIP2, BZIP2_BLOCK_BYTES, METHOD_NAMES, WORK_PER_BYTE, open_inflater
from ocelli_storage.zip_directory import (
    IN_64,
    LOCAL_HEADER,
    LOCAL_SIGNATURE,
    DirectoryEnd,
    ZipEntry,
    find_directory_end,
    parse_entry,
)

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
"""Kinds that can be used for training."""
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
"""The number of leading bytes that identify the kind of an image."""

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_CHUNK_BYTES = 256 * 1024
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW_FLAG = 0x8
_EMPTY_BYTES = 14
"""The most that an empty file takes when compressed (by bzip2)."""
# Raised when the bytes are not a valid zip.
_MALFORMED = (ValueError, OverflowError, EOFError, struct.error, zlib.error)


def image_kind(head: bytes) -> ImageKind | None:
    """The kind of image that begins with these bytes (at least `SIGNATURE_BYTES`), or None if Ocelli does not read it."""
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least four) claims to be a zip."""
    return head.startswith(_ZIP_SIGNATURES)


def is_zip_file(file: IO[bytes]) -> bool:
    """Whether a seekable file is a zip, also after leading data such as a self-extracting program."""
    file.seek(0)
    head = file.read(SIGNATURE_BYTES)
    if image_kind(head) is not None:
        return False
    return is_zip(head) or find_directory_end(file) is not None


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
    """It has no files except hidden ones, see `is_hidden`."""
    TOO_MANY_ENTRIES = "TooManyEntries"
    """Its directory is larger than a zip with the maximum number of images needs."""
    TOO_MANY_IMAGES = "TooManyImages"
    TOO_MUCH_DATA = "TooMuchData"
    """Its entries inflate to more than the limit for a whole zip: a zip bomb."""
    OVERLAPPING = "Overlapping"
    """Several of its entries share bytes. A small zip of this kind can inflate to petabytes, and no tool creates one."""


class ArchiveError(Exception):
    """A zip is refused as a whole. The message has fact and remedy; the caller adds the name of the zip."""

    def __init__(self, fault: ArchiveFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class EntryFault(StrEnum):
    """Why one entry of a zip, or one file of a folder, is skipped."""

    NOT_AN_IMAGE = "NotAnImage"
    """Its bytes are not an image of an accepted kind."""
    TOO_LARGE = "TooLarge"
    """It has more bytes than the limit for an image."""
    DAMAGED = "Damaged"
    """It cannot be inflated, or its size or checksum differs from the directory."""
    UNSUPPORTED_COMPRESSION = "UnsupportedCompression"
    """Its compression is neither deflate nor bzip2. Other methods need unbounded memory or additional libraries."""
    SYMBOLIC_LINK = "SymbolicLink"


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Limits on the work that one zip can cause."""

    image_bytes: int = IMAGE_BYTES_LIMIT
    """Inflating an entry stops here."""
    images: int = IMAGES_LIMIT
    entries: int = 50_000
    """All entries, including hidden ones (a Mac doubles the number)."""
    directory_bytes: int = 8 * MEGABYTE
    """Size of the zip's directory. Each of its entries takes memory before the first one can be read."""
    inflated_bytes: int = 2048 * MEGABYTE
    """Total size of everything inflated from one zip. bzip2 data counts eightfold because it is so much slower."""


CLASSIFY_LIMITS = ArchiveLimits(entries=2_000, directory_bytes=MEGABYTE)
"""For a zip to classify. Only its first images are used, so finding them must be cheap."""


@dataclass(frozen=True, kw_only=True)
class ArchiveImage:
    """One entry that has the signature of an image."""

    name: str
    """As in the zip, with folders. It may be any text, and is not necessarily unique."""
    kind: ImageKind
    data: bytes


@dataclass(frozen=True, kw_only=True)
class SkippedEntry:
    """One entry that is not a usable image."""

    name: str
    fault: EntryFault
    method: str = ""
    """The name of the compression method if it is not supported."""


class ImageArchive(AbstractContextManager["ImageArchive"]):
    """The images of one zip, in the order of its directory. One thread at a time.

    Iterating yields an `ArchiveImage` or a `SkippedEntry` for every entry that is not hidden; each is read only when its turn
    comes and is not kept. Iterating may be repeated; the limit on inflated bytes applies to all iterations together.
    """

    def __init__(self, file: Path | IO[bytes], *, kinds: frozenset[ImageKind], limits: ArchiveLimits | None = None) -> None:
        """Read the directory of the zip at a path, or in a seekable binary file (which stays open).

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
        """The number of entries that are not hidden, which is what iterating yields."""
        return len(self._candidates)

    def candidate_names(self, count: int) -> list[str]:
        """The names of the first entries that are not hidden."""
        return [entry.name for entry in self._candidates[:count]]

    @property
    def inflating_work(self) -> int:
        """The bytes inflated so far, counted as in `ArchiveLimits.inflated_bytes`."""
        return self._inflated_bytes

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the entries in order.

        Raises:
            ArchiveError: the zip is refused as a whole. It can be raised after any number of entries.
        """
        return self.read_from(0)

    def read_from(self, position: int, *, images: int = 0, inflating_work: int = 0) -> Iterator[ArchiveImage | SkippedEntry]:
        """Continue after `position` entries, which contained `images` images and took `inflating_work`."""
        self._inflated_bytes += inflating_work
        for entry in self._candidates[position:]:
            item = self._read(entry)
            if isinstance(item, ArchiveImage):
                images += 1
                if images > self._limits.images:
                    message = f"the zip has more than {self._limits.images} images; split it into several zips"
                    raise ArchiveError(ArchiveFault.TOO_MANY_IMAGES, message)
            yield item

    def close(self) -> None:
        """Close the file if it was opened here."""
        self._resources.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _open(self) -> tuple[list[ZipEntry], int]:
        """The entries, and the position where the directory begins."""
        self._file.seek(0)
        head = self._file.read(4)
        if not head:
            raise ArchiveError(ArchiveFault.EMPTY, "the file is empty; send the images packed as one .zip")
        end = find_directory_end(self._file)
        if end is None:
            if is_zip(head):
                raise _damaged("its end is missing")
            raise ArchiveError(ArchiveFault.NOT_A_ZIP, "the file is not a zip; send the images packed as one .zip")
        try:
            return self._read_directory(end)
        except _MALFORMED as error:
            raise _damaged("its list of files is broken") from error

    def _read_directory(self, end: DirectoryEnd) -> tuple[list[ZipEntry], int]:
        start = end.position - end.directory_bytes
        shift = start - end.directory_offset
        """The number of bytes before the zip in the file."""
        if start < 0 or shift < 0:
            raise ValueError("the directory is not in the file")
        if end.directory_bytes > self._limits.directory_bytes:
            fact = f"the zip's list of files has {end.directory_bytes} bytes; the limit is {self._limits.directory_bytes}"
            raise _too_many_entries(fact)
        self._file.seek(start)
        directory = self._file.read(end.directory_bytes)
        entries: list[ZipEntry] = []
        position = 0
        while position < len(directory):
            entry, position = parse_entry(directory, position, shift)
            entries.append(entry)
            if len(entries) > self._limits.entries:
                raise _too_many_entries(f"the zip has more than {self._limits.entries} entries")
        return entries, start

    def _check_candidates(self) -> None:
        if not self._candidates:
            raise ArchiveError(ArchiveFault.EMPTY, "the zip contains no files; add images to it")
        encrypted = next((entry for entry in self._candidates if entry.flags & _ENCRYPTED_FLAGS), None)
        if encrypted is not None:
            name = shown_name(encrypted.name)
            raise ArchiveError(ArchiveFault.ENCRYPTED, f"the zip is encrypted ({name}); create it without a password")

    def _read(self, entry: ZipEntry) -> ArchiveImage | SkippedEntry:
        if entry.is_link:
            return SkippedEntry(name=entry.name, fault=EntryFault.SYMBOLIC_LINK)
        if entry.method not in WORK_PER_BYTE:
            method = METHOD_NAMES.get(entry.method, f"method {entry.method}")
            return SkippedEntry(name=entry.name, fault=EntryFault.UNSUPPORTED_COMPRESSION, method=method)
        # The declared size is not trusted: an entry that declares less than it has is still stopped at the limit.
        if entry.size_bytes > self._limits.image_bytes:
            return SkippedEntry(name=entry.name, fault=EntryFault.TOO_LARGE)
        try:
            return self._inflate(entry)
        except _MALFORMED:
            return SkippedEntry(name=entry.name, fault=EntryFault.DAMAGED)

    def _inflate(self, entry: ZipEntry) -> ArchiveImage | SkippedEntry:
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
            raise ValueError("size or checksum differs from the directory")
        return ArchiveImage(name=entry.name, kind=kind, data=bytes(data))

    def _chunks(self, entry: ZipEntry) -> Iterator[bytes]:
        """The inflated bytes of an entry, the signature first. Raises one of `_MALFORMED` if they are cut off."""
        position, end = self._find_data(entry)
        inflater = open_inflater(entry.method)
        # With bzip2 the first byte takes as long as its whole block, so this asks for a block, but for at most one byte more
        # than the declared size. Then the work is what the size declares, or the declared size turns out to be false.
        wanted = min(entry.size_bytes + 1, BZIP2_BLOCK_BYTES) if entry.method == BZIP2 else SIGNATURE_BYTES
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
            is_false = entry.method == BZIP2 and inflated - len(chunk) <= entry.size_bytes < inflated
            self._count_inflated((BZIP2_BLOCK_BYTES if is_false else len(chunk)) * WORK_PER_BYTE[entry.method])
            yield chunk
            wanted = _CHUNK_BYTES

    def _find_data(self, entry: ZipEntry) -> tuple[int, int]:
        """Where the bytes of an entry begin and end. Raises ValueError if its own header contradicts the directory."""
        self._file.seek(entry.offset)
        header = LOCAL_HEADER.unpack(self._file.read(LOCAL_HEADER.size))
        signature, flags, method, compressed, size, name_bytes, extra_bytes = (
            header[index] for index in (0, 2, 3, 7, 8, 9, 10)
        )
        start = entry.offset + LOCAL_HEADER.size + name_bytes + extra_bytes
        claimed = (compressed in (0, IN_64, entry.compressed_bytes)) and (size in (0, IN_64, entry.size_bytes))
        if signature != LOCAL_SIGNATURE or method != entry.method or not (claimed or flags & _SIZES_FOLLOW_FLAG):
            raise ValueError("the header of the entry differs from the directory")
        if start + entry.compressed_bytes > self._ends[entry.offset]:
            raise ValueError("the entry reaches into the next one")
        return start, start + entry.compressed_bytes

    def _count_inflated(self, count: int) -> None:
        self._inflated_bytes += count
        if self._inflated_bytes > self._limits.inflated_bytes:
            limit = self._limits.inflated_bytes // MEGABYTE
            message = f"the zip inflates to more than {limit} MB in total; send fewer or smaller images"
            raise ArchiveError(ArchiveFault.TOO_MUCH_DATA, message)


def _is_empty(entry: ZipEntry) -> bool:
    return not entry.size_bytes and entry.compressed_bytes <= _EMPTY_BYTES


def _check_overlaps(entries: list[ZipEntry], directory_offset: int) -> dict[int, int]:
    """The latest end of each entry by its offset. Raises ArchiveError if entries share bytes."""
    ordered = sorted(entries, key=attrgetter("offset"))
    for first, second in pairwise(ordered):
        if first.least_end > second.offset:
            names = f"{shown_name(first.name)} and {shown_name(second.name)}"
            message = f"the zip has entries that overlap ({names}); create the zip again"
            raise ArchiveError(ArchiveFault.OVERLAPPING, message)
    if ordered and ordered[-1].least_end > directory_offset:
        raise _damaged(f"the entry {shown_name(ordered[-1].name)} is longer than the zip")
    ends = [*(entry.offset for entry in ordered[1:]), directory_offset]
    return {entry.offset: end for entry, end in zip(ordered, ends, strict=False)}


def _damaged(fact: str) -> ArchiveError:
    return ArchiveError(ArchiveFault.DAMAGED, f"the zip is cut off or damaged ({fact}); create it again and send it")


def _too_many_entries(fact: str) -> ArchiveError:
    return ArchiveError(ArchiveFault.TOO_MANY_ENTRIES, f"{fact}; split it into several zips")
