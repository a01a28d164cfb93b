"""Reading: fetches, opens and decodes every source of a definition, in parallel and with bounded memory.

Images of the same bytes are decoded once. The result does not depend on which source is finished first.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Source
from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import SkippedEntry
from ocelli_storage.image_file import ImageError
from ocelli_training.dataset import ExampleSet, FileReading, SourceReading, join_faults
from ocelli_training.pixel_file import PixelFile
from ocelli_training.source_reader import SourceReader
from ocelli_training.sources import FetchedSource, SourceError

_Entries: TypeAlias = list[tuple[str, str | SkippedEntry]]
"""The name of each entry of a source, with the digest of its bytes or why it is skipped."""


_Sides: TypeAlias = tuple[int, int]
"""See `FileReading.sides`."""


@dataclass(frozen=True, kw_only=True)
class SourceFault:
    """A source that cannot be used."""

    example_set: ExampleSet
    source: Source
    error: SourceError

    def __str__(self) -> str:
        return f"{self.example_set}: {self.error}"


class SourcesError(Exception):
    """Some sources cannot be used. The message names the first of them in the order of the definition."""

    def __init__(self, message: str, first: SourceError) -> None:
        super().__init__(message)
        self.first = first
        """The error that decides whether the training is retried: a permanent one, if there is any."""

    @classmethod
    def about(cls, classifier: str, faults: Sequence[SourceFault]) -> SourcesError:
        """An error about these, the permanent ones first."""
        text = join_faults([str(fault) for fault in faults])
        return cls(f"Classifier {classifier}: {text}", faults[0].error)


class PendingImage(Protocol):
    """An opened image, to be decoded once."""

    @property
    def sides(self) -> _Sides: ...

    def decode(self) -> NDArray[np.uint8]: ...


class ImageReader:
    """Reads all images of sources into a `PixelFile`."""

    def __init__(
        self,
        *,
        sources: SourceReader,
        open_image: Callable[[bytes], PendingImage],
        pixels: PixelFile,
        decoding_threads: int,
        known_sides: Callable[[str], _Sides | None] = lambda digest: None,
        keep: Callable[[str, bytes], None] = lambda digest, data: None,
    ) -> None:
        """`open_image` opens the bytes of an image, whose pixels have the size of the file; it or `decode` raises `ImageError`.
        `known_sides` are those of images whose pixels are not needed, by digest: these are not decoded, and `keep` is called
        with their digest and bytes, from any thread.
        """
        self._sources = sources
        self._open_image = open_image
        self._known_sides = known_sides
        self._keep = keep
        self._pixels = pixels
        self._decoded: dict[str, tuple[int, _Sides] | ImageFault] = {}
        """By digest: the number in the pixel file, and the sides."""
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        # Images wait for a decoder in memory: this limits how many, for any number of sources.
        self._slots = threading.BoundedSemaphore(2 * decoding_threads)
        self._decoders = ThreadPoolExecutor(decoding_threads, thread_name_prefix="decode")
        self._closed = threading.Event()
        self._file_digests: dict[int, str | None] = {}
        """By the index of the source."""

    async def read_usable(
        self, sets: Sequence[ExampleSet], on_progress: Callable[[float], None], *, faults_limit: int
    ) -> tuple[tuple[tuple[SourceReading, ...], ...], tuple[SourceFault, ...]]:
        """Read every source of every set. `on_progress` is called with the part done, 0 to 1, from any thread.

        Sources that cannot be used have no files, and are returned. Permanent errors come first: they decide whether another
        attempt makes sense. After `faults_limit` of them, no further ones are fetched.
        """
        flat = [(set_index, source) for set_index, example_set in enumerate(sets) for source in example_set.sources]
        progress = _PartsDone(len(flat), on_progress)
        tasks = [asyncio.create_task(self._read_source(source, index, progress)) for index, (_, source) in enumerate(flat)]
        try:
            errors = await _wait_for_all(tasks, faults_limit)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        readings: list[list[SourceReading]] = [[] for _ in sets]
        for index, ((set_index, source), task) in enumerate(zip(flat, tasks, strict=True)):
            # Not earlier: an image in two sources may still be in the decoder for one of them when the other is finished.
            entries = [] if task.cancelled() or task.exception() is not None else task.result()
            if errors:
                # It may have been in the decoder for a source that was cancelled.
                entries = [(name, entry) for name, entry in entries if self._is_complete(entry)]
            files = tuple(self._describe(name, entry) for name, entry in entries)
            readings[set_index].append(SourceReading(source=source, files=files, sha256=self._file_digests.get(index)))
        errors.sort(key=lambda item: (item[1].transient, item[0]))
        faults = tuple(
            SourceFault(example_set=sets[flat[index][0]], source=flat[index][1], error=error) for index, error in errors
        )
        return tuple(tuple(set_readings) for set_readings in readings), faults

    def pixel_numbers(self) -> dict[str, int]:
        """By digest of each usable image that was decoded, its number in the `PixelFile`."""
        return {digest: result[0] for digest, result in self._decoded.items() if not isinstance(result, ImageFault)}

    def close(self) -> None:
        """Stop reading and decoding."""
        self._closed.set()
        self._decoders.shutdown(wait=True, cancel_futures=True)

    async def _read_source(self, source: Source, index: int, progress: _PartsDone) -> _Entries:
        async with self._sources.fetch(source) as fetched:
            entries = await asyncio.to_thread(self._read_entries, fetched, lambda part: progress.report(index, part))
            self._file_digests[index] = fetched.sha256
        progress.report(index, 1)
        return entries

    def _read_entries(self, fetched: FetchedSource, on_progress: Callable[[float], None]) -> _Entries:
        """See `_Entries`; when this returns, all images are decoded."""
        entries: _Entries = []
        futures: list[Future[None]] = []
        with fetched.refusals(), fetched.open() as images:
            for item in images:
                if self._closed.is_set():
                    break
                if isinstance(item, SkippedEntry):
                    entries.append((item.name, item))
                else:
                    digest = hashlib.sha256(item.data).hexdigest()
                    entries.append((item.name, digest))
                    if self._known_sides(digest) is not None:
                        self._keep(digest, item.data)
                    elif (future := self._decode_once(digest, item.data)) is not None:
                        futures.append(future)
                on_progress(len(entries) / images.candidates)
        for future in futures:
            future.result()
        return entries

    def _decode_once(self, digest: str, data: bytes) -> Future[None] | None:
        with self._lock:
            if digest in self._seen:
                return None
            self._seen.add(digest)
        self._slots.acquire()
        future = self._decoders.submit(self._decode_image, digest, data)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def _decode_image(self, digest: str, data: bytes) -> None:
        try:
            image = self._open_image(data)
            self._decoded[digest] = self._pixels.append(image.decode()), image.sides
        except ImageError as error:
            self._decoded[digest] = error.kind

    def _is_complete(self, entry: str | SkippedEntry) -> bool:
        return isinstance(entry, SkippedEntry) or entry in self._decoded or self._known_sides(entry) is not None

    def _describe(self, name: str, entry: str | SkippedEntry) -> FileReading:
        if isinstance(entry, SkippedEntry):
            return FileReading(name=name, fault=entry.fault)
        sides = self._known_sides(entry)
        if sides is None:
            result = self._decoded[entry]
            if isinstance(result, ImageFault):
                return FileReading(name=name, fault=result)
            sides = result[1]
        return FileReading(name=name, digest=entry, sides=sides)


async def _wait_for_all(tasks: Sequence[asyncio.Task[_Entries]], faults_limit: int) -> list[tuple[int, SourceError]]:
    """Wait until all are done or `faults_limit` have failed; returns the failures with their indices.

    Otherwise thousands of sources on a server that is down would be tried for hours.
    """
    errors: list[tuple[int, SourceError]] = []
    indices = {task: index for index, task in enumerate(tasks)}
    pending = set(tasks)
    while pending and len(errors) < faults_limit:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                task.result()
            except SourceError as error:
                errors.append((indices[task], error))
    return errors


class _PartsDone:
    """The progress of several parts, reported from several threads."""

    def __init__(self, count: int, on_progress: Callable[[float], None]) -> None:
        self._done = [0.0] * count
        self._total = 0.0
        self._lock = threading.Lock()
        self._on_progress = on_progress

    def report(self, index: int, part: float) -> None:
        with self._lock:
            self._total += part - self._done[index]
            self._done[index] = part
        self._on_progress(min(self._total / len(self._done), 1.0))
