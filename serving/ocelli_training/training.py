"""A training: from the definition of a revision to its artifact and reports, in stages."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ocelli_api.classifier import ClassifierSpec, Pretrained, parse_spec
from ocelli_api.outcome import Comparison, Outcome, OutcomeReason, Stage
from ocelli_api.times import format_time
from ocelli_model.artifact import Artifact
from ocelli_model.backbone import BackboneMetadata, load_backbone_metadata
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_storage.object_store import ObjectStore
from ocelli_training.backbone_choice import BackboneChoice, BackboneNotInstalledError, choose_backbone
from ocelli_training.checked_images import delete_checked
from ocelli_training.data_report import DataReport, judged_images
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.fit import Fit, fit_heads
from ocelli_training.judged import Judged, judge, split_by_customer
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.provenance import Provenance, describe_recipe
from ocelli_training.report import Report, describe_artifact
from ocelli_training.revision_store import Results, RevisionStore
from ocelli_training.served_baseline import NewFeatures, compare_stored, compare_with_served
from ocelli_training.settings import TrainerSettings
from ocelli_training.suspicion import find_suspicious
from ocelli_training.thumbnails import build_thumbnails
from ocelli_training.trainer_environment import observe_trainer_environment
from ocelli_training.training_data import PRECISION, DataReader, TrainingData

logger = logging.getLogger(__name__)


class Training:
    """One attempt at one revision."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._revision = RevisionStore(settings, store)
        self._data = DataReader(settings, store, scratch, progress, self._revision.load_definition)

    async def run(self) -> Outcome:
        """Train the revision, unless an earlier attempt stored its artifact.

        Raises:
            DefinitionError, BackboneNotInstalledError, BackboneError, SourcesError, DatasetError, ObjectStoreError,
            OSError: see there; `ocelli_training.failure` describes each of them.
        """
        settings = self._settings
        fields = {"classifier": settings.classifier, "revision": settings.revision, "attempt": settings.attempt}
        logger.info("training.started", extra={**fields, "cores": settings.cpu_count})
        document = await self._revision.load_definition()
        definition = parse_spec(document)
        earlier = await self._revision.find_artifact()
        if earlier is not None:
            return await self._reuse(definition, earlier)
        if definition.pretrained is not None:
            return await self._import_pretrained(definition.pretrained)
        choice = choose_backbone(definition.model.backbone, settings.backbones)
        metadata = await load_backbone_metadata(self._store, choice.installed.digest)
        logger.info("backbone.chosen", extra={"backbone": choice.description, "digest": choice.installed.digest})
        height, width = metadata.preprocessing.height, metadata.preprocessing.width
        with PixelFile(self._scratch / "pixels", height=height, width=width) as pixels:
            return await self._train(document, choice, metadata, pixels)

    async def _train(
        self, document: dict[str, Any], choice: BackboneChoice, metadata: BackboneMetadata, pixels: PixelFile
    ) -> Outcome:
        settings, definition = self._settings, parse_spec(document)
        data = await self._data.read(document, metadata, pixels, seed=definition.model.seed)
        fit, evaluation, judged = await self._learn(data)
        comparison = await self._compare(judged, metadata, data)
        exports = await build_exports(self._store, metadata, fit.heads, data.dataset.class_names)
        artifact = Artifact(
            revision=settings.revision,
            class_names=data.dataset.class_names,
            heads=fit.heads,
            backbone_name=metadata.name,
            backbone_digest=metadata.digest,
            precision=PRECISION,
            preprocessing=metadata.preprocessing,
            metrics=evaluation.summary(),
            exports=exports.parts,
            export_files=exports.files,
        )
        report = Report(
            artifact=describe_artifact(settings, artifact, choice.description),
            data=DataReport(
                dataset=data.dataset,
                groups=data.groups,
                suspicion=find_suspicious(fit, data.examples, data.dataset),
                corrections=data.corrections,
                input_side_pixels=min(metadata.preprocessing.height, metadata.preprocessing.width),
            ),
            recipe=fit.recipe,
            evaluation=evaluation,
            excluded_from_test=() if data.test is None else data.test.test_set.excluded,
            comparison=comparison,
        )
        await self._progress.begin(Stage.STORING)
        parts = split_by_customer(judged, [example.customer for example in data.judged_examples])
        provenance = Provenance(
            classifier=settings.classifier,
            classifier_id=settings.classifier_id,
            artifact=artifact,
            backbone=metadata,
            inputs=data.inputs,
            recipe=describe_recipe(definition, fit.recipe, choice.description),
            environment=await asyncio.to_thread(observe_trainer_environment),
            engine=data.engine_name,
            made_at=format_time(datetime.now(UTC), timespec="seconds"),
        )
        shown = list(report.data.shown_images(image.sha256 for image in evaluation.misclassified))
        results = Results(
            judged=parts,
            report=report,
            build_thumbnails=partial(build_thumbnails, shown, data.judged_examples, data.find_pixels),
            artifact=artifact,
            provenance=provenance,
            features=self._data.cache,
        )
        await self._revision.save(results)
        await delete_checked(settings, self._store)
        message = f"Trained on {len(data.dataset.examples)} images{data.corrections.describe_unknown()}"
        return replace(self._succeeded(message, artifact, choice.description), comparison=comparison)

    async def _import_pretrained(self, pretrained: Pretrained) -> Outcome:
        """Check the files that the definition names, and store them as an artifact with its own network. Nothing is trained."""
        # Imported on demand: other trainings start faster without it.
        from ocelli_training.pretrained import import_pretrained

        made = await import_pretrained(pretrained, self._settings, self._store, self._scratch, self._progress)
        await self._progress.begin(Stage.STORING)
        await self._revision.save_pretrained(made)
        message = f"Imported pretrained weights with {len(made.artifact.class_names)} classes"
        return self._succeeded(message, made.artifact, made.network.description)

    def _succeeded(self, message: str, artifact: Artifact, backbone: str) -> Outcome:
        interval = artifact.metrics.get("accuracyInterval")
        return Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message=message,
            revision=self._settings.revision,
            attempt=self._settings.attempt,
            accuracy=artifact.metrics.get("accuracy"),
            # Older artifacts have no interval, and their accuracy is not balanced.
            accuracy_interval=None if interval is None else (interval[0], interval[1]),
            judged_images=None if interval is None else artifact.metrics["images"],
            excluded_images=artifact.metrics.get("excludedImages"),
            artifact_digest=artifact.digest,
            backbone=backbone,
            backbone_digest=artifact.backbone_digest,
        )

    async def _reuse(self, definition: ClassifierSpec, artifact: Artifact) -> Outcome:
        logger.info("artifact.reused", extra={"digest": artifact.digest})
        # The earlier attempt may have ended before it did.
        await self._revision.delete_erased()
        description = artifact.backbone_name
        try:
            choice = choose_backbone(definition.model.backbone, self._settings.backbones)
            if choice.installed.digest == artifact.backbone_digest:
                description = choice.description
        except BackboneNotInstalledError:
            # It was installed when the artifact was made. Serving does not depend on the trainer's list.
            pass
        outcome = self._succeeded("Reused the artifact that an earlier attempt stored", artifact, description)
        baseline = self._settings.baseline_revision
        return replace(outcome, comparison=await compare_stored(self._store, self._settings.location, artifact, baseline))

    async def _learn(self, data: TrainingData) -> tuple[Fit, Evaluation, Judged]:
        started = time.monotonic()
        await self._progress.begin(Stage.FITTING)
        fit = await asyncio.to_thread(fit_heads, data.examples, self._progress.report, threads=self._settings.cpu_count)
        logger.info(
            "heads.fitted",
            extra={"views": fit.recipe.views, "penalty": fit.recipe.penalty, "seconds": time.monotonic() - started},
        )
        await self._progress.begin(Stage.EVALUATING)
        judged = await asyncio.to_thread(judge, fit, data.dataset, data.groups, data.test)
        if data.test is None:
            images = judged_images(data.dataset.examples)
            evaluation = await asyncio.to_thread(
                evaluate, fit, data.examples.membership, data.groups, data.dataset.class_names, images
            )
        else:
            evaluation = await asyncio.to_thread(data.test.evaluate, fit, data.dataset.class_names, judged.has_negatives)
        self._progress.report_accuracy(evaluation.accuracy)
        logger.info(
            "heads.evaluated",
            extra={
                "images": evaluation.images,
                "accuracy": evaluation.accuracy,
                "misclassified": len(evaluation.misclassified),
                "calibration_error": evaluation.calibration_error,
            },
        )
        return fit, evaluation, judged

    async def _compare(self, judged: Judged, metadata: BackboneMetadata, data: TrainingData) -> Comparison | None:
        """The new revision compared with the one that serves; None if none does."""
        if not self._settings.baseline_revision:
            return None
        features = data.examples.features
        if data.test is not None:
            features = np.concatenate([features, data.test.features])
        return await compare_with_served(
            self._store,
            self._settings.location,
            self._settings.baseline_revision,
            judged,
            NewFeatures(features=features, backbone_digest=metadata.digest, precision=PRECISION),
        )
