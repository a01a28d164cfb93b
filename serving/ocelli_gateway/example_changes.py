"""Classifiers from uploads that are stored already: create one, add examples to it, take examples or classes away.

What a retrain of v3 adds goes to the served definition. These change what the Classifier describes now, so that corrections
and additions whose training has not ended are kept; where a revision is pinned, they change that one, and the pin is removed.
It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from ocelli_api.classifier import Classifier, ClassifierSpec, ExampleClass, Source
from ocelli_api.revision import definition
from ocelli_gateway.auth import Caller
from ocelli_gateway.changes import Changes
from ocelli_gateway.classifier_errors import ClassifierNotFoundError, NameTakenError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.example_sets import NamedUpload
from ocelli_gateway.manifests import ExampleTerms, begin_definition, build_classifier, check_size, grow_definition
from ocelli_gateway.pending_uploads import PendingUploads
from ocelli_gateway.refusals import ConflictError, InputError, ParameterError, UnavailableError
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.write_rules import check_first_training_ended, check_learns
from ocelli_storage.archives import shown_name
from ocelli_storage.layout import ClassifierLocation

_LEAST_SETS = 2


@dataclass(frozen=True, kw_only=True)
class NewClassifier:
    """A classifier to create."""

    classifier_id: str
    name: str
    uploads: Sequence[NamedUpload]
    terms: ExampleTerms


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What is taken away."""

    class_names: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    """By digest, from every class and from the negative examples."""
    negative_examples: bool = False
    """All of them."""


