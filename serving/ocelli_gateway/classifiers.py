"""The life of a classifier: create, details, retrain, delete. What v3 asks, in terms of Classifier objects and stored uploads.

It must not know HTTP, nor how objects and bytes are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ocelli_api.classifier import (
    API_VERSION,
    CLASS_SOURCES_LIMIT,
    CLASSES_LIMIT,
    CLASSIFIER_ID_LABEL,
    CREATED_BY_GATEWAY,
    CREATED_BY_LABEL,
    KIND,
    REST_WRITES_ALLOWED,
    REST_WRITES_ANNOTATION,
    SOURCES_LIMIT,
    SPEC_BYTES_LIMIT,
    Classifier,
    ClassifierSpec,
    ExampleClass,
    Manifest,
    Source,
)
from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id, build_object_name
from ocelli_api.revision import current_revision, definition, spec_revision
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_store import ClassifierChangedError, ClassifierNotFoundError, ClassifierStore, NameTakenError
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.errors import (
    ClassifierNotReadyError,
    ConflictError,
    LimitExceededError,
    NotFoundError,
    ParameterError,
    UnavailableError,
)
from ocelli_gateway.example_sets import ExampleSet
from ocelli_gateway.wire import ClassifierDetails
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

WRITE_ATTEMPTS = 10
_ANNOUNCED_LIMIT = 10_000


class Classifiers:
    """The operations on classifiers, for whoever proved who they are."""

    def __init__(
        self, store: ClassifierStore, objects: ObjectStore, definitions: Definitions, *, replica_delay_seconds: float
    ) -> None:
        self._store = store
        self._objects = objects
        self._definitions = definitions
        self._replica_delay_seconds = replica_delay_seconds
        self._announced: OrderedDict[tuple[str, str, int], float] = OrderedDict()

    async def create(self, caller: Caller, name: str, sets: Sequence[ExampleSet]) -> ClassifierDetails:
        """Create a classifier of a checked name and checked example sets; its training goes on in the background.

        Raises:
            LimitExceededError: it would be too large.
            ClusterError, ObjectStoreError: it could not be stored; nothing of it is left.
        """
        spec = _grow(ClassifierSpec(display_name=name, classes=()), sets, round_number=1)
        _check_size(spec)
        for _ in range(WRITE_ATTEMPTS):
            classifier_id = build_classifier_id(name, 1 + secrets.randbelow(NUMBER_LIMIT))
            location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
            try:
                await self._store_uploads(location, sets)
                created = await self._store.create(build_classifier(caller.namespace, classifier_id, spec))
            except NameTakenError:
                await self._remove_uploads(location, sets)
                continue
            except BaseException:
                await self._remove_uploads(location, sets)
                raise
            return await self._describe(caller, created)
        raise UnavailableError("No free classifier_id was found; try again.")

    async def details(self, caller: Caller, classifier_id: str) -> ClassifierDetails:
        """The classifier as it is now. A `ready` is told when every replica can act on it.

        Raises:
            NotFoundError: there is none.
        """
        classifier = await self._read(caller, classifier_id)
        if lifecycle(classifier) is Lifecycle.READY:
            await self._let_replicas_follow(classifier)
        return await self._describe(caller, classifier)

    async def check_retrain(self, caller: Caller, classifier_id: str) -> None:
        """Find out before an upload is read whether it would be in vain.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError: it would.
        """
        _check_retrainable(await self._read(caller, classifier_id))

    async def retrain(self, caller: Caller, classifier_id: str, sets: Sequence[ExampleSet]) -> ClassifierDetails:
        """Add checked example sets to the definition that is served, replacing a retraining under way.

        Raises:
            NotFoundError, ConflictError, ClassifierNotReadyError, LimitExceededError: it is refused, and nothing was changed.
            ClusterError, ObjectStoreError: it could not be stored.
        """
        if not sets:
            raise ParameterError(
                "No examples were specified; send at least one part CLASS_positive_examples or negative_examples."
            )
        stored = False
        for _ in range(WRITE_ATTEMPTS):
            classifier = await self._read(caller, classifier_id)
            _check_retrainable(classifier)
            served = await self._served_definition(classifier)
            if served is None:
                raise UnavailableError(
                    f"The object store has no artifact of revision {classifier.status.served_revision}, which the classifier "
                    f"{classifier_id} serves: what to start from is unknown."
                )
            spec = _grow(served, sets, round_number=1 + max((source.round for source in served.sources), default=0))
            _check_size(spec)
            if not stored:
                # Bytes that end up unused are left to the operator's sweep: the same zip may belong to an earlier round.
                location = ClassifierLocation(namespace=caller.namespace, classifier_id=classifier_id)
                await self._store_uploads(location, sets)
                stored = True
            try:
                changed = await self._store.change(classifier, build_retrain_patch(classifier, spec))
            except ClassifierChangedError:
                continue
            except ClassifierNotFoundError as error:
                raise _unknown(classifier_id) from error
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

    async def _let_replicas_follow(self, classifier: Classifier) -> None:
        key = (classifier.uid, classifier.status.settled_revision or "", classifier.spec.retrain_nonce)
        now = time.monotonic()
        first_seen = self._announced.setdefault(key, now)
        while len(self._announced) > _ANNOUNCED_LIMIT:
            self._announced.popitem(last=False)
        await asyncio.sleep(max(0.0, first_seen + self._replica_delay_seconds - now))

    async def _describe(self, caller: Caller, classifier: Classifier) -> ClassifierDetails:
        status = lifecycle(classifier)
        stalled = classifier.status.condition(ConditionType.STALLED)
        shown = await self._shown_definition(classifier, status)
        return ClassifierDetails(
            classifier_id=classifier.classifier_id or "",
            name=classifier.display_name,
            owner=caller.owner,
            status=status,
            class_names=tuple(item.name for item in shown.classes),
            created_at=classifier.created_at,
            retrained_at=classifier.status.retrained_at,
            explanation=stalled.message if stalled is not None else None,
        )

    async def _shown_definition(self, classifier: Classifier, status: Lifecycle) -> ClassifierSpec:
        """While work is under way what is being learned, else what is served."""
        if status in (Lifecycle.READY, Lifecycle.FAILED):
            shown = await self._served_definition(classifier)
        else:
            shown = await self._definition_of(classifier, current_revision(classifier.spec))
        return shown or classifier.spec

    async def _served_definition(self, classifier: Classifier) -> ClassifierSpec | None:
        """What is served; where nothing ever was, the spec as it stands. None where the store has lost it."""
        return await self._definition_of(classifier, classifier.status.served_revision)

    async def _definition_of(self, classifier: Classifier, revision: str | None) -> ClassifierSpec | None:
        if revision is None or revision == spec_revision(classifier.spec):
            return classifier.spec
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.classifier_id or "")
        return await self._definitions.read(location, revision)

    async def _store_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        for digest, path in {item.file.sha256: item.file.path for item in sets}.items():
            await self._objects.put(location.upload_key(digest), path)

    async def _remove_uploads(self, location: ClassifierLocation, sets: Sequence[ExampleSet]) -> None:
        """Take back what a create has stored; nothing else below the id, which a classifier may have by the same draw."""
        # What is left after this fails, too, belongs to no Classifier: the operator's sweep takes it.
        with contextlib.suppress(ObjectStoreError):
            for digest in {item.file.sha256 for item in sets}:
                await asyncio.shield(self._objects.delete(location.upload_key(digest)))


def check_create(sets: Sequence[ExampleSet]) -> None:
    """Refuse what does not suffice for a first training.

    Raises:
        ParameterError: fewer than two example sets, or none of them positive.
    """
    positive = sum(item.class_name is not None for item in sets)
    if positive == 0 or len(sets) < 2:
        raise ParameterError(
            "A classifier needs at least two example sets: two parts CLASS_positive_examples, "
            "or one and the part negative_examples."
        )


def build_classifier(namespace: str, classifier_id: str, spec: ClassifierSpec) -> Manifest:
    """The object of a new classifier."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": namespace,
            "name": build_object_name(classifier_id),
            "labels": {CLASSIFIER_ID_LABEL: classifier_id, CREATED_BY_LABEL: CREATED_BY_GATEWAY},
        },
        "spec": {"displayName": spec.display_name, **definition(spec)},
    }


