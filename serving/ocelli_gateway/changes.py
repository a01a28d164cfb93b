"""Changes of a Classifier by people: approve, pin, suspend, retrain, correct.

A change is a function from the Classifier to the spec that it should have. What it changes is written as a merge patch that
is guarded by the resourceVersion, and computed again where another change was faster. Classifiers that belong to a manifest
are not written: the refusal has the manifest to commit instead. It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from ocelli_api.classifier import Classifier, ClassifierSpec, Manifest
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_errors import ClassifierChangedError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.committed_manifest import build_committed_manifest
from ocelli_gateway.corrections import CorrectedSpec, RequestedCorrection, merge_corrections
from ocelli_gateway.guarded_writes import GuardedWrites
from ocelli_gateway.refusals import ClassifierNotReadyError, ConflictError, InputError, NotFoundError, UnavailableError
from ocelli_gateway.spec_patch import build_spec_patch
from ocelli_gateway.write_rules import check_learns, check_writable, waits_for_people
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectStore

Change = Callable[[Classifier], Awaitable[ClassifierSpec]]
"""The spec that a Classifier should have. It raises a GatewayError where the change is not possible."""


@dataclass(frozen=True, kw_only=True)
class CorrectionResult:
    """A Classifier before corrections, and its corrected spec."""

    before: Classifier
    corrected: CorrectedSpec


class Changes:
    """Changes for authenticated callers.

    All of them return once every replica knows, and raise NotFoundError, ConflictError with the field `manifest`, and
    ClusterError where it could not be stored.
    """

    def __init__(self, store: ClassifierStore, objects: ObjectStore, *, replica_delay_seconds: float) -> None:
        self._store = store
        self._objects = objects
        self._writes = GuardedWrites(store, replica_delay_seconds=replica_delay_seconds)

    async def apply(self, caller: Caller, classifier_id: str, change: Change) -> Classifier:
        """Make a change. One that holds already writes nothing."""

        async def plan(classifier: Classifier) -> Manifest | None:
            spec = await change(classifier)
            _refuse_manifest_change(classifier, spec)
            return None if spec == classifier.spec else build_spec_patch(classifier.spec, spec)

        try:
            return await self._writes.apply(caller, classifier_id, plan)
        except ClassifierChangedError as error:
            raise UnavailableError(
                f"The classifier {classifier_id} is being changed too often by others; try again."
            ) from error

    async def approve(self, caller: Caller, classifier_id: str, revision: str) -> Classifier:
        """Let a trained revision serve that waits for approval or does not meet its gates. Raises InputError."""

        async def change(classifier: Classifier) -> ClassifierSpec:
            if all(entry.revision != revision for entry in classifier.status.history):
                raise InputError(
                    f"The classifier {classifier_id} has trained no revision {revision}; approve one of its history."
                )
            return replace(classifier.spec, approved_revision=revision)

        return await self.apply(caller, classifier_id, change)

    async def pin(self, caller: Caller, classifier_id: str, revision: str) -> Classifier:
        """Serve a stored revision, whatever the rest of the spec describes. Raises NotFoundError where it is not stored."""

        async def change(classifier: Classifier) -> ClassifierSpec:
            location = ClassifierLocation.of(classifier)
            if not await self._objects.exists(location.artifact_key(revision, ARTIFACT_METADATA)):
                raise NotFoundError(
                    f"The classifier {classifier_id} has no stored revision {revision}; pin one of its history that is stored."
                )
            return replace(classifier.spec, pinned_revision=revision)

        return await self.apply(caller, classifier_id, change)

    async def unpin(self, caller: Caller, classifier_id: str) -> Classifier:
        """Serve what the spec describes."""

        async def change(classifier: Classifier) -> ClassifierSpec:
            return replace(classifier.spec, pinned_revision=None)

        return await self.apply(caller, classifier_id, change)

    async def set_suspended(self, caller: Caller, classifier_id: str, *, suspend: bool) -> Classifier:
        """Only check data, or train again."""

        async def change(classifier: Classifier) -> ClassifierSpec:
            return replace(classifier.spec, suspend=suspend)

        return await self.apply(caller, classifier_id, change)

    async def retrain(self, caller: Caller, classifier_id: str) -> Classifier:
        """Train the same definition again, for instance after a failure.

        Raises:
            ParameterError, InputError, ClassifierNotReadyError: it cannot be trained again, or not now.
        """

        async def change(classifier: Classifier) -> ClassifierSpec:
            check_learns(classifier)
            _check_not_training(classifier)
            return replace(classifier.spec, retrain_nonce=classifier.spec.retrain_nonce + 1)

        return await self.apply(caller, classifier_id, change)

    async def correct(self, caller: Caller, classifier_id: str, requested: Sequence[RequestedCorrection]) -> CorrectionResult:
        """Change the classes of single images; nothing else of the spec is written.

        Raises:
            ParameterError, LimitExceededError: see `merge_corrections`.
        """
        made: list[CorrectionResult] = []

        async def change(classifier: Classifier) -> ClassifierSpec:
            made.append(_correct(classifier, requested))
            return made[-1].corrected.spec

        await self.apply(caller, classifier_id, change)
        return made[-1]

    async def preview_corrections(
        self, caller: Caller, classifier_id: str, requested: Sequence[RequestedCorrection]
    ) -> CorrectionResult:
        """The same without a write, for Classifiers of manifests too."""
        return _correct(await self._store.read(caller.namespace, classifier_id), requested)


def _refuse_manifest_change(classifier: Classifier, spec: ClassifierSpec) -> None:
    """Raises ConflictError with the manifest of this spec where REST may not change the Classifier."""
    try:
        check_writable(classifier)
    except ConflictError as error:
        raise ConflictError(error.message, fields={"manifest": build_committed_manifest(classifier, spec)}) from error


def _correct(classifier: Classifier, requested: Sequence[RequestedCorrection]) -> CorrectionResult:
    check_learns(classifier)
    return CorrectionResult(before=classifier, corrected=merge_corrections(classifier.spec, requested))


def _check_not_training(classifier: Classifier) -> None:
    """Raises InputError, ClassifierNotReadyError."""
    classifier_id, spec = classifier.classifier_id, classifier.spec
    if spec.pinned_revision is not None:
        raise InputError(
            f"The classifier {classifier_id} is pinned to the revision {spec.pinned_revision}, so nothing is trained; unpin it."
        )
    if lifecycle(classifier) in (Lifecycle.TRAINING, Lifecycle.RETRAINING) and not waits_for_people(classifier):
        raise ClassifierNotReadyError(f"The classifier {classifier_id} is being trained already; wait until that has ended.")
