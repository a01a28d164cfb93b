"""Uploads that are sent one by one, each under its digest, before a classifier is created or retrained with them.

Each is stored where the classifier will look for it. A mark next to them says that a Classifier may never refer to them: then
the operator's sweep deletes them after an hour. It must not know HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ocelli_api.names import NUMBER_LIMIT, build_classifier_id
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_errors import ClassifierNotFoundError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.fields import shown
from ocelli_gateway.known_classifiers import may_exist
from ocelli_gateway.refusals import InputError, ParameterError, UnavailableError
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.write_rules import check_retrainable
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore

DRAW_ATTEMPTS = 10
_SHOWN_MISSING = 5


@dataclass(frozen=True, kw_only=True)
class StoredUpload:
    """A zip that is stored."""

    sha256: str
    size_bytes: int


class PendingUploads:
    """Uploads of authenticated callers."""

    def __init__(self, store: ClassifierStore, objects: ObjectStore, usage: TenantUsage) -> None:
        self._store = store
        self._objects = objects
        self._usage = usage

    async def draw_id(self, caller: Caller, name: str) -> str:
        """The id of a classifier that does not exist yet.

        Raises:
            TooManyRequestsError: the quota allows no other classifier.
            ClusterError: the classifiers cannot be read.
        """
        await self._usage.check_create(caller)
        for _ in range(DRAW_ATTEMPTS):
            classifier_id = build_classifier_id(name, 1 + secrets.randbelow(NUMBER_LIMIT))
            try:
                await self._store.read(caller.namespace, classifier_id)
            except ClassifierNotFoundError:
                return classifier_id
        raise UnavailableError("No free classifier_id was found; try again.")

    async def check(self, caller: Caller, classifier_id: str, sha256: str) -> StoredUpload | None:
        """Refuse an upload before it is read, where it cannot be used. Returns it if it is stored already.

        Raises:
            ParameterError: no classifier can have this id.
            ConflictError, ClassifierNotReadyError: the classifier exists and cannot be retrained.
            ClusterError, ObjectStoreError: cluster or store cannot be read.
        """
        if not may_exist(classifier_id):
            raise ParameterError(
                f'No classifier can have the id "{shown(classifier_id)}"; draw one with POST /ocelli/v1/uploads.'
            )
        try:
            size_bytes = await self._objects.size_of(_locate(caller, classifier_id).upload_key(sha256))
            return StoredUpload(sha256=sha256, size_bytes=size_bytes)
        except ObjectNotFoundError:
            pass
        try:
            check_retrainable(await self._store.read(caller.namespace, classifier_id))
        except ClassifierNotFoundError:
            await self._usage.check_create(caller)
        return None

    async def keep(self, caller: Caller, classifier_id: str, file: SpooledFile) -> StoredUpload:
        """Store a checked zip.

        Raises:
            TooLargeError: the quota does not allow it.
            ObjectStoreError: it could not be stored.
        """
        location = _locate(caller, classifier_id)
        async with self._usage.adding_bytes(caller, file.size_bytes):
            # First: an upload without the mark counts as the data of a lost Classifier, and would never be swept.
            if not await self._objects.exists(location.pending_uploads_key):
                await self._objects.put(location.pending_uploads_key, b"")
            await self._objects.put(location.upload_key(file.sha256), file.path)
        return StoredUpload(sha256=file.sha256, size_bytes=file.size_bytes)

    async def list_stored(self, caller: Caller, classifier_id: str) -> list[StoredUpload]:
        """What is stored for an id, by digest; nothing for unknown ids. Raises ObjectStoreError."""
        if not may_exist(classifier_id):
            return []
        sizes = await self._read_sizes(_locate(caller, classifier_id))
        return [StoredUpload(sha256=digest, size_bytes=size) for digest, size in sorted(sizes.items())]

    async def check_stored(self, caller: Caller, classifier_id: str, digests: Iterable[str]) -> None:
        """Raises InputError that names those of the uploads that are not stored."""
        wanted = list(dict.fromkeys(digests))
        sizes = await self._read_sizes(_locate(caller, classifier_id))
        missing = [digest for digest in wanted if digest not in sizes]
        if missing:
            more = f" and {len(missing) - _SHOWN_MISSING} more" if len(missing) > _SHOWN_MISSING else ""
            raise InputError(
                f"{len(missing)} of the {len(wanted)} uploads named are not stored: {', '.join(missing[:_SHOWN_MISSING])}{more}"
                "; send them again.",
                fields={"missing": missing},
            )

    async def _read_sizes(self, location: ClassifierLocation) -> Mapping[str, int]:
        found = {
            location.find_upload_digest(item.key): item.size_bytes
            for item in await self._objects.list_objects(location.uploads_prefix)
        }
        return {digest: size for digest, size in found.items() if digest is not None}


def _locate(caller: Caller, classifier_id: str) -> ClassifierLocation:
    return ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
