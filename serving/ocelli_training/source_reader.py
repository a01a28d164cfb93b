"""Fetching sources: a table of schemes, and what all schemes share, which is limits, retries and digests.

A new scheme is an entry of `SCHEMES`. A scheme that streams bytes is `_remote`; one whose files are already on this machine
returns their path. Schemes raise errors with fact and remedy; the reader puts the source in front.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, StoreUnavailableError
from ocelli_storage.zip_directory import is_hidden
from ocelli_training.address_list import LIST_BYTES_LIMIT, is_address_list, parse_address_list
from ocelli_training.cloud_identity import CloudIdentity
from ocelli_training.fetched_files import FileFetches, ListedFile, copy_bytes, with_retries
from ocelli_training.file_sources import read_file, readable_file_errors, resolve_inside
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_secrets import SourceSecret, build_authorization, load_source_secret
from ocelli_training.sources import FetchedSource, SourceError, SourceLimits, shown_address, shown_source

if TYPE_CHECKING:
    from ocelli_http.guarded_client import ConnectionRules
    from ocelli_training.source_buckets import Buckets
    from ocelli_training.source_downloads import Downloads

logger = logging.getLogger(__name__)

_BUCKET_SCHEMES = ("s3://", "gs://", "az://")


@dataclass(frozen=True, kw_only=True)
class SourceAccess:
    """What schemes read from."""

    store: ObjectStore
    location: ClassifierLocation
    file_sources_folder: Path | None
    """None: file sources are refused."""
    networks: NetworkRules
    proxy_url: str = ""
    """The installation's proxy for sources; empty: there is none."""
    certificates: str = ""
    """Certificates (PEM) of authorities to trust in addition to the usual ones."""
    keeps_copies: bool = False
    """Whether copies of pinned sources are kept in the store."""
    secrets_folder: Path | None = None
    """Where the Secrets of sources are mounted; None: there are none."""
    identity_buckets: frozenset[str] = frozenset()
    """Buckets that are read with the identity of the Pod."""
    cloud_identity: CloudIdentity = field(default_factory=CloudIdentity)


def open_sources(
    settings: TrainerSettings, store: ObjectStore, scratch: Path, limits: SourceLimits | None = None
) -> SourceReader:
    """A reader for one training; `scratch` is a folder for copies."""
    access = SourceAccess(
        store=store,
        location=settings.location,
        file_sources_folder=settings.file_sources_folder,
        networks=settings.networks,
        proxy_url=settings.sources_proxy,
        certificates=settings.sources_certificates,
        keeps_copies=settings.sources_cache,
        secrets_folder=settings.source_secrets_folder,
        identity_buckets=settings.sources_identity_buckets,
        cloud_identity=settings.cloud_identity,
    )
    return SourceReader(access, scratch, limits)


