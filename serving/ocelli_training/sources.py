"""Sources: fetching what a Classifier names as its examples, each to a local file or folder, within limits and verified.

It knows addresses and bytes, and hands out the images in them; which class they belong to is not its business.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
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
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, StoreUnavailableError
from ocelli_storage.zip_directory import is_hidden

if TYPE_CHECKING:
    import aiohttp

SHOWN_DIGEST_LENGTH = 12
_CHUNK_BYTES = MEGABYTE
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


class SourceError(Exception):
    """A source cannot be used. The message names it, and says fact and remedy."""

    def __init__(
        self, message: str, *, reason: OutcomeReason, transient: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.transient = transient
        """Trying again later may help."""
        self.retry_after_seconds = retry_after_seconds
        """How long the server asked to be left alone."""


@dataclass(frozen=True, kw_only=True)
class SourceLimits:
    """Bounds of what one source may cost."""

    zip_bytes: int = 1024 * MEGABYTE
    """Of what is fetched, a zip or another file."""
    size_remedy: str = "split it into several zips"
    """What to do about one that is larger."""
    redirects: int = 10
    connect_seconds: float = 15
    silence_seconds: float = 60
    """A server may stay silent for so long within an answer."""
    fetch_seconds: float = 1800
    """One attempt to fetch a source may take so long in all."""
    retry_delays_seconds: tuple[float, ...] = (0.5, 1, 2)
    """One more attempt after each of these, where the fault may pass."""
    longest_retry_delay_seconds: float = 30
    """A server that asks for more patience than this is obeyed for so long only."""
    concurrent_fetches: int = 8
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)


def shown_source(source: Source) -> str:
    """The source as messages show it: an address without credentials and query (both may be secrets), or an upload's digest."""
    if source.url is None:
        return f"upload {(source.upload or '')[:SHOWN_DIGEST_LENGTH]}"
    try:
        parts = urlsplit(source.url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return shown_name(source.url.split("?")[0].rpartition("@")[2])
    query = "?…" if parts.query else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return shown_name(f"{parts.scheme}://{host}{port}{parts.path}{query}")


class ImageFolder(AbstractContextManager["ImageFolder"]):
    """Every image below a folder, in the order of their paths: what `ImageArchive` is for a zip.

    Folders whose names begin with `.` are left out (`.git`, `.ipynb_checkpoints`, the hidden halves of mounted ConfigMaps), and
    symbolic links to folders are not followed. A linked file counts if it lies inside `jail`.
    """

    def __init__(self, folder: Path, *, jail: Path, limits: ArchiveLimits) -> None:
        """Find the files.

        Raises:
            ArchiveError: there is none, or there are too many.
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
            # Opening a pipe would wait for a writer for ever.
            if not stat.S_ISREG(resolved.stat().st_mode):
                return SkippedEntry(name=shown, fault=EntryFault.NOT_AN_IMAGE)
            with resolved.open("rb") as file:
                data = file.read(SIGNATURE_BYTES)
                kind = image_kind(data)
                if kind is None or kind not in EXAMPLE_KINDS:
                    return SkippedEntry(name=shown, fault=EntryFault.NOT_AN_IMAGE)
                data += file.read(self._limits.image_bytes + 1 - len(data))
        except (OSError, RuntimeError):
            return SkippedEntry(name=shown, fault=EntryFault.DAMAGED)
        if len(data) > self._limits.image_bytes:
            return SkippedEntry(name=shown, fault=EntryFault.TOO_LARGE)
        return ArchiveImage(name=shown, kind=kind, data=data)


@dataclass(frozen=True, kw_only=True)
class FetchedSource:
    """A source as it lies on this machine: the path of a zip, or of a folder."""

    source: Source
    path: Path
    jail: Path | None
    """The folder that nothing may lead out of; None for a copy of its own."""
    limits: ArchiveLimits

    def open(self) -> ImageArchive | ImageFolder:
        """Open it for iterating over its images.

        Raises:
            SourceError: it is no zip or folder of images.
        """
        with self.refusals():
            if self.jail is not None and self.path.is_dir():
                return ImageFolder(self.path, jail=self.jail, limits=self.limits)
            return ImageArchive(self.path, kinds=EXAMPLE_KINDS, limits=self.limits)

    def refusals(self) -> _Refusals:
        """A context in which whatever is wrong with the zip or folder becomes a `SourceError` that names the source."""
        return _Refusals(self)


class _Refusals(AbstractContextManager[None]):
    def __init__(self, fetched: FetchedSource) -> None:
        self._fetched = fetched

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        shown = shown_source(self._fetched.source)
        if isinstance(error, ArchiveError):
            fact = _what_else_it_is(self._fetched.path) if error.fault is ArchiveFault.NOT_A_ZIP else None
            raise SourceError(f"{shown}: {fact or error}", reason=OutcomeReason.INVALID_DATA) from error
        if isinstance(error, OSError):
            message = f"{shown}: it cannot be read ({error.strerror}); check that the trainer may read it"
            raise SourceError(message, reason=OutcomeReason.SOURCE_UNREADABLE) from error


class SourceReader(AbstractAsyncContextManager["SourceReader"]):
    """Fetches sources to local files."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        location: ClassifierLocation,
        file_sources_folder: Path | None,
        scratch_folder: Path,
        networks: NetworkRules,
        limits: SourceLimits | None = None,
    ) -> None:
        self._store = store
        self._location = location
        self._file_sources_folder = file_sources_folder
        self._scratch_folder = scratch_folder
        self._limits = limits or SourceLimits()
        self._networks = networks
        self._fetches = asyncio.Semaphore(self._limits.concurrent_fetches)
        self._session: aiohttp.ClientSession | None = None
        self._copies = 0

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def fetch(self, source: Source) -> AsyncIterator[FetchedSource]:
        """The source on this machine, its digest verified; a copy that was made for it is deleted at the end.

        Raises:
            SourceError: it cannot be fetched, or its digest is not the one it is pinned to.
        """
        async with self._fetches:
            if source.url is not None and source.url.startswith("file:"):
                yield await asyncio.to_thread(self._open_file, source, source.url)
                return
            self._copies += 1
            path = self._scratch_folder / f"source-{self._copies}.zip"
            try:
                digest = await self._retry(lambda: self._copy(source, path))
                _verify_digest(source, digest)
                yield FetchedSource(source=source, path=path, jail=None, limits=self._limits.archive)
            finally:
                path.unlink(missing_ok=True)

    async def _retry(self, attempt: Callable[[], Awaitable[str]]) -> str:
        for delay_seconds in self._limits.retry_delays_seconds:
            try:
                return await attempt()
            except SourceError as error:
                if not error.transient:
                    raise
                wished_seconds = max(delay_seconds, error.retry_after_seconds or 0)
                await asyncio.sleep(min(wished_seconds, self._limits.longest_retry_delay_seconds))
        return await attempt()

    async def _copy(self, source: Source, path: Path) -> str:
        """Write the bytes of a source to a file and return their SHA-256 (hex)."""
        chunks = self._download(source, source.url) if source.url is not None else self._read_upload(source)
        digest = hashlib.sha256()
        size_bytes = 0
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    self._check_size(source, size_bytes)
                    digest.update(chunk)
                    file.write(chunk)
        finally:
            await chunks.aclose()
        return digest.hexdigest()

    async def _read_upload(self, source: Source) -> AsyncGenerator[bytes]:
        key = self._location.upload_key(source.upload or "")
        try:
            async for chunk in self._store.open_read(key, _CHUNK_BYTES):
                yield chunk
        except ObjectNotFoundError as error:
            message = f"{shown_source(source)}: the store no longer holds it; send the images again"
            raise SourceError(message, reason=OutcomeReason.SOURCE_UNREADABLE) from error
        except StoreUnavailableError as error:
            message = f"{shown_source(source)}: {error}; check the object store"
            raise SourceError(message, reason=OutcomeReason.SOURCE_UNREADABLE, transient=True) from error

    async def _download(self, source: Source, url: str) -> AsyncGenerator[bytes]:
        # Imported where it is needed: uploads and files do without, and it is a good part of a small training's time.
        import aiohttp
        from yarl import URL

        from ocelli_training.guarded_connections import AddressNotAllowedError, open_connector

        shown = shown_source(source)

        def unreadable(fact: str, *, transient: bool, retry_after_seconds: float | None = None) -> SourceError:
            return SourceError(
                f"{shown}: {fact}",
                reason=OutcomeReason.SOURCE_UNREADABLE,
                transient=transient,
                retry_after_seconds=retry_after_seconds,
            )

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=open_connector(self._networks),
                timeout=aiohttp.ClientTimeout(
                    total=self._limits.fetch_seconds,
                    sock_connect=self._limits.connect_seconds,
                    sock_read=self._limits.silence_seconds,
                ),
                headers={"Accept-Encoding": "identity", "User-Agent": "ocelli-trainer"},
            )
        try:
            # An address in plain ASCII is sent as it stands: quoting it anew would break the signature of a presigned one.
            address = URL(url, encoded=url.isascii() and " " not in url)
            # aiohttp counts the first answer as well.
            async with self._session.get(address, max_redirects=self._limits.redirects + 1) as response:
                if response.status != 200:
                    transient = response.status >= 500 or response.status in _TRANSIENT_STATUSES
                    fact = f"the server answered {response.status} {shown_name(response.reason or '')}".rstrip()
                    remedy = "try again when the server is well" if transient else "correct the address, or who may read it"
                    wait = _seconds(response.headers.get("Retry-After"))
                    raise unreadable(f"{fact}; {remedy}", transient=transient, retry_after_seconds=wait)
                self._check_size(source, response.content_length or 0)
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk
        except AddressNotAllowedError as error:
            fact = (
                "it is, or leads to, an address in a private or denied network; use a public one, or have the installation "
                "allow its network (OCELLI_SOURCES_ALLOWED_NETWORKS; in the chart: sources.allowedNetworks)"
            )
            raise unreadable(fact, transient=False) from error
        except aiohttp.TooManyRedirects as error:
            fact = f"it is redirected more than {self._limits.redirects} times; name the final address"
            raise unreadable(fact, transient=False) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
            fact = "it is, or leads to, no http or https address that can be fetched; correct the address"
            raise unreadable(fact, transient=False) from error
        except aiohttp.ClientConnectorCertificateError as error:
            fact = "the server's certificate is not trusted; give the server one that is, or use another address"
            raise unreadable(fact, transient=False) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise unreadable("the host name is not known; correct the address", transient=True) from error
        except TimeoutError as error:
            fact = "the server did not answer in time; try again when the server is well"
            raise unreadable(fact, transient=True) from error
        except aiohttp.ClientConnectorError as error:
            cause = f" ({error.os_error.strerror})" if error.os_error.errno is not None else ""
            fact = f"no connection{cause}; check the address and that the server runs"
            raise unreadable(fact, transient=True) from error
        except aiohttp.ClientError as error:
            raise unreadable("the connection broke off; try again when the server is well", transient=True) from error

    def _open_file(self, source: Source, url: str) -> FetchedSource:
        """Find a `file://` source inside the folder set aside for them, and verify its digest."""

        def unreadable(fact: str) -> SourceError:
            return SourceError(f"{shown_source(source)}: {fact}", reason=OutcomeReason.SOURCE_UNREADABLE)

        if self._file_sources_folder is None:
            raise unreadable("file sources are not enabled here; let the installation set a folder for them, or use https")
        try:
            path, jail = _resolve_inside(self._file_sources_folder, url)
            mode = path.stat().st_mode
            if not url.endswith("/") and stat.S_ISDIR(mode):
                raise unreadable("it is a folder; end the address with / to read every image below it")
            if url.endswith("/") and not stat.S_ISDIR(mode):
                raise unreadable("it is not a folder; leave out the / at its end")
            if stat.S_ISDIR(mode) and source.sha256 is not None:
                raise unreadable("a folder has no digest to verify; leave out sha256, or name a zip")
            if not stat.S_ISDIR(mode):
                if not stat.S_ISREG(mode):
                    raise unreadable("it is neither a file nor a folder; name a zip or a folder")
                self._check_size(source, path.stat().st_size)
                if source.sha256 is not None:
                    with path.open("rb") as file:
                        _verify_digest(source, hashlib.file_digest(file, "sha256").hexdigest())
        except _OutsideError as error:
            raise unreadable("it leads out of the folder of file sources; name a path inside it") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            what = "folder" if url.endswith("/") else "file"
            folder = f"{self._file_sources_folder}, as the trainer sees it"
            remedy = f"correct the address, or put the {what} there"
            raise unreadable(f"there is no such {what}; paths begin at {folder}: {remedy}") from error
        except (OSError, ValueError, RuntimeError) as error:
            cause = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
            raise unreadable(f"it cannot be read{cause}; check the path and that the trainer may read it") from error
        return FetchedSource(source=source, path=path, jail=jail, limits=self._limits.archive)

    def _check_size(self, source: Source, size_bytes: int) -> None:
        if size_bytes > self._limits.zip_bytes:
            limit = self._limits.zip_bytes // MEGABYTE
            message = f"{shown_source(source)}: it has more than {limit} MB; {self._limits.size_remedy}"
            raise SourceError(message, reason=OutcomeReason.INVALID_DATA)


