"""What trainings and checks stored about the quality of revisions: reports, judged scores, thumbnails.

The stored files are listed for each request, because an erasure must take effect at once. What was parsed of them is cached as
long as they are unchanged, up to a limit. Few are read at a time, because Pods of tenants can write files of any size. It must
not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.judged_quality import JudgedQuality
from ocelli_gateway.refusals import NotFoundError
from ocelli_gateway.stored_report import LIMIT_BYTES, StoredReport, StoredReportError, parse_report
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.judged import JudgedError, is_judged, read_judged
from ocelli_storage.layout import CHECK_REPORT, IMAGE_DATA, REPORT, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoredObject
from ocelli_storage.thumbnail_files import (
    StoredThumbnail,
    ThumbnailFileError,
    find_thumbnails,
    is_thumbnails,
    read_thumbnails,
)

JUDGED_LIMIT_BYTES = 32 * MEGABYTE
"""Of all scores of a revision: 15,000 images with 500 classes, or 200,000 images with 20."""
KEPT_LIMIT_BYTES = 48 * MEGABYTE
"""Of the files whose contents are cached. Parsed, they take about three times as much memory."""
CONCURRENT_READS = 2
"""In total; one tenant may hold one of them."""
_INDEX_BYTES = MEGABYTE
"""What an index of thumbnails counts as."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RevisionPlace:
    """The stored files of a revision."""

    tenant: str
    name: str
    """As messages name the revision."""
    revision: str
    is_check: bool
    """They are those of a check: there was no training yet."""
    report: StoredObject
    judged: tuple[StoredObject, ...]
    thumbnails: tuple[StoredObject, ...]