class SourceReader(AbstractAsyncContextManager["SourceReader"]):
    """Fetches sources to local files."""

    def __init__(self, access: SourceAccess, scratch: Path, limits: SourceLimits | None = None) -> None:
        self.access = access
        self._scratch = scratch
        self._limits = limits or SourceLimits()
        self._fetches = asyncio.Semaphore(self._limits.concurrent_fetches)
        self.files = asyncio.Semaphore(self._limits.concurrent_files)
        self._downloads: Downloads | None = None
        self._buckets: Buckets | None = None
        self._copies = 0

    @property
    def downloads(self) -> Downloads:
        # Imported on demand: uploads and files do not need it, and importing it takes a good part of a small training's time.
        from ocelli_training.source_downloads import Downloads

        if self._downloads is None:
            self._downloads = Downloads(self._build_rules())
        return self._downloads

    @property
    def buckets(self) -> Buckets:
        # Imported on demand, for the same reason.
        from ocelli_training.source_buckets import Buckets, PodIdentity

        if self._buckets is None:
            identity = PodIdentity(buckets=self.access.identity_buckets, cloud=self.access.cloud_identity)
            self._buckets = Buckets(self._build_rules(), identity)
        return self._buckets

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connections in (self._downloads, self._buckets):
            if connections is not None:
                await connections.close()

    @asynccontextmanager
    async def fetch(self, source: Source, limits: SourceLimits | None = None) -> AsyncIterator[FetchedSource]:
        """The images of a source on this machine, its digest verified; a copy is deleted at the end.

        `limits` are those of this source; None: the reader's.

        Raises:
            SourceError: it cannot be fetched, or its digest is not the pinned one.
        """
        async with self._fetch(source, limits, is_file=False) as fetched:
            yield fetched

    @asynccontextmanager
    async def fetch_file(self, source: Source, limits: SourceLimits | None = None) -> AsyncIterator[FetchedSource]:
        """As `fetch`, for one file, whatever its name, or a folder on this machine."""
        async with self._fetch(source, limits, is_file=True) as fetched:
            yield fetched

    def load_secret(self, source: Source) -> SourceSecret | None:
        """The Secret that a source names. Raises SourceError."""
        if source.secret_ref is None:
            return None
        secret = load_source_secret(self.access.secrets_folder, self.access.location.namespace, source.secret_ref.name)
        if not secret.covers(source.url or ""):
            raise SourceError(
                f'Secret "{secret.name}" does not list its host in the key hosts, so its credentials are not sent there; '
                "list it there, or use another Secret"
            )
        return secret

    def _build_rules(self) -> ConnectionRules:
        from ocelli_http.guarded_client import ConnectionRules

        access = self.access
        return ConnectionRules(networks=access.networks, proxy_url=access.proxy_url, certificates=access.certificates)

    @asynccontextmanager
    async def _fetch(self, source: Source, limits: SourceLimits | None, *, is_file: bool) -> AsyncIterator[FetchedSource]:
        async with self._fetches:
            self._copies += 1
            copy = self._scratch / f"source-{self._copies}"
            scheme = "upload" if source.url is None else source.url.partition(":")[0].lower()
            try:
                try:
                    request = _Request(
                        source=source,
                        limits=limits or self._limits,
                        copy=copy,
                        is_file=is_file,
                        secret=await asyncio.to_thread(self.load_secret, source),
                    )
                    fetched = await SCHEMES.get(scheme, _refuse)(self, request)
                except SourceError as error:
                    raise SourceError(
                        f"{shown_source(source)}: {error}", reason=error.reason, transient=error.transient
                    ) from error
                yield fetched
            finally:
                copy.unlink(missing_ok=True)
                await asyncio.to_thread(shutil.rmtree, _files_folder(copy), ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class _Request:
    source: Source
    limits: SourceLimits
    copy: Path
    """Where a copy goes."""
    is_file: bool
    """One file is wanted, so that a list of addresses is not followed."""
    secret: SourceSecret | None

    @property
    def url(self) -> str:
        return self.source.url or ""

    def fetched(self, path: Path, sha256: str | None = None, jail: Path | None = None) -> FetchedSource:
        return FetchedSource(source=self.source, path=path, jail=jail, limits=self.limits.archive, sha256=sha256)

    def check_digest(self, digest: str) -> None:
        expected = self.source.pinned_digest
        if expected is not None and expected != digest:
            remedy = "send the images again" if self.source.upload else "restore the file, or pin its current digest"
            fact = f"its SHA-256 is {digest}, not {expected}; {remedy}"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)


_Scheme: TypeAlias = Callable[[SourceReader, _Request], Awaitable[FetchedSource]]


async def _remote(reader: SourceReader, request: _Request) -> FetchedSource:
    """A source behind an address, or an upload."""
    if request.url.endswith("/") and _is_bucket(request.url):
        return await _fetch_prefix(reader, request)

    async def copy() -> str:
        """Write the bytes to a file and return their SHA-256 (hex)."""
        chunks = _open(reader, request)
        digest = await copy_bytes(chunks, request.copy, lambda size_bytes, _: request.limits.check_size(size_bytes))
        request.check_digest(digest)
        return digest

    digest = request.source.sha256
    if not await _read_kept(reader, request):
        digest = await with_retries(copy, request.limits)
        await _keep(reader, request)
    return await _follow_list(reader, request, request.fetched(request.copy, digest))


def _find_copy_key(reader: SourceReader, request: _Request) -> str | None:
    """Key of the copy of a pinned source; None where none is kept."""
    digest = request.source.sha256
    # Single files are those of pretrained weights: they are imported once, and the sweep would delete their copies.
    if not reader.access.keeps_copies or digest is None or request.is_file:
        return None
    return reader.access.location.source_key(digest)


async def _read_kept(reader: SourceReader, request: _Request) -> bool:
    """Read the copy of a pinned source that an earlier training kept. Returns whether there is one."""
    key = _find_copy_key(reader, request)
    if key is None:
        return False
    try:
        digest = await copy_bytes(
            _read_object(reader, key), request.copy, lambda size_bytes, _: request.limits.check_size(size_bytes)
        )
    except (ObjectNotFoundError, StoreUnavailableError):
        return False
    return digest == request.source.sha256


async def _keep(reader: SourceReader, request: _Request) -> None:
    """Keep a copy of a pinned source, so that the next training need not fetch it."""
    key = _find_copy_key(reader, request)
    if key is None:
        return
    try:
        await reader.access.store.put(key, request.copy)
    except StoreUnavailableError as error:
        # The training has what it needs.
        logger.warning("source.not_kept", extra={"source": shown_source(request.source), "error": str(error)})


