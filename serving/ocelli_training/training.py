"""A training: from the definition of a revision to its artifact and reports, in stages."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocelli_api.classifier import ClassifierSpec, Pretrained, Strategy, parse_spec
from ocelli_api.export import PartPlace
from ocelli_api.outcome import Outcome, OutcomeReason, Stage
from ocelli_api.times import format_time
from ocelli_model.artifact import Artifact, library_versions
from ocelli_model.backbone import BackboneMetadata, load_backbone_metadata
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_storage.object_store import ObjectStore
from ocelli_training.backbone_choice import BackboneChoice, BackboneNotInstalledError, choose_backbone
from ocelli_training.checked_images import delete_checked
from ocelli_training.data_report import DataReport
from ocelli_training.features import PRECISION
from ocelli_training.judgement import judge_learned, split_by_customer
from ocelli_training.learned import NOT_TUNED, TUNED
from ocelli_training.learner import Learner
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.provenance import Provenance, describe_recipe
from ocelli_training.report import Report, describe_artifact
from ocelli_training.revision_store import Results, RevisionStore
from ocelli_training.served_baseline import compare_stored, needs_pixels
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from ocelli_training.thumbnails import ThumbnailSource, load_thumbnails
from ocelli_training.trainer_environment import observe_trainer_environment
from ocelli_training.training_data import DataReader

if TYPE_CHECKING:
    from ocelli_training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


class Training:
    """One attempt at one revision."""

    def __init__(
        self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress, stop: StopRequest
    ) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._stop = stop
        self._revision = RevisionStore(settings, store)
        self._data = DataReader(settings, store, scratch, progress, self._revision.load_definition)

    async def run(self) -> Outcome:
        """Train the revision, unless an earlier attempt stored its artifact.

        Raises:
            DefinitionError, BackboneNotInstalledError, BackboneError, SourcesError, DatasetError, TuningError,
            WorkersMissingError, WorkerLostError, ObjectStoreError, OSError: see there; `ocelli_training.failure` describes each
            of them.
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
        learner = Learner(settings=settings, store=self._store, scratch=self._scratch, progress=self._progress, stop=self._stop)
        learner.prepare(definition)
        choice = choose_backbone(definition.model.backbone, settings.backbones)
        metadata = await load_backbone_metadata(self._store, choice.installed.digest)
        logger.info("backbone.chosen", extra={"backbone": choice.description, "digest": choice.installed.digest})
        group = await learner.gather_workers(definition, metadata)
        height, width = metadata.preprocessing.height, metadata.preprocessing.width
        with PixelFile(self._scratch / "pixels", height=height, width=width) as pixels:
            return await self._train(document, choice, metadata, learner, pixels, group)

    async def _train(
        self,
        document: dict[str, Any],
        choice: BackboneChoice,
        metadata: BackboneMetadata,
        learner: Learner,
        pixels: PixelFile,
        group: WorkerGroup | None,
    ) -> Outcome:
        settings, definition, preprocessing = self._settings, parse_spec(document), metadata.preprocessing
        tunes = definition.model.strategy is Strategy.FINE_TUNE
        whole = tunes or await needs_pixels(self._store, settings.location, settings.baseline_revision, metadata)
        data = await self._data.read(document, metadata, pixels, every_pixel=whole, seed=definition.model.seed)
        learned = await learner.learn(definition, metadata, choice.description, data, group)
        await self._progress.begin(Stage.EVALUATING)
        judgement = await judge_learned(learned, data, settings, self._store, self._scratch)
        self._progress.report_accuracy(judgement.evaluation.accuracy)
        exports = await build_exports(
            self._store,
            learned.metadata,
            learned.fit.heads,
            data.dataset.class_names,
            own_files=None if learned.network is None else learned.network.files,
        )
        artifact = Artifact(
            revision=settings.revision,
            class_names=data.dataset.class_names,
            heads=learned.fit.heads,
            backbone_name=metadata.name,
            backbone_digest=learned.metadata.digest,
            backbone_place=PartPlace.BACKBONE if learned.network is None else PartPlace.ARTIFACT,
            precision=PRECISION,
            preprocessing=preprocessing,
            metrics=judgement.evaluation.summary(),
            exports=exports.parts,
            export_files=exports.files,
            library_versions=library_versions() if learned.network is None else library_versions("torch", "torchvision"),
        )
        report = Report(
            artifact=describe_artifact(settings, artifact, learned.description),
            data=DataReport(
                dataset=data.dataset,
                groups=data.groups,
                suspicion=judgement.suspicion,
                corrections=data.corrections,
                input_side_pixels=min(preprocessing.height, preprocessing.width),
            ),
            recipe=learned.fit.recipe,
            evaluation=judgement.evaluation,
            excluded_from_test=() if data.test is None else data.test.test_set.excluded,
            comparison=judgement.comparison,
            tuning=learned.tuning,
            before_tuning=judgement.before_tuning,
        )
        await self._progress.begin(Stage.STORING)
        provenance = Provenance(
            classifier=settings.classifier,
            classifier_id=settings.classifier_id,
            artifact=artifact,
            backbone=metadata,
            inputs=data.inputs,
            recipe=describe_recipe(definition, learned.fit.recipe, choice.description, learned.tuning),
            environment=await asyncio.to_thread(observe_trainer_environment),
            engine=data.engine_name,
            made_at=format_time(datetime.now(UTC), timespec="seconds"),
        )
        source = ThumbnailSource(
            find_pixels=data.find_pixels,
            threads=settings.cpu_count,
            known=await load_thumbnails(self._store, settings.location),
        )
        shown = report.data.shown_images(image.sha256 for image in judgement.evaluation.misclassified)
        results = Results(
            judged=split_by_customer(judgement.judged, [example.customer for example in data.judged_examples]),
            report=report,
            thumbnails=await asyncio.to_thread(source.make, shown, data.judged_examples),
            artifact=artifact,
            provenance=provenance,
            features=self._data.cache,
            network=learned.network,
        )
        await learner.store_results(definition, partial(self._revision.save, results), group)
        await delete_checked(settings, self._store)
        outcome = self._succeeded(learned.message, artifact, learned.description, learned.reason)
        return replace(outcome, comparison=judgement.comparison)

    async def _import_pretrained(self, pretrained: Pretrained) -> Outcome:
        """Check the files that the definition names, and store them as an artifact with its own network. Nothing is trained."""
        # Imported on demand: other trainings start faster without it.
        from ocelli_training.pretrained import import_pretrained

        made = await import_pretrained(pretrained, self._settings, self._store, self._scratch, self._progress)
        await self._progress.begin(Stage.STORING)
        await self._revision.save_pretrained(made)
        message = f"Imported pretrained weights with {len(made.artifact.class_names)} classes"
        return self._succeeded(message, made.artifact, made.network.description)

    def _succeeded(
        self, message: str, artifact: Artifact, backbone: str, reason: OutcomeReason = OutcomeReason.SUCCEEDED
    ) -> Outcome:
        interval = artifact.metrics.get("accuracyInterval")
        return Outcome(
            reason=reason,
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
        reason = OutcomeReason.SUCCEEDED
        if definition.model.strategy is Strategy.FINE_TUNE and definition.pretrained is None:
            improved = artifact.backbone_place is PartPlace.ARTIFACT
            description += TUNED if improved else NOT_TUNED
            reason = OutcomeReason.SUCCEEDED if improved else OutcomeReason.NOT_IMPROVED
        outcome = self._succeeded("Reused the artifact that an earlier attempt stored", artifact, description, reason)
        baseline = self._settings.baseline_revision
        return replace(outcome, comparison=await compare_stored(self._store, self._settings.location, artifact, baseline))
