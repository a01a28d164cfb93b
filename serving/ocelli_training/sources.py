"""Sources: how messages show them, what may be spent on one, and the images in one that is on this machine.

`source_reader` fetches them. Which class the images belong to is not known here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from ocelli_api.classifier import Source
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import (
    EXAMPLE_KINDS,
    MEGABYTE,
    SIGNATURE_BYTES,
    ArchiveError,
    ArchiveFault,
    ArchiveImage,
    ArchiveLimits,
    EntryFault,
    ImageArchive,
    SkippedEntry,
    image_kind,
    shown_name,
)
from ocelli_storage.zip_directory import is_hidden
from ocelli_training.tar_images import TAR_HEAD_BYTES, ImageTar, is_tar

SHOWN_DIGEST_LENGTH = 12


class SourceError(Exception):
    """A source cannot be used. The message names the source, the fact and the remedy."""

    def __init__(
        self,
        message: str,
        *,
        reason: OutcomeReason = OutcomeReason.SOURCE_UNREADABLE,
        transient: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.transient = transient
        """Another attempt later may succeed."""
        self.retry_after_seconds = retry_after_seconds
        """How long the server asked clients to wait."""


class SourceChangedError(SourceError):
    """A file was changed or deleted while its source was read."""


@dataclass(frozen=True, kw_only=True)
class SourceLimits:
    """Limits for one source."""

    zip_bytes: int = 1024 * MEGABYTE
    """Largest file that is fetched, whether it is a zip or not."""
    size_remedy: str = "split it into several zips"
    """What messages suggest for a larger file."""
    redirects: int = 10
    connect_seconds: float = 15
    silence_seconds: float = 60
    """Longest pause of a server within an answer."""
    fetch_seconds: float = 1800
    """Longest duration of one attempt to fetch a source."""
    retry_delays_seconds: tuple[float, ...] = (0.5, 1, 2)
    """Delays before further attempts after a transient error."""
    longest_retry_delay_seconds: float = 30
    """Upper limit for the delay that a server asks for."""
    concurrent_fetches: int = 8
    concurrent_files: int = 16
    """Of all sources whose files have addresses of their own."""
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)

    def check_size(self, size_bytes: int) -> None:
        """Raises SourceError, with fact and remedy, for a file that is too large."""
        if size_bytes > self.zip_bytes:
            fact = f"it has more than {self.zip_bytes // MEGABYTE} MB; {self.size_remedy}"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)


def shown_source(source: Source) -> str:
    """The source as messages show it: an address without credentials and query (both may be secrets), or an upload's digest."""
    return f"upload {(source.upload or '')[:SHOWN_DIGEST_LENGTH]}" if source.url is None else shown_address(source.url)


def shown_address(url: str) -> str:
    """An address as messages show it, without credentials and query."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return shown_name(url.split("?")[0].rpartition("@")[2])
    query = "?…" if parts.query else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return shown_name(f"{parts.scheme}://{host}{port}{parts.path}{query}")


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """One file of a source that has an address of its own: its private copy, or why it is skipped."""

    name: str
    path: Path
    fault: EntryFault | None = None


@dataclass(frozen=True, kw_only=True)
class FetchedSource:
    """A source on this machine: the path of a zip, a tar or a folder, or files with addresses of their own."""

    source: Source
    path: Path
    jail: Path | None = None
    """The folder that no link may lead out of; None for a private copy."""
    files: tuple[FetchedFile, ...] | None = None
    limits: ArchiveLimits
    sha256: str | None = None
    """SHA-256 (hex) of the file; None for a folder."""

    def open(self) -> ImageArchive | ImageFolder | ImageTar | ImageFiles:
        """Open it for iterating over its images.

        Raises:
            SourceError: it is not a zip, a tar or a folder of images.
        """
        with self.refusals():
            if self.files is not None:
                return ImageFiles(self.files, limits=self.limits)
            if self.jail is not None and self.path.is_dir():
                return ImageFolder(self.path, jail=self.jail, limits=self.limits)
            with self.path.open("rb") as file:
                head = file.read(TAR_HEAD_BYTES)
            if is_tar(head):
                return ImageTar(self.path, limits=self.limits)
            return ImageArchive(self.path, kinds=EXAMPLE_KINDS, limits=self.limits)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """A context in which every fault of the zip or folder becomes a `SourceError` that names the source."""
        shown = shown_source(self.source)
        try:
            yield
        except ArchiveError as error:
            fact = _describe_other_file(self.path) if error.fault is ArchiveFault.NOT_A_ZIP else None
            raise SourceError(f"{shown}: {fact or error}", reason=OutcomeReason.INVALID_DATA) from error
        except OSError as error:
            raise SourceError(f"{shown}: it cannot be read ({error.strerror}); allow the trainer to read it") from error


def _describe_other_file(path: Path) -> str | None:
    """What a file is that is not a zip, with the remedy, where its first bytes show it."""
    with path.open("rb") as file:
        head = file.read(256)
    kind = image_kind(head)
    if kind is not None:
        return f"it is a single {kind} image; pack at least 10 of them into a zip"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "it is a web page, not a zip; give the address of the zip itself"
    return None


class ImageFiles(AbstractContextManager["ImageFiles"]):
    """Files that were fetched one by one, in their order."""

    def __init__(self, files: tuple[FetchedFile, ...], *, limits: ArchiveLimits) -> None:
        self._files = files
        self._limits = limits

    @property
    def candidates(self) -> int:
        """The number of files: what iterating yields."""
        return len(self._files)

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the files one after the other."""
        for file in self._files:
            if file.fault is not None:
                yield SkippedEntry(name=file.name, fault=file.fault)
            else:
                yield _read_image(file.name, file.path, self._limits)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None