async def _follow_list(reader: SourceReader, request: _Request, fetched: FetchedSource) -> FetchedSource:
    """Fetch what a list of addresses names; other sources stay as they are."""
    if request.is_file or request.source.url is None or not is_address_list(request.url) or fetched.path.is_dir():
        return fetched
    if fetched.path.stat().st_size > LIST_BYTES_LIMIT:
        fact = f"the list has more than {LIST_BYTES_LIMIT // MEGABYTE} MB; split it into several lists"
        raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)
    data = await asyncio.to_thread(fetched.path.read_bytes)
    images_limit = request.limits.archive.images
    addresses = parse_address_list(request.url, data, images_limit=images_limit, all_pinned=request.source.sha256 is not None)
    listed = [ListedFile(url=item.url, sha256=item.sha256, name=shown_address(item.url), line=item.line) for item in addresses]
    return await _fetch_files(reader, request, listed, fetched)


async def _fetch_prefix(reader: SourceReader, request: _Request) -> FetchedSource:
    if request.source.sha256 is not None:
        raise SourceError("a prefix has no digest to verify; remove sha256, or give a zip")

    async def fetch() -> FetchedSource:
        objects = await reader.buckets.list_objects(request.url, request.limits, request.secret)
        parts = urlsplit(request.url)
        prefix = unquote(parts.path).strip("/")
        listed = [
            ListedFile(
                url=f"{parts.scheme}://{parts.netloc}/{quote(item.key)}",
                name=item.key.removeprefix(prefix).lstrip("/"),
                etag=item.etag,
                size_bytes=item.size_bytes,
            )
            for item in objects
            if item.size_bytes and not is_hidden(item.key)
        ]
        if not listed:
            fact = "there are no images below this prefix; correct the address, or put images there"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)
        if len(listed) > request.limits.archive.images:
            fact = f"there are more than {request.limits.archive.images} objects below this prefix; split it into several"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)
        return await _fetch_files(reader, request, listed, request.fetched(request.copy))

    # An object that was changed or deleted since the listing needs another listing.
    return await with_retries(fetch, request.limits)


async def _fetch_files(
    reader: SourceReader, request: _Request, listed: list[ListedFile], fetched: FetchedSource
) -> FetchedSource:
    fetches = FileFetches(
        read=lambda item: _read_address(reader, request, item.url, item.etag),
        concurrency=reader.files,
        limits=request.limits,
        folder=_files_folder(request.copy),
    )
    # The digest of a list is that of the list itself; those of its files are in it, or follow from their images.
    return replace(fetched, files=await fetches.fetch(listed))


def _open(reader: SourceReader, request: _Request) -> AsyncGenerator[bytes]:
    if request.source.url is None:
        return _read_upload(reader, request)
    return _read_address(reader, request, request.url)


def _read_address(reader: SourceReader, request: _Request, url: str, etag: str | None = None) -> AsyncGenerator[bytes]:
    """The bytes behind any address. Credentials are sent only where their Secret allows it."""
    secret = request.secret if request.secret is not None and request.secret.covers(url) else None
    if _is_bucket(url):
        return reader.buckets.read(url, request.limits, secret, etag)
    if url.lower().startswith("file:"):
        return read_file(reader.access.file_sources_folder, url)
    return reader.downloads.read(url, request.limits, None if secret is None else build_authorization(secret))


async def _read_object(reader: SourceReader, key: str) -> AsyncGenerator[bytes]:
    async for chunk in reader.access.store.open_read(key, MEGABYTE):
        yield chunk


async def _read_upload(reader: SourceReader, request: _Request) -> AsyncGenerator[bytes]:
    key = reader.access.location.upload_key(request.source.upload or "")
    try:
        async for chunk in _read_object(reader, key):
            yield chunk
    except ObjectNotFoundError as error:
        raise SourceError("it is no longer in the object store; send the images again") from error
    except StoreUnavailableError as error:
        raise SourceError(f"{error}; check the object store", transient=True) from error


async def _open_file(reader: SourceReader, request: _Request) -> FetchedSource:
    fetched = await asyncio.to_thread(_find_file, reader.access.file_sources_folder, request)
    return await _follow_list(reader, request, fetched)


async def _refuse(reader: SourceReader, request: _Request) -> FetchedSource:
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES if scheme != "upload")
    raise SourceError(f"this kind of address is not supported; use one that begins with {known}")


def _is_bucket(url: str) -> bool:
    return url.lower().startswith(_BUCKET_SCHEMES)


def _files_folder(copy: Path) -> Path:
    """Where the files go that a list or a prefix names."""
    return copy.with_name(f"{copy.name}-files")


SCHEMES: Mapping[str, _Scheme] = {
    "https": _remote,
    "http": _remote,
    "s3": _remote,
    "gs": _remote,
    "az": _remote,
    "file": _open_file,
    "upload": _remote,
}
"""By the scheme of a source's URL; `upload` for images that arrived through the gateway."""


def _find_file(folder: Path | None, request: _Request) -> FetchedSource:
    """Find a `file://` source in the folder of file sources, and verify its digest."""
    source, is_folder = request.source, request.url.endswith("/")
    digest = None
    with readable_file_errors(folder, is_folder=is_folder):
        path, jail = resolve_inside(folder, request.url)
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
    return request.fetched(path, digest, jail)
