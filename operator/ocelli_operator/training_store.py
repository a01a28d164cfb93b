"""The documents of trainings in the object store: definitions, progress, outcomes and artifact metadata."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ocelli_api.classifier_status import AccuracyDrop, AccuracyInterval, HistoryEntry, RevisionComparison
from ocelli_api.documents import parse_fields
from ocelli_api.outcome import BACKBONE_LIMIT, IMAGES_LIMIT, Comparison, Outcome, OutcomeReason, ProgressReport
from ocelli_api.texts import usable_text
from ocelli_api.times import format_time
from ocelli_operator.store_contact import StoreContact
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    CHECK_OUTCOME,
    DEFINITION,
    OUTCOME,
    PROGRESS,
    ClassifierLocation,
    is_image_data,
    is_page,
    owner_key,
)
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoredObject
from ocelli_storage.thumbnails import erase_thumbnails

logger = logging.getLogger(__name__)

T = TypeVar("T")

FAULTS_LIMIT = 1000
READ_DEADLINE_SECONDS = 5.0
WRITE_DEADLINE_SECONDS = 10.0


class TrainingStore:
    """Reads and writes documents of trainings and artifacts, parsed.

    A document that cannot be parsed counts as absent, because Pods of the tenant can write any content.

    All methods raise StoreUnavailableError if the store rejects the request, and StoreOutageError, soon, if it does not answer.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._reading = StoreContact(store.url, deadline_seconds=READ_DEADLINE_SECONDS)
        # Separate, because a store with a faulty disk may answer reads while writes hang.
        self._writing = StoreContact(store.url, deadline_seconds=WRITE_DEADLINE_SECONDS)
        self._faults: dict[str, str] = {}
        """By key: why a document cannot be parsed. Each was logged."""

    @property
    def is_reachable(self) -> bool:
        """False while the store does not answer although it is needed."""
        return not (self._reading.is_down or self._writing.is_down)

    async def save_definition(
        self, location: ClassifierLocation, revision: str, attempt: int, definition: dict[str, Any]
    ) -> None:
        """Save what an attempt should learn, before its Job exists."""
        text = json.dumps(definition, ensure_ascii=False, indent=1)
        await self._writing.ask(lambda: self._store.put(location.training_key(revision, attempt, DEFINITION), text.encode()))

    async def load_progress(self, location: ClassifierLocation, revision: str, attempt: int) -> ProgressReport | None:
        """The progress of an attempt; None if there is none."""
        return await self._load(location.training_key(revision, attempt, PROGRESS), partial(parse_fields, ProgressReport))

    async def load_outcome(self, location: ClassifierLocation, revision: str, attempt: int) -> Outcome | None:
        """The outcome of an attempt; None if there is none."""
        return await self._load(location.training_key(revision, attempt, OUTCOME), partial(parse_fields, Outcome))

    async def load_check(self, location: ClassifierLocation, revision: str, attempt: int) -> Outcome | None:
        """The outcome of the check of an attempt; None if there is none."""
        return await self._load(location.training_key(revision, attempt, CHECK_OUTCOME), partial(parse_fields, Outcome))

    async def load_artifact(self, location: ClassifierLocation, revision: str, attempt: int) -> HistoryEntry | None:
        """The artifact of a revision, with what the outcome of that attempt adds; None where there is no artifact."""
        key = location.artifact_key(revision, ARTIFACT_METADATA)
        content = await self._read(key)
        if content is None:
            return None
        try:
            figures, backbone = _parse_artifact(content)
        except (ValueError, TypeError, AttributeError) as error:
            self._note_fault(key, f"object store: {key!r} is damaged: it is not valid artifact metadata", error)
            return None
        outcome = await self.load_outcome(location, revision, attempt)
        if outcome is not None and not (outcome.succeeded and outcome.revision == revision):
            outcome = None
        self._faults.pop(key, None)
        if outcome is not None:
            figures = _parse_figures(
                outcome.accuracy, outcome.accuracy_interval, outcome.judged_images, outcome.excluded_images
            )
            backbone = outcome.backbone
        return HistoryEntry(
            revision=revision,
            trained_at=(outcome.finished_at if outcome is not None else await self._written_at(key)) or "",
            accuracy=figures.accuracy,
            accuracy_interval=figures.interval,
            judged_images=figures.judged_images,
            excluded_images=figures.excluded_images,
            artifact_digest=hashlib.sha256(content).hexdigest(),
            backbone=backbone,
            comparison=None if outcome is None else _describe_comparison(outcome.comparison),
            not_improved=True if outcome is not None and outcome.reason is OutcomeReason.NOT_IMPROVED else None,
        )

    def find_fault(self, location: ClassifierLocation, revision: str, attempt: int) -> str:
        """Why the artifact metadata or the outcome could not be parsed when last read; empty if they could, or do not exist."""
        keys = (location.artifact_key(revision, ARTIFACT_METADATA), location.training_key(revision, attempt, OUTCOME))
        return next((self._faults[key] for key in keys if key in self._faults), "")

    async def drop_uploads(self, location: ClassifierLocation) -> int:
        """Delete uploads, copies of sources, and what is stored of single images: data about them, and thumbnails in reports.

        Returns the number of uploads and copies.
        """
        uploads = [*await self._list(location.uploads_prefix), *await self._list(location.sources_prefix)]
        if uploads:
            # First: after a crash, the uploads that are left lead here again.
            for prefix in (location.trainings_prefix, location.artifacts_prefix):
                for item in await self._list(prefix):
                    if is_image_data(item.key):
                        await self._writing.ask(partial(self._store.delete, item.key))
                    elif is_page(item.key):
                        await self._writing.ask_long(
                            partial(erase_thumbnails, self._store, item.key), ping=lambda: self._store.exists(owner_key())
                        )
        for upload in uploads:
            await self._writing.ask(partial(self._store.delete, upload.key))
        return len(uploads)

    async def holds_artifact(self, location: ClassifierLocation, revision: str) -> bool:
        """Whether the artifact of a revision exists."""
        return await self._reading.ask(lambda: self._store.exists(location.artifact_key(revision, ARTIFACT_METADATA)))

    async def _written_at(self, key: str) -> str | None:
        found = [item for item in await self._list(key.rsplit("/", 1)[0]) if item.key == key]
        return format_time(found[0].modified_at) if found else None

    async def _list(self, prefix: str) -> list[StoredObject]:
        return await self._reading.ask_long(
            lambda: self._store.list_objects(prefix), ping=lambda: self._store.exists(owner_key())
        )

    async def _load(self, key: str, parse: Callable[[dict[str, Any]], T]) -> T | None:
        content = await self._read(key)
        if content is None:
            return None
        try:
            document = parse_document(content)
        except ValueError as error:
            self._note_fault(key, f"object store: {key!r} is damaged: it is not a JSON object", error)
            return None
        self._faults.pop(key, None)
        try:
            return parse(document)
        except (KeyError, ValueError, TypeError, OverflowError):
            return None

    async def _read(self, key: str) -> bytes | None:
        try:
            return await self._reading.ask(lambda: read_document(self._store, key))
        except ObjectNotFoundError:
            self._faults.pop(key, None)
        except ObjectTooLargeError as error:
            self._note_fault(key, str(error), error)
        return None

    def _note_fault(self, key: str, fault: str, error: Exception) -> None:
        """`fault` is part of a status message; `error` is for the log."""
        if key not in self._faults:
            logger.warning("document cannot be parsed and counts as absent", extra={"key": key, "error": str(error)})
        if len(self._faults) >= FAULTS_LIMIT:
            self._faults.clear()
        self._faults[key] = fault


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """The accuracy of a revision, as in the status."""

    accuracy: str | None = None
    interval: AccuracyInterval | None = None
    judged_images: int | None = None
    excluded_images: int | None = None


