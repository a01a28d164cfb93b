"""Fetching sources: a table of schemes, and what all schemes share, which is limits, retries and digests.

A new scheme is an entry of `SCHEMES`. A scheme that streams bytes is `_copied`; one whose files are already on this machine
returns their path. Schemes raise errors with fact and remedy; the reader puts the source in front.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, StoreUnavailableError
from ocelli_training.settings import TrainerSettings
from ocelli_training.sources import FetchedSource, SourceError, SourceLimits, shown_source

if TYPE_CHECKING:
    from ocelli_training.source_downloads import Downloads


@dataclass(frozen=True, kw_only=True)
class SourceAccess:
    """What schemes read from."""

    store: ObjectStore
    location: ClassifierLocation
    file_sources_folder: Path | None
    """None: file sources are refused."""
    networks: NetworkRules


def open_sources(
    settings: TrainerSettings, store: ObjectStore, scratch: Path, limits: SourceLimits | None = None
) -> SourceReader:
    """A reader for one training; `scratch` is a folder for copies."""
    access = SourceAccess(
        store=store,
        location=settings.location,
        file_sources_folder=settings.file_sources_folder,
        networks=settings.networks,
    )
    return SourceReader(access, scratch, limits)


class SourceReader(AbstractAsyncContextManager["SourceReader"]):
    """Fetches sources to local files."""

    def __init__(self, access: SourceAccess, scratch: Path, limits: SourceLimits | None = None) -> None:
        self.access = access
        self._scratch = scratch
        self._limits = limits or SourceLimits()
        self._fetches = asyncio.Semaphore(self._limits.concurrent_fetches)
        self._downloads: Downloads | None = None
        self._copies = 0

    @property
    def downloads(self) -> Downloads:
        # Imported on demand: uploads and files do not need it, and importing it takes a good part of a small training's time.
        from ocelli_training.source_downloads import Downloads

        if self._downloads is None:
            self._downloads = Downloads(self.access.networks)
        return self._downloads

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._downloads is not None:
            await self._downloads.close()

    @asynccontextmanager
    async def fetch(self, source: Source, limits: SourceLimits | None = None) -> AsyncIterator[FetchedSource]:
        """The source on this machine, its digest verified; a copy is deleted at the end.

        `limits` are those of this source; None: the reader's.

        Raises:
            SourceError: it cannot be fetched, or its digest is not the pinned one.
        """
        async with self._fetches:
            self._copies += 1
            copy = self._scratch / f"source-{self._copies}"
            request = _Request(source=source, limits=limits or self._limits, copy=copy)
            scheme = "upload" if source.url is None else source.url.partition(":")[0].lower()
            try:
                try:
                    fetched = await SCHEMES.get(scheme, _refuse)(self, request)
                except SourceError as error:
                    raise SourceError(
                        f"{shown_source(source)}: {error}", reason=error.reason, transient=error.transient
                    ) from error
                yield fetched
            finally:
                copy.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Request:
    source: Source
    limits: SourceLimits
    copy: Path
    """Where a copy goes."""

    @property
    def url(self) -> str:
        return self.source.url or ""

    def fetched(self, path: Path, sha256: str | None, jail: Path | None = None) -> FetchedSource:
        return FetchedSource(source=self.source, path=path, jail=jail, limits=self.limits.archive, sha256=sha256)

    def check_digest(self, digest: str) -> None:
        expected = self.source.pinned_digest
        if expected is not None and expected != digest:
            remedy = "send the images again" if self.source.upload else "restore the file, or pin its current digest"
            fact = f"its SHA-256 is {digest}, not {expected}; {remedy}"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)


_Scheme: TypeAlias = Callable[[SourceReader, _Request], Awaitable[FetchedSource]]


def _copied(read: Callable[[SourceReader, _Request], AsyncGenerator[bytes]]) -> _Scheme:
    """The scheme of sources whose bytes `read` yields. Transient errors are retried."""

    async def copy(reader: SourceReader, request: _Request) -> str:
        """Write the bytes to a file and return their SHA-256 (hex)."""
        digest = hashlib.sha256()
        size_bytes = 0
        with request.copy.open("wb") as file:
            async with aclosing(read(reader, request)) as chunks:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    request.limits.check_size(size_bytes)
                    digest.update(chunk)
                    file.write(chunk)
        return digest.hexdigest()

    async def fetch(reader: SourceReader, request: _Request) -> FetchedSource:
        limits = request.limits
        for delay_seconds in (*limits.retry_delays_seconds, None):
            try:
                digest = await copy(reader, request)
                request.check_digest(digest)
                return request.fetched(request.copy, digest)
            except SourceError as error:
                if not error.transient or delay_seconds is None:
                    raise
                requested_seconds = max(delay_seconds, error.retry_after_seconds or 0)
                await asyncio.sleep(min(requested_seconds, limits.longest_retry_delay_seconds))
        raise AssertionError("the last attempt returns or raises")

    return fetch


def _download(reader: SourceReader, request: _Request) -> AsyncGenerator[bytes]:
    return reader.downloads.read(request.url, request.limits)


async def _read_upload(reader: SourceReader, request: _Request) -> AsyncGenerator[bytes]:
    key = reader.access.location.upload_key(request.source.upload or "")
    try:
        async for chunk in reader.access.store.open_read(key, MEGABYTE):
            yield chunk
    except ObjectNotFoundError as error:
        raise SourceError("it is no longer in the object store; send the images again") from error
    except StoreUnavailableError as error:
        raise SourceError(f"{error}; check the object store", transient=True) from error


async def _open_file(reader: SourceReader, request: _Request) -> FetchedSource:
    return await asyncio.to_thread(_find_file, reader.access.file_sources_folder, request)


async def _refuse(reader: SourceReader, request: _Request) -> FetchedSource:
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES if scheme != "upload")
    raise SourceError(f"this kind of address is not supported; use one that begins with {known}")


SCHEMES: Mapping[str, _Scheme] = {
    "https": _copied(_download),
    "http": _copied(_download),
    "file": _open_file,
    "upload": _copied(_read_upload),
}
"""By the scheme of a source's URL; `upload` for images that arrived through the gateway."""


