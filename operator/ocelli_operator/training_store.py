"""What the operator reads and writes in the object store about trainings: definitions, progress, outcomes, artifacts."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from ocelli_api.outcome import Outcome, ProgressReport
from ocelli_operator.observed import StoredArtifact
from ocelli_operator.status import format_time
from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, OUTCOME, PROGRESS, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore

logger = logging.getLogger(__name__)


class TrainingStore:
    """Documents of trainings and artifacts, typed. Everything raises StoreUnavailableError where the store does not answer."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def save_definition(
        self, location: ClassifierLocation, revision: str, attempt: int, definition: dict[str, Any]
    ) -> None:
        """Write what an attempt shall learn, before its Job exists."""
        text = json.dumps(definition, ensure_ascii=False, indent=1)
        await self._store.put(location.training_key(revision, attempt, DEFINITION), text.encode())

    async def load_progress(self, location: ClassifierLocation, revision: str, attempt: int) -> ProgressReport | None:
        """How far an attempt is; None where it has not said so."""
        document = await self._load(location.training_key(revision, attempt, PROGRESS))
        try:
            return None if document is None else ProgressReport.parse(document)
        except (KeyError, ValueError, TypeError):
            return None

    async def load_outcome(self, location: ClassifierLocation, revision: str, attempt: int) -> Outcome | None:
        """How an attempt ended; None where it has not said so."""
        document = await self._load(location.training_key(revision, attempt, OUTCOME))
        try:
            return None if document is None else Outcome.parse(document)
        except (KeyError, ValueError, TypeError):
            return None

    async def load_artifact(self, location: ClassifierLocation, revision: str, attempt: int) -> StoredArtifact | None:
        """The artifact of a revision, with what the outcome of that attempt adds; None where there is no artifact."""
        key = location.artifact_key(revision, ARTIFACT_METADATA)
        try:
            content = await self._store.get(key)
        except ObjectNotFoundError:
            return None
        document = _parse(content)
        if document is None:
            logger.warning("artifact metadata is no JSON and counts as absent", extra={"key": key})
            return None
        outcome = await self.load_outcome(location, revision, attempt)
        if outcome is not None and not (outcome.succeeded and outcome.revision == revision):
            outcome = None
        metrics, backbone = document.get("metrics") or {}, document.get("backbone") or {}
        accuracy = outcome.accuracy if outcome is not None else metrics.get("accuracy")
        return StoredArtifact(
            revision=revision,
            accuracy=f"{accuracy:.3f}" if isinstance(accuracy, int | float) else None,
            digest=hashlib.sha256(content).hexdigest(),
            backbone=outcome.backbone if outcome is not None else backbone.get("name"),
            finished_at=outcome.finished_at if outcome is not None else await self._written_at(key),
        )

    async def drop_uploads(self, location: ClassifierLocation) -> int:
        """Delete every example that came by REST; says how many zips went."""
        return await self._store.delete_prefix(location.uploads_prefix)

    async def holds_artifact(self, location: ClassifierLocation, revision: str) -> bool:
        """Whether there is an artifact of a revision."""
        return await self._store.exists(location.artifact_key(revision, ARTIFACT_METADATA))

    async def _written_at(self, key: str) -> str | None:
        found = [item for item in await self._store.list_objects(key.rsplit("/", 1)[0]) if item.key == key]
        return format_time(found[0].modified_at) if found else None

    async def _load(self, key: str) -> dict[str, Any] | None:
        try:
            return _parse(await self._store.get(key))
        except ObjectNotFoundError:
            return None


class KnownArtifacts:
    """What the store said of artifacts, for passes not to read them again: one that is there never changes."""

    def __init__(self, store: TrainingStore) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], StoredArtifact] = {}
        """By namespace, classifier id and revision."""

    async def find(self, location: ClassifierLocation, revision: str, attempt: int, *, in_use: bool) -> StoredArtifact | None:
        """The artifact of a revision, or None. `in_use`: it is served, hence the sweep keeps it and nobody has to look."""
        key = (location.namespace, location.classifier_id, revision)
        if key in self._known and not in_use and not await self._store.holds_artifact(location, revision):
            # It left the history and was swept; the same revision may be wanted again.
            del self._known[key]
        if key not in self._known:
            artifact = await self._store.load_artifact(location, revision, attempt)
            if artifact is None:
                return None
            self._known[key] = artifact
        return self._known[key]

    def forget(self, namespace: str, classifier_id: str | None) -> None:
        """A Classifier went away."""
        for key in [key for key in self._known if key[:2] == (namespace, classifier_id)]:
            del self._known[key]


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