def _parse_artifact(content: bytes) -> tuple[_Figures, str | None]:
    """Figures and backbone from artifact metadata. Raises ValueError, TypeError, AttributeError."""
    document = parse_document(content)
    metrics, backbone = document.get("metrics") or {}, document.get("backbone") or {}
    figures = _parse_figures(
        metrics.get("accuracy"), metrics.get("accuracyInterval"), metrics.get("images"), metrics.get("excludedImages")
    )
    return figures, usable_text(backbone.get("name"), BACKBONE_LIMIT)


def _parse_figures(accuracy: object, interval: object, images: object, excluded: object) -> _Figures:
    """The valid figures. Invalid ones are left out, because the API server would reject the whole status.

    Artifacts of earlier releases have a number of images but no interval. Their outcomes have neither, so neither is shown.
    """
    share = _format_share(accuracy)
    if share is None or not (isinstance(interval, list | tuple) and len(interval) == 2):
        return _Figures(accuracy=share)
    lower, upper = (_format_share(end) for end in interval)
    if lower is None or upper is None:
        return _Figures(accuracy=share)
    return _Figures(
        accuracy=share,
        interval=AccuracyInterval(lower=lower, upper=upper),
        judged_images=_usable_count(images),
        excluded_images=_usable_count(excluded),
    )


def _describe_comparison(comparison: Comparison | None) -> RevisionComparison | None:
    if comparison is None or comparison.drop is None or comparison.drop_interval is None:
        return None if comparison is None else RevisionComparison(baseline=comparison.baseline, fault=comparison.fault)
    drop, lower, upper = (_format_difference(value) for value in (comparison.drop, *comparison.drop_interval))
    return RevisionComparison(
        baseline=comparison.baseline,
        accuracy_drop=AccuracyDrop(drop=drop, lower=lower, upper=upper),
        images=comparison.images,
        reclassified_images=_usable_count(comparison.reclassified),
    )


def _format_difference(share: float) -> str:
    # Not "-0.000".
    return f"{round(share, 3) + 0.0:.3f}"


def _usable_count(count: object) -> int | None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= IMAGES_LIMIT:
        return None
    return count


def _format_share(share: object) -> str | None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        return None
    return f"{share:.3f}"