class RevisionFiles:
    """Reads the stored files of revisions. Every method raises StoreUnavailableError."""

    def __init__(self, objects: ObjectStore, reads: FairSlots) -> None:
        """`reads` are slots for files that are being read and parsed."""
        self._objects = objects
        self._reads = reads
        self._kept: OrderedDict[tuple[StoredObject, ...], tuple[Any, int]] = OrderedDict()
        """By the files that they were parsed from: values and what they count."""
        self._kept_bytes = 0

    async def find(self, location: ClassifierLocation, revision: str) -> RevisionPlace:
        """The files of a revision: those of its training, or of its last check if there was no training.

        Raises:
            NotFoundError: there are none.
        """
        place = await self._find_training(location, revision) or await self._find_check(location, revision)
        if place is None:
            raise NotFoundError(
                f"The classifier {location.classifier_id} has no report on revision {revision}: there is no such revision, its "
                "training or check has not ended, or its files were deleted."
            )
        return place

    async def read_report(self, place: RevisionPlace) -> StoredReport:
        """The report of a training or check.

        Raises:
            NotFoundError: it cannot be used.
        """
        if place.report.size_bytes > LIMIT_BYTES:
            raise NotFoundError(f"The report on {place.name} is too large to be shown ({place.report.size_bytes:,} bytes).")

        async def load() -> StoredReport:
            try:
                content = await self._objects.get(place.report.key, limit_bytes=LIMIT_BYTES)
                return await asyncio.to_thread(parse_report, content)
            except (StoredReportError, ObjectTooLargeError) as error:
                raise NotFoundError(f"The stored report on {place.name} is damaged; retrain the classifier.") from error
            except ObjectNotFoundError as error:
                raise NotFoundError(f"The report on {place.name} was deleted.") from error

        return await self._load(place, (place.report,), place.report.size_bytes, load)

    async def read_quality(self, place: RevisionPlace) -> JudgedQuality:
        """The judged scores of a training.

        Raises:
            NotFoundError: there are none, or they cannot be used.
        """
        if place.is_check:
            raise NotFoundError(f"The images of {place.name} were checked but not judged yet, because it was not trained.")
        size_bytes = sum(item.size_bytes for item in place.judged)
        if size_bytes > JUDGED_LIMIT_BYTES:
            raise NotFoundError(f"The judged scores of {place.name} are too large to be shown ({size_bytes:,} bytes).")

        async def load() -> JudgedQuality:
            try:
                judged = await read_judged(self._objects, place.revision, place.judged, limit_bytes=JUDGED_LIMIT_BYTES)
            except JudgedError as error:
                text = str(error)
                raise NotFoundError(f"{text[:1].upper()}{text[1:]}; a retrain stores them again.") from error
            return JudgedQuality(judged=judged)

        return await self._load(place, place.judged, size_bytes, load)

    async def find_thumbnails(self, place: RevisionPlace) -> Mapping[str, StoredThumbnail]:
        """Where the thumbnails are, by digest.

        Raises:
            NotFoundError: they cannot be used.
        """
        if not place.thumbnails:
            # An earlier release trained it.
            return {}

        async def load() -> Mapping[str, StoredThumbnail]:
            try:
                return await find_thumbnails(self._objects, place.thumbnails)
            except ThumbnailFileError as error:
                raise NotFoundError(f"The stored thumbnails of {place.name} are damaged; retrain the classifier.") from error

        return await self._load(place, place.thumbnails, _INDEX_BYTES, load)

    async def read_thumbnails(self, place: RevisionPlace, digests: Sequence[str]) -> dict[str, bytes]:
        """JPEGs by digest, of those images that have one.

        Raises:
            NotFoundError: they cannot be used.
        """
        places = await self.find_thumbnails(place)
        found = [digest for digest in digests if digest in places]
        read = await read_thumbnails(self._objects, [places[digest] for digest in found])
        return {digest: data for digest, data in zip(found, read, strict=True) if data is not None}

    async def _find_training(self, location: ClassifierLocation, revision: str) -> RevisionPlace | None:
        objects = await self._objects.list_objects(location.revision_prefix(revision))
        report = next((item for item in objects if item.key == location.artifact_key(revision, REPORT)), None)
        if report is None:
            return None
        return RevisionPlace(
            tenant=location.namespace,
            name=f"revision {revision} of the classifier {location.classifier_id}",
            revision=revision,
            is_check=False,
            report=report,
            judged=_sorted(item for item in objects if is_judged(item.key)),
            thumbnails=_sorted(item for item in objects if is_thumbnails(item.key)),
        )

    async def _find_check(self, location: ClassifierLocation, revision: str) -> RevisionPlace | None:
        objects = await self._objects.list_objects(location.training_prefix(revision))
        checks = [item for item in objects if item.key.endswith(f"/{CHECK_REPORT}")]
        if not checks:
            return None
        report = max(checks, key=lambda item: (item.modified_at, item.key))
        own = f"{report.key.removesuffix(CHECK_REPORT)}{IMAGE_DATA}/"
        return RevisionPlace(
            tenant=location.namespace,
            name=f"revision {revision} of the classifier {location.classifier_id}",
            revision=revision,
            is_check=True,
            report=report,
            judged=(),
            thumbnails=_sorted(item for item in objects if item.key.startswith(own) and is_thumbnails(item.key)),
        )

    async def _load(
        self, place: RevisionPlace, files: tuple[StoredObject, ...], count_bytes: int, load: Callable[[], Awaitable[T]]
    ) -> T:
        kept = self._find_kept(files)
        if kept is None:
            async with self._reads.slot(place.tenant):
                # Another request may have read it in the meantime.
                kept = self._find_kept(files)
                if kept is None:
                    kept = await load()
                    self._keep(files, kept, count_bytes)
        value: T = kept
        return value

    def _find_kept(self, files: tuple[StoredObject, ...]) -> Any:
        if files not in self._kept:
            return None
        self._kept.move_to_end(files)
        return self._kept[files][0]

    def _keep(self, files: tuple[StoredObject, ...], value: Any, count_bytes: int) -> None:
        self._kept[files] = value, count_bytes
        self._kept_bytes += count_bytes
        while self._kept_bytes > KEPT_LIMIT_BYTES:
            _, (_, freed_bytes) = self._kept.popitem(last=False)
            self._kept_bytes -= freed_bytes


def _sorted(objects: Iterable[StoredObject]) -> tuple[StoredObject, ...]:
    return tuple(sorted(objects, key=lambda item: item.key))