class ImageFolder(AbstractContextManager["ImageFolder"]):
    """Every image below a folder, in the order of their paths.

    Folders whose names begin with `.` are left out (`.git`, `.ipynb_checkpoints`, the hidden halves of mounted ConfigMaps), and
    symbolic links to folders are not followed. A linked file counts if it is inside `jail`.
    """

    def __init__(self, folder: Path, *, jail: Path, limits: ArchiveLimits) -> None:
        """Find the files.

        Raises:
            ArchiveError: there are none, or too many.
            OSError: a folder cannot be read.
        """
        self._folder = folder
        self._jail = jail
        self._limits = limits
        self._files = sorted(self._find_files())
        if not self._files:
            raise ArchiveError(ArchiveFault.EMPTY, "the folder holds no files; put the images into it")

    @property
    def candidates(self) -> int:
        """The number of files that are not hidden: what iterating yields."""
        return len(self._files)

    def __iter__(self) -> Iterator[ArchiveImage | SkippedEntry]:
        """Read the files one after the other.

        Raises:
            ArchiveError: there are more images than a source may have.
        """
        images = 0
        for name in self._files:
            item = self._read(name)
            if isinstance(item, ArchiveImage):
                images += 1
                if images > self._limits.images:
                    message = f"the folder has more than {self._limits.images} images; split it into several"
                    raise ArchiveError(ArchiveFault.TOO_MANY_IMAGES, message)
            yield item

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None

    def _find_files(self) -> Iterator[str]:
        found = 0
        for root, folders, files in os.walk(self._folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                path = Path(root, file)
                if is_hidden(file) or (path.is_file() and not path.stat().st_size):
                    continue
                found += 1
                if found > self._limits.entries:
                    message = f"the folder has more than {self._limits.entries} files; split it into several"
                    raise ArchiveError(ArchiveFault.TOO_MANY_ENTRIES, message)
                yield str(path.relative_to(self._folder))

    def _read(self, name: str) -> ArchiveImage | SkippedEntry:
        path = self._folder / name
        shown = name.encode(errors="replace").decode()
        try:
            resolved = path.resolve(strict=True)
            if not resolved.is_relative_to(self._jail):
                return SkippedEntry(name=shown, fault=EntryFault.SYMBOLIC_LINK)
            # Opening a pipe would wait forever for a writer.
            if not stat.S_ISREG(resolved.stat().st_mode):
                return SkippedEntry(name=shown, fault=EntryFault.NOT_AN_IMAGE)
        except (OSError, RuntimeError):
            return SkippedEntry(name=shown, fault=EntryFault.DAMAGED)
        return _read_image(shown, resolved, self._limits)


def _read_image(name: str, path: Path, limits: ArchiveLimits) -> ArchiveImage | SkippedEntry:
    try:
        with path.open("rb") as file:
            data = file.read(SIGNATURE_BYTES)
            kind = image_kind(data)
            if kind is None or kind not in EXAMPLE_KINDS:
                return SkippedEntry(name=name, fault=EntryFault.NOT_AN_IMAGE)
            data += file.read(limits.image_bytes + 1 - len(data))
    except OSError:
        return SkippedEntry(name=name, fault=EntryFault.DAMAGED)
    if len(data) > limits.image_bytes:
        return SkippedEntry(name=name, fault=EntryFault.TOO_LARGE)
    return ArchiveImage(name=name, kind=kind, data=data)


def _raise(error: OSError) -> None:
    raise error
