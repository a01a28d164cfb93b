"""User data: deletes all data of one customer of a tenant.

Classifiers that were created for the customer are deleted. In other classifiers the customer's sources become `erased`, in the
object and in every stored definition, and their bytes are deleted, as is what trainings and checks stored of their images:
later trainings do not use them, and existing models stay. Stored zips that nothing refers to are deleted as well, because the
customer of a replaced or refused retrain is unknown. A deletion that was interrupted can be repeated. It must not know HTTP.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

from ocelli_api.classifier import CUSTOMER_LABEL, Classifier, ClassifierSpec, ExampleClass, Manifest, Source
from ocelli_api.names import customer_key
from ocelli_api.revision import definition, definition_sources, find_upload_digests
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_errors import ClassifierChangedError, ClassifierNotFoundError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.guarded_writes import GuardedWrites
from ocelli_gateway.refusals import UnavailableError
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import DEFINITION, ClassifierLocation, is_image_data, is_page
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_storage.thumbnails import erase_thumbnails

logger = logging.getLogger(__name__)


class UserData:
    """Deletes the data of customers."""

    def __init__(self, store: ClassifierStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        # What is served stays the same, so no replica has to follow.
        self._writes = GuardedWrites(store, replica_delay_seconds=0)

    async def delete(self, caller: Caller, customer_id: str) -> None:
        """Delete the data of a customer of the caller; it is not an error if there is none.

        Classifiers that REST may not write are left alone: only their manifests can change them.

        Raises:
            ClusterError, ObjectStoreError, UnavailableError, UnreadableClassifierError: some data may be left; try again.
        """
        customer = customer_key(customer_id)
        classifiers, unreadable = await self._store.read_all(caller.namespace)
        for classifier in classifiers:
            if not classifier.rest_may_write:
                continue
            try:
                if classifier.labels.get(CUSTOMER_LABEL) == customer:
                    await self._store.delete(classifier)
                else:
                    await self._erase(caller, classifier, customer)
            except ClassifierNotFoundError:
                continue
        if unreadable:
            raise unreadable[0]

    async def _erase(self, caller: Caller, classifier: Classifier, customer: str) -> None:
        location = ClassifierLocation.of(classifier)
        # First: anything stored later is newer than this request.
        stored = await self._objects.list_objects(location.uploads_prefix)
        spec = await self._erase_in_spec(caller, classifier, customer)
        named = _upload_keys(location, spec)
        named |= {location.upload_key(digest) for digest in await self._erase_in_definitions(location, customer)}
        deleted = 0
        for key in sorted({item.key for item in stored} - named):
            # Right before each: a retrain may have stored the same zip in the meantime. A retrain that has not written its
            # object yet stores the zip again.
            now = await self._store.read(location.namespace, location.classifier_id)
            if key not in _upload_keys(location, now.spec):
                await self._objects.delete(key)
                deleted += 1
        # A trainer that has just ended may have stored a definition that it read earlier, and data about images.
        await self._erase_in_definitions(location, customer)
        if deleted:
            logger.info("examples erased", extra={"classifier": str(classifier), "zips": deleted})

    async def _erase_in_spec(self, caller: Caller, classifier: Classifier, customer: str) -> ClassifierSpec:
        async def plan(current: Classifier) -> Manifest | None:
            spec = mark_erased(current.spec, customer)
            return None if spec == current.spec else build_sources_patch(spec)

        classifier_id = classifier.classifier_id or ""
        try:
            return (await self._writes.apply(caller, classifier_id, plan)).spec
        except ClassifierChangedError as error:
            raise UnavailableError(f"The classifier {classifier_id} changes too fast to erase images; try again.") from error

    async def _erase_in_definitions(self, location: ClassifierLocation, customer: str) -> set[str]:
        """Also deletes data about the customer's images, and their thumbnails in reports. Returns the uploads that the stored
        definitions still refer to."""
        named: set[str] = set()
        for prefix in (location.trainings_prefix, location.artifacts_prefix):
            keys = {item.key for item in await self._objects.list_objects(prefix)}
            for key in sorted(keys):
                if key.rsplit("/", 1)[-1] == DEFINITION:
                    erasure = await self._erase_in_definition(key, customer)
                    named |= erasure.uploads
                    if not erasure.concerned:
                        # Reading every report of a namespace would take long.
                        keys -= {page for page in keys if is_page(page) and page.startswith(key.removesuffix(DEFINITION))}
            for key in keys:
                if is_image_data(key, customer):
                    await self._objects.delete(key)
                elif is_page(key):
                    await erase_thumbnails(self._objects, key, customer)
        return named

    async def _erase_in_definition(self, key: str, customer: str) -> _Erasure:
        try:
            erasure = _erase_in_document(await read_document(self._objects, key), customer)
        except ObjectNotFoundError:
            return _Erasure()
        except (ObjectTooLargeError, ValueError, TypeError, AttributeError, RecursionError) as error:
            # The operator does not write such definitions, so no training uses it.
            logger.warning(
                "a stored definition cannot be read, and is left as it is", extra={"key": key, "problem": str(error)}
            )
            return _Erasure()
        if erasure.content is not None:
            await self._objects.put(key, erasure.content)
        return erasure


@dataclass(frozen=True, kw_only=True)
class _Erasure:
    """What the erasure of a customer's sources does to a stored definition."""

    content: bytes | None = None
    """The new content; None: unchanged."""
    uploads: frozenset[str] = frozenset()
    """What it refers to afterwards."""
    concerned: bool = True
    """It has, or had, sources of the customer, or cannot be read."""


def _erase_in_document(content: bytes, customer: str) -> _Erasure:
    """Raises ValueError, TypeError, AttributeError, RecursionError if it is not a definition."""
    document = parse_document(content)
    sources = [source for source in definition_sources(document) if source.get("customer") == customer]
    kept = [source for source in sources if not source.get("erased")]
    for source in kept:
        source["erased"] = True
    return _Erasure(
        content=json.dumps(document, ensure_ascii=False, indent=1).encode() if kept else None,
        uploads=find_upload_digests(document),
        concerned=bool(sources),
    )


def mark_erased(spec: ClassifierSpec, customer: str) -> ClassifierSpec:
    """The spec with every source of a customer erased."""

    def marked(sources: tuple[Source, ...]) -> tuple[Source, ...]:
        return tuple(replace(source, erased=True) if source.customer == customer else source for source in sources)

    def marked_classes(classes: tuple[ExampleClass, ...]) -> tuple[ExampleClass, ...]:
        return tuple(ExampleClass(name=item.name, examples=marked(item.examples)) for item in classes)

    return replace(
        spec,
        classes=marked_classes(spec.classes),
        negative_examples=marked(spec.negative_examples),
        evaluation=replace(spec.evaluation, classes=marked_classes(spec.evaluation.classes)),
    )


def _upload_keys(location: ClassifierLocation, spec: ClassifierSpec) -> set[str]:
    """The keys of the uploads that a spec refers to."""
    return {location.upload_key(digest) for digest in find_upload_digests(definition(spec))}


def build_sources_patch(spec: ClassifierSpec) -> Manifest:
    """The merge patch that puts the sources of a spec into its object."""
    learned = definition(spec)
    tested = {"evaluation": {"classes": learned["evaluation"]["classes"]}} if spec.evaluation.classes else {}
    return {"spec": {"classes": learned["classes"], "negativeExamples": learned.get("negativeExamples"), **tested}}
