"""The zip rules: which entries of a zip are images, and how they are read without trusting anything that the zip claims.

Used for example sets (gateway and trainer) and for zips of images to classify. It knows signatures, not pixels: whether an
image can be decoded is for others to find out. Names of entries are shown to people and never used as paths.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO

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
_READABLE_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000
_UTF8_NAME_FLAG = 0x800
_CHUNK_BYTES = 256 * 1024
# What `zipfile` raises over bytes that are no valid zip, found by reading its source and by fuzzing it.
_MALFORMED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)


def image_kind(head: bytes) -> ImageKind | None:
    """The kind of image that begins with these bytes (at least `SIGNATURE_BYTES`), or None where Ocelli reads no such kind."""
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least four) claims to be a zip."""
    return head.startswith(_ZIP_SIGNATURES)


def is_hidden(name: str) -> bool:
    """Whether a file of this name (with its folders) is one that file managers leave behind: no message names it."""
    parts = name.replace("\\", "/").split("/")
    base = parts[-1]
    return not base or "__MACOSX" in parts[:-1] or base.startswith(".") or base.casefold() in ("thumbs.db", "desktop.ini")


def shown_name(name: str) -> str:
    """The name as messages show it: no control characters, at most `SHOWN_NAME_LIMIT` characters."""
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    if len(printable) <= SHOWN_NAME_LIMIT:
        return printable
    return f"{printable[: SHOWN_NAME_LIMIT // 2]}…{printable[1 - SHOWN_NAME_LIMIT // 2 :]}"


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
    """It cannot be inflated, or its checksum is wrong."""
    UNSUPPORTED_COMPRESSION = "UnsupportedCompression"
    """It is compressed by another method than deflate."""
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
    """All that is inflated of one zip. Overlapping entries make a small zip inflate to petabytes."""


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


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What signatures alone tell of a zip."""

    usable: int
    """Entries that begin as an image does; decoding may yet show that some are damaged."""
    skipped: tuple[SkippedEntry, ...]


class ImageArchive(AbstractContextManager["ImageArchive"]):
    """The images of one zip, in the order of its directory. One thread at a time.

    Iterating yields an `ArchiveImage` or a `SkippedEntry` for every entry that is not hidden; each is read only when its turn
    comes and forgotten after it. Iterating and `inspect` may be repeated; the limit on inflated bytes holds for all together.
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
            source = self._resources.enter_context(file.open("rb")) if isinstance(file, Path) else file
            self._zip = self._open(source)
            self._candidates = [entry for entry in self._zip.infolist() if not is_hidden(entry.filename) and entry.file_size]
            self._check_directory()
        except BaseException:
            self.close()
            raise

    @property
    def candidates(self) -> int:
        """The number of entries that are not hidden: what iterating yields."""
        return len(self._candidates)

    def inspect(self) -> Inspection:
        """Judge every entry by its signature; no more than its first bytes are inflated.

        Raises:
            ArchiveError: the zip is refused as a whole.
        """
        usable = 0
        skipped: list[SkippedEntry] = []
        for entry in self._candidates:
            judged = self._read(entry, head_only=True)
            if isinstance(judged, SkippedEntry):
                skipped.append(judged)
            else:
                usable += 1
                self._check_count(usable)
        return Inspection(usable=usable, skipped=tuple(skipped))

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the entries one after the other.

        Raises:
            ArchiveError: a limit of the whole zip is passed.
        """
        images = 0
        for entry in self._candidates:
            item = self._read(entry, head_only=False)
            if isinstance(item, ArchiveImage):
                images += 1
                self._check_count(images)
            yield item

    def close(self) -> None:
        """Close the file, if this object opened it."""
        self._resources.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _open(self, source: IO[bytes]) -> zipfile.ZipFile:
        source.seek(0)
        head = source.read(4)
        if not head:
            raise ArchiveError(ArchiveFault.EMPTY, "the file is empty; send a zip of images")
        try:
            return zipfile.ZipFile(_BoundedFile(source, self._limits.directory_bytes))
        except _MALFORMED as error:
            if is_zip(head):
                message = f"the zip is cut off or damaged ({shown_name(str(error))}); make and send it again"
                raise ArchiveError(ArchiveFault.DAMAGED, message) from error
            raise ArchiveError(ArchiveFault.NOT_A_ZIP, "the file is not a zip; send the images packed as one .zip") from error

    def _check_directory(self) -> None:
        if not self._candidates:
            raise ArchiveError(ArchiveFault.EMPTY, "the zip holds no files; put the images into it")
        entries = len(self._zip.infolist())
        if entries > self._limits.entries:
            raise _too_many_entries(f"the zip has {entries} entries and may have {self._limits.entries}")
        encrypted = next((entry for entry in self._candidates if entry.flag_bits & _ENCRYPTED_FLAGS), None)
        if encrypted is not None:
            name = shown_name(_entry_name(encrypted))
            raise ArchiveError(ArchiveFault.ENCRYPTED, f"the zip is encrypted ({name}); make it again without a password")

    def _check_count(self, images: int) -> None:
        if images > self._limits.images:
            message = f"the zip has more than {self._limits.images} images; split it into several"
            raise ArchiveError(ArchiveFault.TOO_MANY_IMAGES, message)

    def _read(self, entry: zipfile.ZipInfo, *, head_only: bool) -> ArchiveImage | SkippedEntry:
        name = _entry_name(entry)
        fault = self._claimed_fault(entry)
        if fault is not None:
            return SkippedEntry(name=name, fault=fault)
        try:
            with self._zip.open(entry) as stream:
                head = self._inflate(stream, SIGNATURE_BYTES)
                kind = image_kind(head)
                if kind is None or kind not in self._kinds:
                    return SkippedEntry(name=name, fault=EntryFault.NOT_AN_IMAGE)
                if head_only:
                    return ArchiveImage(name=name, kind=kind, data=head)
                # One byte more than allowed is asked for: that tells an image of exactly the limit from a larger one.
                data = head + self._inflate(stream, self._limits.image_bytes + 1 - len(head))
        except _MALFORMED:
            return SkippedEntry(name=name, fault=EntryFault.DAMAGED)
        if len(data) > self._limits.image_bytes:
            return SkippedEntry(name=name, fault=EntryFault.TOO_LARGE)
        return ArchiveImage(name=name, kind=kind, data=data)

    def _claimed_fault(self, entry: zipfile.ZipInfo) -> EntryFault | None:
        if stat.S_ISLNK(entry.external_attr >> 16):
            return EntryFault.SYMBOLIC_LINK
        # bzip2 and LZMA streams cannot be inflated in bounded steps by `zipfile`, and no common tool uses them for images.
        if entry.compress_type not in _READABLE_COMPRESSIONS:
            return EntryFault.UNSUPPORTED_COMPRESSION
        # A claim can only make it worse for the entry: one that claims less is stopped at the limit all the same.
        if entry.file_size > self._limits.image_bytes:
            return EntryFault.TOO_LARGE
        return None

    def _inflate(self, stream: IO[bytes], limit_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < limit_bytes:
            chunk = stream.read(min(_CHUNK_BYTES, limit_bytes - len(data)))
            if not chunk:
                break
            data += chunk
            self._inflated_bytes += len(chunk)
            if self._inflated_bytes > self._limits.inflated_bytes:
                limit = self._limits.inflated_bytes // MEGABYTE
                message = f"the zip inflates to more than {limit} MB in all; send fewer or smaller images"
                raise ArchiveError(ArchiveFault.TOO_MUCH_DATA, message)
        return bytes(data)


class _BoundedFile(io.BufferedIOBase):
    """What `zipfile` reads from. It asks for the whole directory at once, by a size that the zip claims."""

    def __init__(self, source: IO[bytes], limit_bytes: int) -> None:
        super().__init__()
        self._source = source
        self._limit_bytes = limit_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        # Only the directory is ever read in so large a piece.
        if size is not None and size > self._limit_bytes:
            raise _too_many_entries(f"the zip's directory has {size} bytes and may have {self._limit_bytes}")
        return self._source.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset is negative")
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _too_many_entries(fact: str) -> ArchiveError:
    return ArchiveError(ArchiveFault.TOO_MANY_ENTRIES, f"{fact}; split it into several")


def _entry_name(entry: zipfile.ZipInfo) -> str:
    # Macs write UTF-8 without saying so, and `zipfile` then takes it for code page 437.
    if not entry.flag_bits & _UTF8_NAME_FLAG:
        try:
            return entry.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return entry.filename
