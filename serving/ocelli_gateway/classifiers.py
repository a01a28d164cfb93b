"""The life of a classifier: create, details, retrain, delete. What v3 asks, in terms of Classifier objects and stored uploads.

It must not know HTTP, nor how objects and bytes are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ocelli_api.classifier import (
    API_VERSION,
    CLASS_SOURCES_LIMIT,
    CLASSES_LIMIT,
    CLASSIFIER_ID_LABEL,
    CREATED_AT_ANNOTATION,
    CREATED_BY_GATEWAY,
    CREATED_BY_LABEL,
    CUSTOMER_LABEL,
    KIND,
    REST_WRITES_ALLOWED,
    REST_WRITES_ANNOTATION,
    SOURCES_LIMIT,
    SPEC_BYTES_LIMIT,
    Classifier,
    ClassifierSpec,
    ClassifierStatus,
    DataRetention,
    ExampleClass,
    Manifest,
    Source,
)
from ocelli_api.conditions import ConditionType
from ocelli_api.export import ExportFormat, ExportPart
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id, build_object_name, customer_key
from ocelli_api.revision import current_revision, definition, find_upload_digests, spec_revision
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_store import (
    BriefClassifier,
    ClassifierChangedError,
    ClassifierNotFoundError,
    ClassifierStore,
    NameTakenError,
)
from ocelli_gateway.definitions import DamagedArtifactError, Definitions
from ocelli_gateway.errors import (
    ClassifierNotReadyError,
    ConflictError,
    LimitExceededError,
    NotFoundError,
    ParameterError,
    UnavailableError,
)
from ocelli_gateway.example_sets import ExampleSet
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.wire import ClassifierDetails, ClassifierSummary, MeasuredAccuracy
from ocelli_storage.archives import shown_name
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

WRITE_ATTEMPTS = 10
_MAX_CONCURRENT_DESCRIPTIONS = 8
_SHOWN_PARTS = 5
_ANNOUNCED_LIMIT = 10_000
_SETTLED = (Lifecycle.READY, Lifecycle.FAILED)


@dataclass(frozen=True, kw_only=True)
class ExampleTerms:
    """On which terms examples were sent."""

    opt_out: bool = False
    """They are used for one training and dropped."""
    customer_id: str | None = None
    """Whose data they are."""

    @property
    def customer(self) -> str | None:
        """The key of the customer."""
        return None if self.customer_id is None else customer_key(self.customer_id)


class Classifiers:
    """The operations on classifiers, for whoever proved who they are."""

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
        self._replica_delay_seconds = replica_delay_seconds
        self._announced: OrderedDict[tuple[str, Lifecycle, str, int], float] = OrderedDict()

    async def create(
        self, caller: Caller, name: str, sets: Sequence[ExampleSet], terms: ExampleTerms = ExampleTerms()
    ) -> ClassifierDetails:
        """Create a classifier of a checked name and checked example sets; its training goes on in the background.

        Raises:
            LimitExceededError, TooManyRequestsError, TooLargeError: it would be too large, or exceed a quota.
            ClusterError, ObjectStoreError: it could not be stored; nothing of it is left.
        """
        retention = DataRetention.DROP_AFTER_TRAINING if terms.opt_out else DataRetention.KEEP
        empty = ClassifierSpec(display_name=name, data_retention=retention)
        spec = _grow(empty, sets, round_number=1, customer=terms.customer)
        _check_size(spec)
        async with self._usage.adding_classifier(caller), self._usage.adding_bytes(caller, _count_bytes(sets)):
            for _ in range(WRITE_ATTEMPTS):
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
        """Find out before an upload is read whether it would be in vain. Raises TooManyRequestsError where it would."""
        await self._usage.check_create(caller)

    async def list_brief(self, caller: Caller) -> list[ClassifierSummary]:
        """Every classifier of the caller's, oldest first, each with the promises of its details. Raises ClusterError."""
        found = await self._store.list_brief(caller.namespace)
        settled = [item for item in found if item.lifecycle in _SETTLED]
        # The first time that many are shown one waiting is enough for all.
        await asyncio.gather(*(self._let_replicas_follow(item) for item in settled))
        return [
            ClassifierSummary(classifier_id=item.classifier_id, name=item.display_name, status=item.lifecycle) for item in found
        ]

    async def list_verbose(self, caller: Caller) -> list[ClassifierDetails]:
        """The same, with all details.

        Raises:
            ClusterError, ObjectStoreError: cluster or store cannot be read.
        """
        found = await self._read_all(caller)
        turns = asyncio.Semaphore(_MAX_CONCURRENT_DESCRIPTIONS)

        async def describe(classifier: Classifier) -> ClassifierDetails:
            async with turns:
                try:
                    return await self._describe(caller, classifier)
                except DamagedArtifactError as error:
                    # One that cannot be read must not hide all others.
                    logger.warning("artifact is damaged", extra={"classifier": str(classifier), "problem": str(error)})
                    class_names = tuple(item.name for item in classifier.spec.classes)
                    return _build_details(caller, classifier, class_names, core_ml_enabled=False)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(describe(item)) for item in found]
        return [task.result() for task in tasks]

    async def details(self, caller: Caller, classifier_id: str) -> ClassifierDetails:
        """The classifier as it is now. A `ready` is told when every replica can act on it, a `failed` when every one knows.

        Raises:
            NotFoundError: there is none.
        """
        try:
            classifier = await self._store.read_polled(caller.namespace, classifier_id)
        except ClassifierNotFoundError as error:
            raise _unknown(classifier_id) from error
        if lifecycle(classifier) in _SETTLED:
            await self._let_replicas_follow(BriefClassifier.of(classifier))
        return await self._describe(caller, classifier)

    async def check_retrain(self, caller: Caller, classifier_id: str) -> None:
        """Find out before an upload is read whether it would be in vain.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError: it would.
        """
        _check_retrainable(await self._read(caller, classifier_id))

    async def find_export(self, caller: Caller, classifier_id: str, export: ExportFormat) -> StoredExport:
        """Where an export of what is served lies.

        Raises:
            NotFoundError: there is no such classifier, it serves nothing yet, or it cannot be exported so.
        """
        classifier = await self._read(caller, classifier_id)
        revision = classifier.status.served_revision
        if revision is None:
            if lifecycle(classifier) is Lifecycle.FAILED:
                raise NotFoundError(
                    f"The classifier {classifier_id} has no model: its training failed; see explanation in its details."
                )
            raise NotFoundError(f"The classifier {classifier_id} has no model yet; wait until its training has succeeded.")
        location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
        summary = await self._definitions.read_summary(location, revision)
        parts = () if summary is None else summary.exports.get(export, ())
        if summary is None or not parts:
            kind = {ExportFormat.CORE_ML: "Core ML", ExportFormat.ONNX: "ONNX"}[export]
            if classifier.spec.pretrained is not None:
                raise NotFoundError(
                    f"The classifier {classifier_id} was made from weights given to it and has no {kind} export; use the file "
                    "it was made from."
                )
            why = "; see core_ml_enabled in its details" if export is ExportFormat.CORE_ML else ""
            raise NotFoundError(f"The backbone of the classifier {classifier_id} has no {kind} export{why}.")
        keys = tuple(location.export_part_key(revision, summary, part) for part in parts)
        return StoredExport(parts=parts, keys=keys)

    async def retrain(
        self, caller: Caller, classifier_id: str, sets: Sequence[ExampleSet], terms: ExampleTerms = ExampleTerms()
    ) -> ClassifierDetails:
        """Add checked example sets to the definition that is served, replacing a retraining under way; told when every replica
        knows.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError, ParameterError, LimitExceededError, TooLargeError: it is
                refused, and nothing was changed.
            ClusterError, ObjectStoreError: it could not be stored.
        """
        if not sets:
            raise ParameterError(
                "No examples were specified; send at least one part CLASS_positive_examples or negative_examples."
            )
        async with self._usage.adding_bytes(caller, _count_bytes(sets)):
            return await self._retrain(caller, classifier_id, sets, terms)

    async def _retrain(
        self, caller: Caller, classifier_id: str, sets: Sequence[ExampleSet], terms: ExampleTerms
    ) -> ClassifierDetails:
        location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
        for _ in range(WRITE_ATTEMPTS):
            classifier = await self._read(caller, classifier_id)
            _check_retrainable(classifier)
            served = await self._served_definition(classifier)
            if served is None:
                raise UnavailableError(
                    f"The object store has no artifact of revision {classifier.status.served_revision}, which the classifier "
                    f"{classifier_id} serves: what to start from is unknown."
                )
            round_number = 1 + max((source.round for source in served.sources), default=0)
            spec = _grow(served, sets, round_number=round_number, customer=terms.customer)
            _check_size(spec)
            # At each attempt: whatever changed the object may have erased the same zip. Bytes that end up unused are left to
            # the next erasure and to the operator's sweep: the same zip may belong to an earlier round.
            await self._store_uploads(location, sets)
            try:
                changed = await self._store.change(classifier, build_retrain_patch(classifier, spec, terms))
            except ClassifierChangedError:
                continue
            except ClassifierNotFoundError as error:
                raise _unknown(classifier_id) from error
            # Whoever polls another replica shall not take what was served before for the outcome.
            await asyncio.sleep(self._replica_delay_seconds)
            await self._restore_uploads(caller, location, sets)
            return await self._describe(caller, changed)
        raise UnavailableError(f"The classifier {classifier_id} changes too fast to be retrained; try again.")

    async def delete(self, caller: Caller, classifier_id: str) -> None:
        """Delete a classifier; told when every replica knows.

        Raises:
            NotFoundError, ConflictError: there is none, or REST may not delete it.
        """
        classifier = await self._read(caller, classifier_id)
        _check_writable(classifier)
        try:
            await self._store.delete(classifier)
        except ClassifierNotFoundError as error:
            raise _unknown(classifier_id) from error
        await asyncio.sleep(self._replica_delay_seconds)

    async def _read(self, caller: Caller, classifier_id: str) -> Classifier:
        try:
            return await self._store.read(caller.namespace, classifier_id)
        except ClassifierNotFoundError as error:
            raise _unknown(classifier_id) from error

    async def _read_all(self, caller: Caller) -> list[Classifier]:
        found = await self._store.read_all(caller.namespace)
        briefs = [BriefClassifier.of(item) for item in found]
        settled = [item for item in briefs if item.lifecycle in _SETTLED]
        # As for a brief list.
        await asyncio.gather(*(self._let_replicas_follow(item) for item in settled))
        return found

    async def _let_replicas_follow(self, classifier: BriefClassifier) -> None:
        key = (classifier.uid, classifier.lifecycle, classifier.settled_revision, classifier.retrain_nonce)
        now = time.monotonic()
        first_seen = self._announced.setdefault(key, now)
        while len(self._announced) > _ANNOUNCED_LIMIT:
            self._announced.popitem(last=False)
        await asyncio.sleep(max(0.0, first_seen + self._replica_delay_seconds - now))

    async def _describe(self, caller: Caller, classifier: Classifier) -> ClassifierDetails:
        revision = classifier.status.served_revision
        summary = None if revision is None else await self._definitions.read_summary(_location(classifier), revision)
        if classifier.spec.pretrained is not None:
            class_names = () if summary is None else summary.class_names
            # Published weights are never exported.
            promised = False
        else:
            class_names = await self._shown_class_names(classifier)
            # Until something was learned it is a promise, which every backbone that comes with Ocelli keeps.
            promised = True
        core_ml_enabled = promised if summary is None else ExportFormat.CORE_ML in summary.exports
        return _build_details(caller, classifier, class_names, core_ml_enabled=core_ml_enabled)

    async def _shown_class_names(self, classifier: Classifier) -> tuple[str, ...]:
        """While work is under way of what is being learned, else of what is served; of the spec as it stands where nothing ever
        was, or the store has lost it.
        """
        is_settled = lifecycle(classifier) in (Lifecycle.READY, Lifecycle.FAILED)
        revision = classifier.status.served_revision if is_settled else current_revision(classifier.spec)
        if revision is not None and revision != spec_revision(classifier.spec):
            class_names = await self._definitions.class_names(_location(classifier), revision)
            if class_names is not None:
                return class_names
        return tuple(item.name for item in classifier.spec.classes)

    async def _served_definition(self, classifier: Classifier) -> ClassifierSpec | None:
        """What is served; where nothing ever was, the spec as it stands. None where the store has lost it."""
        revision = classifier.status.served_revision
        if revision is None or revision == spec_revision(classifier.spec):
            return classifier.spec
        return await self._definitions.read(_location(classifier), revision)

    async def _store_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        for digest, path in {item.file.sha256: item.file.path for item in sets}.items():
            await self._objects.put(location.upload_key(digest), path)

    async def _restore_uploads(self, caller: Caller, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        """Store again what an erasure took between upload and write, when nothing named it yet; not what was erased since."""
        missing = [item for item in sets if not await self._objects.exists(location.upload_key(item.file.sha256))]
        if missing:
            named = find_upload_digests(definition((await self._read(caller, location.classifier_id)).spec))
            await self._store_uploads(location, [item for item in missing if item.file.sha256 in named])

    async def _remove_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        """Take back what a create has stored; nothing else below the id, which a classifier may have by the same draw."""
        # What is left after this fails, too, belongs to no Classifier: the operator's sweep takes it.
        with contextlib.suppress(ObjectStoreError):
            for digest in {item.file.sha256 for item in sets}:
                await asyncio.shield(self._objects.delete(location.upload_key(digest)))


def check_create(sets: Sequence[ExampleSet], ignored: Sequence[str] = ()) -> None:
    """Refuse what does not suffice for a first training; `ignored` are names of parts that mean nothing.

    Raises:
        ParameterError: fewer than two example sets, or none of them positive.
    """
    positive = sum(item.class_name is not None for item in sets)
    if positive == 0 or len(sets) < 2:
        raise ParameterError(
            "A classifier needs at least two example sets: two parts CLASS_positive_examples, "
            f"or one and the part negative_examples; this request has {_list_names([item.file.part_name for item in sets])}."
            + (f" Not understood: {_list_names(ignored)}; names of example sets end in _examples as above." if ignored else "")
        )


def _list_names(part_names: Sequence[str]) -> str:
    shown = [shown_name(name) for name in part_names[:_SHOWN_PARTS]]
    more = len(part_names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")


@dataclass(frozen=True, kw_only=True)
class StoredExport:
    """An export by its parts, and the keys that they lie under."""

    parts: tuple[ExportPart, ...]
    keys: tuple[str, ...]


def build_classifier(namespace: str, classifier_id: str, spec: ClassifierSpec, *, customer: str | None = None) -> Manifest:
    """The object of a new classifier; `customer` is the key of the one that it was made for."""
    labels = {CLASSIFIER_ID_LABEL: classifier_id, CREATED_BY_LABEL: CREATED_BY_GATEWAY}
    if customer is not None:
        labels[CUSTOMER_LABEL] = customer
    retention = {} if spec.data_retention is DataRetention.KEEP else {"dataRetention": str(spec.data_retention)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": namespace,
            "name": build_object_name(classifier_id),
            "labels": labels,
            "annotations": {CREATED_AT_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")},
        },
        "spec": {"displayName": spec.display_name, **definition(spec), **retention},
    }


def build_retrain_patch(classifier: Classifier, spec: ClassifierSpec, terms: ExampleTerms) -> Manifest:
    """The merge patch that makes a classifier learn the definition in `spec`."""
    learned = definition(spec)
    retention = {"dataRetention": str(DataRetention.DROP_AFTER_TRAINING)} if terms.opt_out else {}
    return {
        "spec": {
            "classes": learned["classes"],
            "negativeExamples": learned.get("negativeExamples"),
            "model": {"backbone": spec.model.backbone, "strategy": spec.model.strategy, "seed": spec.model.seed},
            "evaluation": {"holdoutFraction": spec.evaluation.holdout_fraction},
            "retrainNonce": classifier.spec.retrain_nonce + 1,
            # The definition starts from what is served; a pin would keep it from ever being served itself.
            "pinnedRevision": None,
            **retention,
        }
    }


def _location(classifier: Classifier) -> ClassifierLocation:
    return ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.classifier_id or "")


def _build_details(
    caller: Caller, classifier: Classifier, class_names: tuple[str, ...], *, core_ml_enabled: bool
) -> ClassifierDetails:
    stalled = classifier.status.condition(ConditionType.STALLED)
    return ClassifierDetails(
        classifier_id=classifier.classifier_id or "",
        name=classifier.display_name,
        owner=caller.owner,
        status=lifecycle(classifier),
        class_names=class_names,
        created_at=classifier.created_at,
        retrained_at=classifier.status.retrained_at,
        # Who asks by REST knows no names of objects.
        explanation=stalled.message.removeprefix(f"{classifier}: ") if stalled is not None else None,
        core_ml_enabled=core_ml_enabled,
        accuracy=_measured_accuracy(classifier.status),
    )


def _measured_accuracy(status: ClassifierStatus) -> MeasuredAccuracy | None:
    """That of what is served; None for what an earlier release learned, whose accuracy is not balanced, and has no interval."""
    interval = status.accuracy_interval
    if status.served_revision is None or status.accuracy is None or interval is None:
        return None
    return MeasuredAccuracy(accuracy=float(status.accuracy), lower=float(interval.lower), upper=float(interval.upper))


def _count_bytes(sets: Sequence[ExampleSet]) -> int:
    """What is stored: the same zip twice lies there once."""
    return sum({item.file.sha256: item.file.size_bytes for item in sets}.values())


def _grow(base: ClassifierSpec, sets: Sequence[ExampleSet], *, round_number: int, customer: str | None) -> ClassifierSpec:
    """The definition with the example sets added: to the classes that exist, new ones behind them, negatives to negatives."""
    examples: dict[str, tuple[Source, ...]] = {item.name: item.examples for item in base.classes}
    negatives = base.negative_examples
    for example_set in sets:
        source = Source(upload=example_set.file.sha256, round=round_number, customer=customer)
        if example_set.class_name is None:
            negatives = (*negatives, source)
        else:
            examples[example_set.class_name] = (*examples.get(example_set.class_name, ()), source)
    classes = tuple(ExampleClass(name=name, examples=sources) for name, sources in examples.items())
    return replace(base, classes=classes, negative_examples=negatives)


def _check_size(spec: ClassifierSpec) -> None:
    if len(spec.classes) > CLASSES_LIMIT:
        raise LimitExceededError(f"The classifier would have {len(spec.classes)} classes; at most {CLASSES_LIMIT} are allowed.")
    if len(spec.sources) > SOURCES_LIMIT:
        raise LimitExceededError(
            f"The classifier would have {len(spec.sources)} example sets in all; at most {SOURCES_LIMIT} are allowed."
        )
    largest = max([len(spec.negative_examples), *(len(item.examples) for item in spec.classes)])
    if largest > CLASS_SOURCES_LIMIT:
        raise LimitExceededError(f"One class would have {largest} example sets; at most {CLASS_SOURCES_LIMIT} are allowed.")
    size_bytes = len(json.dumps(definition(spec), ensure_ascii=False).encode())
    if size_bytes > SPEC_BYTES_LIMIT:
        raise LimitExceededError(
            f"The classes and example sets would take {size_bytes} bytes to describe; at most {SPEC_BYTES_LIMIT} are allowed. "
            "Use fewer classes or shorter names."
        )


def _check_writable(classifier: Classifier) -> None:
    if not classifier.rest_may_write:
        raise ConflictError(
            f"{classifier} was made by a manifest and does not allow writes by REST; change the manifest, or allow them: "
            f"kubectl -n {classifier.namespace} annotate clf {classifier.name} {REST_WRITES_ANNOTATION}={REST_WRITES_ALLOWED}"
        )


def _check_retrainable(classifier: Classifier) -> None:
    _check_writable(classifier)
    if classifier.spec.pretrained is not None:
        raise ParameterError(
            f"The classifier {classifier.classifier_id} was made of published weights and cannot be retrained; create another."
        )
    if classifier.spec.data_retention is DataRetention.DROP_AFTER_TRAINING:
        raise ParameterError(
            f"The classifier {classifier.classifier_id} was created with the learning opt-out: its images are not kept, and it "
            "cannot be retrained. Create another."
        )
    if lifecycle(classifier) is Lifecycle.TRAINING:
        raise ClassifierNotReadyError(
            f"The classifier {classifier.classifier_id} is in its first training; retrain it when that has ended."
        )


def _unknown(classifier_id: str) -> NotFoundError:
    return NotFoundError(f"Cannot find the classifier {shown_name(classifier_id, 64)}.")