class ExampleChanges:
    """Changes for authenticated callers; those of existing classifiers raise as `Changes`."""

    def __init__(
        self, store: ClassifierStore, definitions: Definitions, changes: Changes, uploads: PendingUploads, usage: TenantUsage
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._changes = changes
        self._uploads = uploads
        self._usage = usage

    async def create(self, caller: Caller, new: NewClassifier) -> Classifier:
        """Create a classifier; one that exists with the same definition is the answer to the same request sent before.

        Raises:
            ParameterError, InputError: there are too few example sets, or uploads are not stored.
            ConflictError: another classifier has the id.
            LimitExceededError, TooManyRequestsError: it would be too large, or exceed a quota.
            ClusterError, ObjectStoreError: cluster or store do not answer.
        """
        terms = new.terms
        spec = begin_definition(new.name, new.uploads, terms)
        _check_sets(spec)
        check_size(spec)
        digests = [item.sha256 for item in new.uploads]
        existing = await self._find(caller, new.classifier_id)
        if existing is not None:
            return _accept_same(existing, spec)
        await self._uploads.check_stored(caller, new.classifier_id, digests)
        async with self._usage.adding_classifier(caller):
            try:
                manifest = build_classifier(caller.namespace, new.classifier_id, spec, customer=terms.customer)
                created = await self._store.create(manifest)
            except NameTakenError as error:
                existing = await self._find(caller, new.classifier_id)
                if existing is None:
                    raise ConflictError(
                        f"Another classifier has an id like {new.classifier_id}; draw another with POST /ocelli/v1/uploads."
                    ) from error
                return _accept_same(existing, spec)
        await self._check_kept(caller, new.classifier_id, digests, lambda: self._store.delete(created))
        return created

    async def add(self, caller: Caller, classifier_id: str, uploads: Sequence[NamedUpload], terms: ExampleTerms) -> Classifier:
        """Add uploads to classes, new or not, or to the negative examples. Those that are there already are left as they are.

        Raises:
            InputError, ParameterError, LimitExceededError, ClassifierNotReadyError: it is refused.
        """
        if not uploads:
            raise ParameterError("No uploads were named; give at least one in classes or negative_examples.")
        before, digests = ClassifierSpec(), list[str]()

        async def change(classifier: Classifier) -> ClassifierSpec:
            nonlocal before, digests
            base = await self._read_base(classifier)
            sets = [(item.name, item.examples) for item in base.classes] + [(None, base.negative_examples)]
            # Those of another customer count for that one only, and may be erased with its data.
            present = {
                (name, source.upload)
                for name, sources in sets
                for source in sources
                if source.customer == terms.customer and not source.erased
            }
            added = [item for item in uploads if (item.class_name, item.sha256) not in present]
            before, digests = classifier.spec, [item.sha256 for item in added]
            retention = terms.retention if terms.opt_out else base.data_retention
            if not added and retention is base.data_retention:
                # Before the other checks: the same request sent again is answered, also where it was the last retrain.
                return classifier.spec
            check_learns(classifier)
            check_first_training_ended(classifier)
            await self._uploads.check_stored(caller, classifier_id, digests)
            round_number = 1 + max((source.round for source in base.sources), default=0)
            spec = grow_definition(base, added, round_number=round_number, customer=terms.customer)
            check_size(spec)
            return _retrained(replace(spec, data_retention=retention))

        changed = await self._changes.apply(caller, classifier_id, change)

        async def undo(classifier: Classifier) -> ClassifierSpec:
            # What others have written since builds on the change, and stays.
            return before if classifier.spec == changed.spec else classifier.spec

        if digests:
            await self._check_kept(caller, classifier_id, digests, lambda: self._changes.apply(caller, classifier_id, undo))
        return changed

    async def remove(self, caller: Caller, classifier_id: str, removal: Removal) -> Classifier:
        """Take classes, uploads or all negative examples away.

        Raises:
            ParameterError, InputError, ClassifierNotReadyError: it is refused.
        """

        async def change(classifier: Classifier) -> ClassifierSpec:
            check_learns(classifier)
            check_first_training_ended(classifier)
            spec = shrink_definition(await self._read_base(classifier), removal)
            _check_sets(spec)
            return _retrained(spec)

        return await self._changes.apply(caller, classifier_id, change)

    async def _check_kept(
        self, caller: Caller, classifier_id: str, digests: Sequence[str], undo: Callable[[], Awaitable[object]]
    ) -> None:
        """Undo a write whose uploads are not stored any more: the sweep may have deleted old ones just before there was a
        Classifier that refers to them. Raises InputError."""
        try:
            await self._uploads.check_stored(caller, classifier_id, digests)
        except InputError:
            await undo()
            raise

    async def _find(self, caller: Caller, classifier_id: str) -> Classifier | None:
        try:
            return await self._store.read(caller.namespace, classifier_id)
        except ClassifierNotFoundError:
            return None

    async def _read_base(self, classifier: Classifier) -> ClassifierSpec:
        """The spec that is changed: its own or, where a revision is pinned, with the definition of that revision."""
        pinned = classifier.spec.pinned_revision
        if pinned is None:
            return classifier.spec
        location = ClassifierLocation.of(classifier)
        learned = await self._definitions.read(location, pinned)
        if learned is None:
            raise UnavailableError(
                f"The object store has no artifact of the pinned revision {pinned}, so its examples are unknown; unpin it."
            )
        return replace(
            classifier.spec,
            classes=learned.classes,
            negative_examples=learned.negative_examples,
            corrections=learned.corrections,
            model=learned.model,
            evaluation=learned.evaluation,
            pinned_revision=None,
        )


def shrink_definition(base: ClassifierSpec, removal: Removal) -> ClassifierSpec:
    """The definition without classes and uploads. A class without any source goes, and with it its test set.

    Images that corrections have moved to it are dropped: without the correction they would be learned as their sources say.

    Raises:
        ParameterError: nothing is named, or something that is not there.
    """
    if not (removal.class_names or removal.uploads or removal.negative_examples):
        raise ParameterError("Nothing was named; give classes, uploads or negative_examples to take away.")
    class_names = {item.name for item in base.classes}
    for name in removal.class_names:
        if name not in class_names:
            raise ParameterError(f'There is no class "{shown_name(name)}"; name one of the classes in the details.')
    uploaded = {source.upload for item in base.classes for source in item.examples}
    uploaded |= {source.upload for source in base.negative_examples}
    for digest in removal.uploads:
        if digest not in uploaded:
            raise ParameterError(f"No class has the upload {digest}; name one of the uploads in the details.")

    def kept(sources: tuple[Source, ...]) -> tuple[Source, ...]:
        return tuple(source for source in sources if source.upload is None or source.upload not in removal.uploads)

    classes = tuple(
        ExampleClass(name=item.name, examples=kept(item.examples))
        for item in base.classes
        if item.name not in removal.class_names and kept(item.examples)
    )
    names = {item.name for item in classes}
    corrections = tuple(item if item.class_name in names else replace(item, class_name="") for item in base.corrections)
    tested = tuple(item for item in base.evaluation.classes if item.name in names)
    return replace(
        base,
        classes=classes,
        negative_examples=() if removal.negative_examples else kept(base.negative_examples),
        corrections=corrections,
        evaluation=replace(base.evaluation, classes=tested),
    )


def _check_sets(spec: ClassifierSpec) -> None:
    """Raises ParameterError where a classifier has too few example sets."""
    sets = len(spec.classes) + bool(spec.negative_examples)
    if not spec.classes or sets < _LEAST_SETS:
        raise ParameterError(
            "A classifier needs at least two example sets: two classes, or one class and negative examples; this one would "
            f"have {len(spec.classes)} {'class' if len(spec.classes) == 1 else 'classes'} and "
            f"{'' if spec.negative_examples else 'no '}negative examples."
        )


def _accept_same(existing: Classifier, spec: ClassifierSpec) -> Classifier:
    """Raises ConflictError where the existing classifier is another one."""
    if (
        definition(existing.spec) == definition(spec)
        and existing.spec.display_name == spec.display_name
        and existing.spec.data_retention is spec.data_retention
    ):
        return existing
    raise ConflictError(
        f"The classifier {existing.classifier_id} exists with another definition; add examples to it, or draw another id with "
        "POST /ocelli/v1/uploads."
    )


def _retrained(spec: ClassifierSpec) -> ClassifierSpec:
    return replace(spec, retrain_nonce=spec.retrain_nonce + 1)