class _OutsideError(Exception):
    """A path leads out of the folder it must stay in."""


def _resolve_inside(folder: Path, url: str) -> tuple[Path, Path]:
    """The real paths that a `file://` address and the folder it is resolved in stand for."""
    parts = urlsplit(url)
    segments = [segment for segment in unquote(parts.path).split("/") if segment]
    if parts.netloc not in ("", "localhost") or ".." in segments:
        raise _OutsideError
    jail = folder.resolve(strict=True)
    path = jail.joinpath(*segments).resolve(strict=True)
    if not path.is_relative_to(jail):
        raise _OutsideError
    return path, jail


def _verify_digest(source: Source, digest: str) -> None:
    expected = source.pinned_digest
    if expected is None or expected == digest:
        return
    remedy = "send the images again" if source.upload else "restore the file, or pin the digest it has now"
    raise SourceError(
        f"{shown_source(source)}: its SHA-256 is {digest} and not {expected}; {remedy}", reason=OutcomeReason.INVALID_DATA
    )


def _what_else_it_is(path: Path) -> str | None:
    """What a file that is no zip is instead, with the remedy, where its first bytes tell."""
    with path.open("rb") as file:
        head = file.read(256)
    kind = image_kind(head)
    if kind is not None:
        return f"it is a single {kind} image; pack at least 10 of them into a zip"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "it is a web page and not a zip; name the address of the zip itself"
    return None


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None


def _raise(error: OSError) -> None:
    raise error
