"""Files that are fetched one by one: what a list of addresses names, or what is below a prefix of a bucket.

It knows retries and limits. Where the bytes come from is not known here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import EXAMPLE_KINDS, MEGABYTE, SIGNATURE_BYTES, EntryFault, image_kind
from ocelli_training.sources import FetchedFile, SourceChangedError, SourceError, SourceLimits

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file to fetch."""

    url: str
    name: str
    """As messages and reports show it."""
    sha256: str | None = None
    etag: str | None = None
    """It must still have this one."""
    size_bytes: int = 0
    """As listed; 0: not known."""
    line: int = 0
    """Its line in the list of addresses; 0: it is in none."""


class _NotNeededError(Exception):
    """The rest of the file is not needed."""

    def __init__(self, fault: EntryFault) -> None:
        super().__init__(fault)
        self.fault = fault


async def with_retries(fetch: Callable[[], Awaitable[T]], limits: SourceLimits, *, changed: bool = True) -> T:
    """Fetch again after transient errors. `changed`: also after a change, which another listing takes into account."""
    for delay_seconds in (*limits.retry_delays_seconds, None):
        try:
            return await fetch()
        except SourceError as error:
            again = error.transient and (changed or not isinstance(error, SourceChangedError))
            if not again or delay_seconds is None:
                raise
            requested_seconds = max(delay_seconds, error.retry_after_seconds or 0)
            await asyncio.sleep(min(requested_seconds, limits.longest_retry_delay_seconds))
    raise AssertionError


async def copy_bytes(chunks: AsyncGenerator[bytes], path: Path, on_chunk: Callable[[int, bytes], None]) -> str:
    """Write the bytes to a file and return their SHA-256 (hex). `on_chunk` gets their number so far, and the last ones."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("wb") as file:
        async with aclosing(chunks):
            async for chunk in chunks:
                size_bytes += len(chunk)
                on_chunk(size_bytes, chunk)
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()


class FileFetches:
    """Fetches the files of one source, several at a time, into a folder."""

    def __init__(
        self,
        *,
        read: Callable[[ListedFile], AsyncGenerator[bytes]],
        concurrency: asyncio.Semaphore,
        limits: SourceLimits,
        folder: Path,
    ) -> None:
        self._read = read
        self._concurrency = concurrency
        self._limits = limits
        self._folder = folder
        self._total_bytes = 0

    async def fetch(self, listed: Sequence[ListedFile]) -> tuple[FetchedFile, ...]:
        """The files in their order. It stops fetching files that are not images or too large, and skips them.

        Raises:
            SourceError: one of them cannot be fetched; the others are not fetched then. A source without some of its files
                would be another dataset each time.
        """
        self._folder.mkdir(exist_ok=True)
        self._total_bytes = 0
        tasks = [asyncio.create_task(self._fetch_one(item, number)) for number, item in enumerate(listed)]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_one(self, item: ListedFile, number: int) -> FetchedFile:
        path = self._folder / str(number)
        if item.size_bytes > self._limits.archive.image_bytes:
            return FetchedFile(name=item.name, path=path, fault=EntryFault.TOO_LARGE)
        async with self._concurrency:
            try:
                await with_retries(lambda: self._copy(item, path), self._limits, changed=False)
            except _NotNeededError as stop:
                path.unlink(missing_ok=True)
                return FetchedFile(name=item.name, path=path, fault=stop.fault)
            except SourceError as error:
                place = f"line {item.line}, {item.name}" if item.line else item.name
                kind = SourceChangedError if isinstance(error, SourceChangedError) else SourceError
                raise kind(f"{place}: {error}", reason=error.reason, transient=error.transient) from error
        return FetchedFile(name=item.name, path=path)

    async def _copy(self, item: ListedFile, path: Path) -> None:
        def check(size_bytes: int, chunk: bytes) -> None:
            if size_bytes == len(chunk) >= SIGNATURE_BYTES and image_kind(chunk[:SIGNATURE_BYTES]) not in EXAMPLE_KINDS:
                raise _NotNeededError(EntryFault.NOT_AN_IMAGE)
            if size_bytes > self._limits.archive.image_bytes:
                raise _NotNeededError(EntryFault.TOO_LARGE)
            self._count(len(chunk))

        digest = await copy_bytes(self._read(item), path, check)
        if item.sha256 is not None and digest != item.sha256:
            fact = f"its SHA-256 is {digest}, not {item.sha256}; restore the file, or pin its current digest"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)

    def _count(self, size_bytes: int) -> None:
        self._total_bytes += size_bytes
        limit_bytes = self._limits.archive.inflated_bytes
        if self._total_bytes > limit_bytes:
            fact = f"its images have more than {limit_bytes // MEGABYTE} MB in total; split it into several sources"
            raise SourceError(fact, reason=OutcomeReason.INVALID_DATA)