def build_retrain_patch(classifier: Classifier, spec: ClassifierSpec) -> Manifest:
    """The merge patch that makes a classifier learn the definition in `spec`."""
    learned = definition(spec)
    return {
        "spec": {
            "classes": learned["classes"],
            "negativeExamples": learned.get("negativeExamples"),
            "model": {"backbone": spec.model.backbone, "strategy": spec.model.strategy, "seed": spec.model.seed},
            "evaluation": {"holdoutFraction": spec.evaluation.holdout_fraction},
            "retrainNonce": classifier.spec.retrain_nonce + 1,
            # The definition starts from what is served; a pin would keep it from ever being served itself.
            "pinnedRevision": None,
        }
    }


def _grow(base: ClassifierSpec, sets: Sequence[ExampleSet], *, round_number: int) -> ClassifierSpec:
    """The definition with the example sets added: to the classes that exist, new ones behind them, negatives to negatives."""
    examples: dict[str, tuple[Source, ...]] = {item.name: item.examples for item in base.classes}
    negatives = base.negative_examples
    for example_set in sets:
        source = Source(upload=example_set.file.sha256, round=round_number)
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
            f"{classifier} was made by a manifest and does not allow writes by REST; change the manifest, or annotate the "
            f"object with {REST_WRITES_ANNOTATION}: {REST_WRITES_ALLOWED}."
        )


def _check_retrainable(classifier: Classifier) -> None:
    _check_writable(classifier)
    if lifecycle(classifier) is Lifecycle.TRAINING:
        raise ClassifierNotReadyError(
            f"The classifier {classifier.classifier_id} is in its first training; retrain it when that has ended."
        )


def _unknown(classifier_id: str) -> NotFoundError:
    return NotFoundError(f"Cannot find the classifier {classifier_id[:64]}.")
