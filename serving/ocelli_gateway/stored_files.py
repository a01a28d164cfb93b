"""Which objects in the store are the downloads of a classifier: exports, bill of materials, reports. It must not know HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_api.classifier import Classifier
from ocelli_api.export import ExportFormat, ExportPart, build_core_ml_description
from ocelli_api.lifecycle import Lifecycle, find_awaited_approval, lifecycle
from ocelli_api.revision import current_revision
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.refusals import NotFoundError
from ocelli_storage.layout import BILL_OF_MATERIALS, CHECK_PAGE, REPORT_PAGE, ClassifierLocation


@dataclass(frozen=True, kw_only=True)
class StoredExport:
    """The parts of an export, their keys, and what follows them."""

    parts: tuple[ExportPart, ...]
    keys: tuple[str, ...]
    description: bytes = b""


class StoredFiles:
    """Finds the downloads of classifiers, for authenticated callers."""

    def __init__(self, store: ClassifierStore, definitions: Definitions) -> None:
        self._store = store
        self._definitions = definitions

    async def find_export(self, caller: Caller, classifier_id: str, export: ExportFormat) -> StoredExport:
        """The keys of an export of the served revision.

        Raises:
            NotFoundError: there is no such classifier, it serves nothing yet, or it has no export of this format.
        """
        classifier = await self._store.read(caller.namespace, classifier_id)
        revision, location = _served_revision(classifier), ClassifierLocation.of(classifier)
        summary = await self._definitions.read_summary(location, revision)
        parts = () if summary is None else summary.exports.get(export, ())
        if summary is None or not parts:
            kind = {ExportFormat.CORE_ML: "Core ML", ExportFormat.ONNX: "ONNX"}[export]
            if classifier.spec.pretrained is not None:
                raise NotFoundError(
                    f"The classifier {classifier_id} comes from published weights and has no {kind} export; use the original "
                    "file."
                )
            why = "; see core_ml_enabled in its details" if export is ExportFormat.CORE_ML else ""
            raise NotFoundError(f"The backbone of the classifier {classifier_id} has no {kind} export{why}.")
        keys = tuple(location.export_part_key(revision, summary, part) for part in parts)
        named = f"{classifier_id}, revision {revision}, made with Ocelli"
        description = build_core_ml_description(named) if export is ExportFormat.CORE_ML else b""
        return StoredExport(parts=parts, keys=keys, description=description)

    async def find_bill_of_materials(self, caller: Caller, classifier_id: str) -> str:
        """The key of what the served revision was made from; nothing may be stored there.

        Raises:
            NotFoundError: there is no such classifier, or it serves nothing yet.
        """
        classifier = await self._store.read(caller.namespace, classifier_id)
        return ClassifierLocation.of(classifier).artifact_key(_served_revision(classifier), BILL_OF_MATERIALS)

    async def find_reports(self, caller: Caller, classifier_id: str) -> tuple[str, ...]:
        """The keys at which a report on the images may be stored, the newest first: of the training in progress, the last
        failed one or the one that waits for approval, of its check, and of the training of the served revision.

        Raises:
            NotFoundError: there is no such classifier.
        """
        classifier = await self._store.read(caller.namespace, classifier_id)
        status, location = classifier.status, ClassifierLocation.of(classifier)
        keys = []
        newest = status.training_revision or status.failed_revision
        if newest is None and find_awaited_approval(classifier) is not None:
            newest = current_revision(classifier)
        if newest is not None:
            keys = [location.artifact_key(newest, REPORT_PAGE), location.training_key(newest, status.attempt, CHECK_PAGE)]
        if status.served_revision is not None:
            keys.append(location.artifact_key(status.served_revision, REPORT_PAGE))
        return tuple(keys)


def _served_revision(classifier: Classifier) -> str:
    """Raises NotFoundError."""
    revision = classifier.status.served_revision
    if revision is None:
        missing = _describe_missing_model(classifier)
        raise NotFoundError(f"The classifier {classifier.classifier_id or ''} has no model{missing}")
    return revision


def _describe_missing_model(classifier: Classifier) -> str:
    """The rest of a sentence about a classifier that has never served."""
    if find_awaited_approval(classifier) is not None:
        return " yet: its revision waits for approval; see explanation in its details."
    if lifecycle(classifier) is Lifecycle.FAILED:
        return ": its training failed or its revision was refused; see explanation in its details."
    return " yet; wait until its training has succeeded."