def _find_file(folder: Path | None, request: _Request) -> FetchedSource:
    """Find a `file://` source in the folder of file sources, and verify its digest."""
    source, is_folder = request.source, request.url.endswith("/")
    digest = None
    if folder is None:
        raise SourceError("file sources are not enabled; set a folder for them in the installation, or use https")
    try:
        path, jail = _resolve_inside(folder, request.url)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            if not is_folder:
                raise SourceError("it is a folder; end the address with / to read every image below it")
            if source.sha256 is not None:
                raise SourceError("a folder has no digest to verify; remove sha256, or give a zip")
        elif is_folder:
            raise SourceError("it is not a folder; remove the / at the end")
        elif not stat.S_ISREG(status.st_mode):
            raise SourceError("it is neither a file nor a folder; give a zip or a folder")
        else:
            request.limits.check_size(status.st_size)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            request.check_digest(digest)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "folder" if is_folder else "file"
        raise SourceError(
            f"there is no such {what}; paths are relative to {folder}, as the trainer sees it: correct the address, or put the "
            f"{what} there"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        cause = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise SourceError(f"it cannot be read{cause}; check the path, and allow the trainer to read it") from error
    return request.fetched(path, digest, jail)


def _resolve_inside(folder: Path, url: str) -> tuple[Path, Path]:
    """The real paths of a `file://` address and of the folder that it is resolved in. Raises SourceError, OSError."""
    parts = urlsplit(url)
    segments = [segment for segment in unquote(parts.path).split("/") if segment]
    jail = folder.resolve(strict=True)
    if parts.netloc in ("", "localhost") and ".." not in segments:
        path = jail.joinpath(*segments).resolve(strict=True)
        if path.is_relative_to(jail):
            return path, jail
    raise SourceError("it leads out of the folder of file sources; give a path inside it")
