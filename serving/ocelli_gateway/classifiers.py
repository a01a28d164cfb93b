"""The life of a classifier: create, details, retrain, delete. What v3 asks, in terms of Classifier objects and stored uploads.

It must not know HTTP, nor how objects and bytes are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Sequence

from ocelli_api.classifier import Classifier, ClassifierSpec, Manifest
from ocelli_api.export import ExportFormat
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id
from ocelli_api.revision import current_revision, definition, find_upload_digests, own_revision
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_errors import ClassifierChangedError, NameTakenError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.definitions import DamagedArtifactError, Definitions
from ocelli_gateway.example_sets import ExampleSet, name_uploads
from ocelli_gateway.guarded_writes import GuardedWrites
from ocelli_gateway.known_classifiers import BriefClassifier
from ocelli_gateway.manifests import (
    ExampleTerms,
    begin_definition,
    build_classifier,
    build_retrain_patch,
    build_suspension_patch,
    check_size,
    count_bytes,
    grow_definition,
)
from ocelli_gateway.recent import Recent
from ocelli_gateway.refusals import (
    ParameterError,
    UnavailableError,
)
from ocelli_gateway.shown_status import explain, find_data_check, read_accuracy, read_progress
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.wire import ClassifierDetails, ClassifierSummary
from ocelli_gateway.write_rules import check_retrainable, check_writable
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

DRAW_ATTEMPTS = 10
_MAX_CONCURRENT_DESCRIPTIONS = 8
_ANNOUNCED_LIMIT = 10_000
_SETTLED = (Lifecycle.READY, Lifecycle.FAILED)


class Classifiers:
    """The operations on classifiers, for authenticated callers."""

    def __init__(
        self,
        store: ClassifierStore,
        objects: ObjectStore,
        definitions: Definitions,
        usage: TenantUsage,
        *,
        replica_delay_seconds: float,
    ) -> None:
        self._store = store
        self._objects = objects
        self._definitions = definitions
        self._usage = usage
        self._writes = GuardedWrites(store, replica_delay_seconds=replica_delay_seconds)
        self._replica_delay_seconds = replica_delay_seconds
        self._announced: Recent[tuple[str, Lifecycle, str, int], float] = Recent(_ANNOUNCED_LIMIT)

    async def create(self, caller: Caller, name: str, sets: Sequence[ExampleSet], terms: ExampleTerms) -> ClassifierDetails:
        """Create a classifier from a checked name and checked example sets; its training runs in the background.

        Raises:
            LimitExceededError, TooManyRequestsError, TooLargeError: it would be too large, or exceed a quota.
            ClusterError, ObjectStoreError: it could not be stored; nothing of it is left.
        """
        spec = begin_definition(name, name_uploads(sets), terms)
        check_size(spec)
        async with self._usage.adding_classifier(caller), self._usage.adding_bytes(caller, count_bytes(sets)):
            for _ in range(DRAW_ATTEMPTS):
                classifier_id = build_classifier_id(name, 1 + secrets.randbelow(NUMBER_LIMIT))
                location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
                manifest = build_classifier(caller.namespace, classifier_id, spec, customer=terms.customer)
                try:
                    await self._store_uploads(location, sets)
                    created = await self._store.create(manifest)
                except NameTakenError:
                    await self._remove_uploads(location, sets)
                    continue
                except BaseException:
                    await self._remove_uploads(location, sets)
                    raise
                return await self._describe(caller, created)
        raise UnavailableError("No free classifier_id was found; try again.")

    async def check_create(self, caller: Caller) -> None:
        """Refuse a create before its upload is read, where it cannot succeed. Raises TooManyRequestsError."""
        await self._usage.check_create(caller)

    async def list_brief(self, caller: Caller) -> list[ClassifierSummary]:
        """Every classifier of the caller, oldest first, as up to date as its details. Raises ClusterError."""
        found = await self._store.list_brief(caller.namespace)
        await self._let_replicas_follow(found)
        return [
            ClassifierSummary(classifier_id=item.classifier_id, name=item.display_name, status=item.lifecycle) for item in found
        ]

    async def list_verbose(self, caller: Caller) -> list[ClassifierDetails]:
        """The same, with all details.

        Raises:
            ClusterError, ObjectStoreError: cluster or store cannot be read.
        """
        found, _ = await self._store.read_all(caller.namespace)
        await self._let_replicas_follow(map(BriefClassifier.of, found))
        turns = asyncio.Semaphore(_MAX_CONCURRENT_DESCRIPTIONS)

        async def describe(classifier: Classifier) -> ClassifierDetails:
            async with turns:
                try:
                    return await self._describe(caller, classifier)
                except DamagedArtifactError as error:
                    # One damaged artifact must not hide all other classifiers.
                    logger.warning("artifact is damaged", extra={"classifier": str(classifier), "problem": str(error)})
                    class_names = tuple(item.name for item in classifier.spec.classes)
                    return _build_details(caller, classifier, class_names, core_ml_enabled=False)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(describe(item)) for item in found]
        return [task.result() for task in tasks]

    async def details(self, caller: Caller, classifier_id: str) -> ClassifierDetails:
        """The classifier as it is now. `ready` and `failed` are returned only once every replica knows them.

        Raises:
            NotFoundError: there is none.
        """
        return await self._describe(caller, await self.read_shown(caller, classifier_id))

    async def read_shown(self, caller: Caller, classifier_id: str) -> Classifier:
        """The Classifier that details show. Raises as `details`."""
        classifier = await self._store.read_polled(caller.namespace, classifier_id)
        await self._let_replicas_follow([BriefClassifier.of(classifier)])
        return classifier

    async def check_retrain(self, caller: Caller, classifier_id: str) -> None:
        """Refuse a retrain before its upload is read, where it cannot succeed.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError, ParameterError: it cannot.
        """
        check_retrainable(await self._store.read(caller.namespace, classifier_id))

    async def set_suspended(self, caller: Caller, classifier_id: str, *, suspend: bool) -> ClassifierDetails:
        """Suspend the trainings of a classifier, or resume them; returns once every replica knows.

        Raises:
            NotFoundError, ConflictError: there is none, or REST may not change it.
            ClusterError: it could not be stored.
        """

        async def plan(classifier: Classifier) -> Manifest | None:
            check_writable(classifier)
            return None if classifier.spec.suspend is suspend else build_suspension_patch(suspend=suspend)

        try:
            changed = await self._writes.apply(caller, classifier_id, plan)
        except ClassifierChangedError as error:
            message = f"The classifier {classifier_id} changes too fast to be suspended or resumed; try again."
            raise UnavailableError(message) from error
        return await self._describe(caller, changed)

    async def retrain(
        self, caller: Caller, classifier_id: str, sets: Sequence[ExampleSet], terms: ExampleTerms
    ) -> ClassifierDetails:
        """Add checked example sets to the served definition, and replace a retraining in progress.

        It returns once every replica knows.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError, ParameterError, LimitExceededError, TooLargeError: it is
                refused, and nothing was changed.
            ClusterError, ObjectStoreError: it could not be stored.
        """
        if not sets:
            raise ParameterError(
                "No examples were specified; send at least one part CLASS_positive_examples or negative_examples."
            )
        async with self._usage.adding_bytes(caller, count_bytes(sets)):
            return await self._retrain(caller, classifier_id, sets, terms)

    async def _retrain(
        self, caller: Caller, classifier_id: str, sets: Sequence[ExampleSet], terms: ExampleTerms
    ) -> ClassifierDetails:
        location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)

        async def plan(classifier: Classifier) -> Manifest:
            check_retrainable(classifier)
            served = await self._served_definition(classifier)
            if served is None:
                raise UnavailableError(
                    f"The object store has no artifact of revision {classifier.status.served_revision}, which the classifier "
                    f"{classifier_id} serves, so it cannot be retrained; create another."
                )
            round_number = 1 + max((source.round for source in served.sources), default=0)
            spec = grow_definition(served, name_uploads(sets), round_number=round_number, customer=terms.customer)
            check_size(spec)
            # At each attempt: another change of the object may have erased the same zip. Unused zips are left to the next
            # erasure and to the operator's sweep: the same zip may belong to an earlier round.
            await self._store_uploads(location, sets)
            return build_retrain_patch(classifier, spec, terms)

        try:
            changed = await self._writes.apply(caller, classifier_id, plan)
        except ClassifierChangedError as error:
            raise UnavailableError(f"The classifier {classifier_id} changes too fast to be retrained; try again.") from error
        await self._restore_uploads(caller, location, sets)
        return await self._describe(caller, changed)

    async def delete(self, caller: Caller, classifier_id: str) -> None:
        """Delete a classifier; returns once every replica knows.

        Raises:
            NotFoundError, ConflictError: there is none, or REST may not delete it.
        """
        classifier = await self._store.read(caller.namespace, classifier_id)
        check_writable(classifier)
        await self._store.delete(classifier)
        await asyncio.sleep(self._replica_delay_seconds)

    async def _let_replicas_follow(self, classifiers: Iterable[BriefClassifier]) -> None:
        """Wait until every replica knows the outcome of those that are ready or failed. All of them share one delay."""
        now = time.monotonic()
        shown_at = now
        for item in classifiers:
            if item.lifecycle in _SETTLED:
                key = (item.uid, item.lifecycle, item.settled_revision, item.retrain_nonce)
                first_seen = self._announced.get(key, now)
                self._announced.remember(key, first_seen)
                shown_at = max(shown_at, first_seen + self._replica_delay_seconds)
        await asyncio.sleep(shown_at - now)

    async def _describe(self, caller: Caller, classifier: Classifier) -> ClassifierDetails:
        revision = classifier.status.served_revision
        summary = (
            None if revision is None else await self._definitions.read_summary(ClassifierLocation.of(classifier), revision)
        )
        if classifier.spec.pretrained is not None:
            class_names = () if summary is None else summary.class_names
            # Published weights are never exported.
            promised = False
        else:
            class_names = await self._shown_class_names(classifier)
            # Before the first training it is a promise, which every backbone of Ocelli keeps.
            promised = True
        core_ml_enabled = promised if summary is None else ExportFormat.CORE_ML in summary.exports
        return _build_details(caller, classifier, class_names, core_ml_enabled=core_ml_enabled)

    async def _shown_class_names(self, classifier: Classifier) -> tuple[str, ...]:
        """The classes of the training revision while it is trained, else of the served one; those of the spec where nothing
        was ever served, or the store has lost the definition.
        """
        is_settled = lifecycle(classifier) in _SETTLED
        revision = classifier.status.served_revision if is_settled else current_revision(classifier)
        if revision is not None and revision != own_revision(classifier):
            class_names = await self._definitions.class_names(ClassifierLocation.of(classifier), revision)
            if class_names is not None:
                return class_names
        return tuple(item.name for item in classifier.spec.classes)

    async def _served_definition(self, classifier: Classifier) -> ClassifierSpec | None:
        """The served definition; the spec where nothing was ever served; None where the store has lost the definition."""
        revision = classifier.status.served_revision
        if revision is None or revision == own_revision(classifier):
            return classifier.spec
        return await self._definitions.read(ClassifierLocation.of(classifier), revision)

    async def _store_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        for digest, path in {item.file.sha256: item.file.path for item in sets}.items():
            await self._objects.put(location.upload_key(digest), path)

    async def _restore_uploads(self, caller: Caller, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        """Store uploads again that an erasure deleted before the object referred to them; not those that were erased since."""
        missing = [item for item in sets if not await self._objects.exists(location.upload_key(item.file.sha256))]
        if missing:
            named = find_upload_digests(definition((await self._store.read(caller.namespace, location.classifier_id)).spec))
            await self._store_uploads(location, [item for item in missing if item.file.sha256 in named])

    async def _remove_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        """Delete the uploads of a failed create, and only those: another classifier may have drawn the same id."""
        # If this fails as well, the uploads are orphans, which the operator's sweep deletes.
        with contextlib.suppress(ObjectStoreError):
            for digest in {item.file.sha256 for item in sets}:
                await asyncio.shield(self._objects.delete(location.upload_key(digest)))


def _build_details(
    caller: Caller, classifier: Classifier, class_names: tuple[str, ...], *, core_ml_enabled: bool
) -> ClassifierDetails:
    return ClassifierDetails(
        classifier_id=classifier.classifier_id or "",
        name=classifier.display_name,
        owner=caller.owner,
        status=lifecycle(classifier),
        class_names=class_names,
        created_at=classifier.created_at,
        retrained_at=classifier.status.retrained_at,
        explanation=explain(classifier),
        core_ml_enabled=core_ml_enabled,
        accuracy=read_accuracy(classifier.status),
        progress=read_progress(classifier.status),
        suspended=classifier.spec.suspend,
        data_check=find_data_check(classifier.status),
    )
