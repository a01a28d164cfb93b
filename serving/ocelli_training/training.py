"""A training: from the definition of a revision to its artifact and reports, in stages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import ClassifierSpec, Pretrained, parse_spec
from ocelli_api.outcome import Comparison, Outcome, OutcomeReason, Stage
from ocelli_model.artifact import Artifact
from ocelli_model.backbone import BackboneMetadata, Precision, load_backbone, load_backbone_metadata
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.preprocessing import enlarged, mirrored
from ocelli_storage.object_store import ObjectStore
from ocelli_training.backbone_choice import BackboneChoice, BackboneNotInstalledError, choose_backbone
from ocelli_training.checked_pictures import delete_pictures
from ocelli_training.data_reading import DataReader, log_sets
from ocelli_training.data_report import DataReport, image_name
from ocelli_training.dataset import Dataset, Example, build_dataset, check_dataset
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.example_rows import build_examples, find_groups
from ocelli_training.fit import Examples, Fit, View, fit_heads
from ocelli_training.judged import Judged, judge, split_by_customer
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, fingerprints
from ocelli_training.own_test_set import TestImages, TestSet, build_test_set, check_test_set
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.reading import SourcesError
from ocelli_training.report import Report, describe_artifact
from ocelli_training.revision_store import Results, RevisionStore
from ocelli_training.served_baseline import NewFeatures, compare_stored, compare_with_served
from ocelli_training.settings import TrainerSettings
from ocelli_training.suspicion import find_suspicious
from ocelli_training.thumbnails import build_thumbnails

_BATCH_IMAGES = 64
VIEWS_LIMIT_IMAGES = 5000
"""With more images, only whole views are used: other views improve little then, and double time and memory."""
_VIEWS = {View.ENLARGED: enlarged, View.MIRRORED: mirrored}
_PRECISION = Precision.FLOAT32
"""Of all features, even where the backbone allows others: heads trained on one node are served on other nodes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class _TrainingData:
    """The dataset as numbers: one row for each of its examples."""

    dataset: Dataset
    examples: Examples
    groups: NDArray[np.intp]
    """intp[N]: the row of each example's oldest near duplicate, see `group_near_duplicates`."""
    numbers: Mapping[str, int]
    """By digest, the number of each image in the pixel file."""
    test: TestImages | None = None
    """The Classifier's own test set."""

    @property
    def judged_examples(self) -> tuple[Example, ...]:
        """All images that are judged: the examples, then the test set."""
        return (*self.dataset.examples, *(() if self.test is None else self.test.test_set.examples))


class Training:
    """One attempt at one revision."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._revision = RevisionStore(settings, store)

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
        settings, location = self._settings, self._settings.location
        data = await self._read(document, metadata, pixels, seed=parse_spec(document).model.seed)
        fit, evaluation, judged = await self._learn(data)
        comparison = await self._compare(judged, metadata, data)
        exports = await build_exports(
            self._store,
            metadata,
            fit.heads,
            data.dataset.class_names,
            description=f"{location.classifier_id}, revision {settings.revision}, made with Ocelli",
        )
        artifact = Artifact(
            classifier_id=location.classifier_id,
            revision=settings.revision,
            class_names=data.dataset.class_names,
            heads=fit.heads,
            backbone_name=metadata.name,
            backbone_digest=metadata.digest,
            precision=_PRECISION,
            preprocessing=metadata.preprocessing,
            metrics=evaluation.summary(),
            exports=exports.parts,
            export_files=exports.files,
        )
        report = Report(
            artifact=describe_artifact(settings.classifier, artifact, choice.description),
            data=DataReport(
                dataset=data.dataset,
                groups=data.groups,
                suspicion=find_suspicious(fit, data.examples, data.dataset),
                input_side_pixels=min(metadata.preprocessing.height, metadata.preprocessing.width),
            ),
            recipe=fit.recipe,
            evaluation=evaluation,
            excluded_from_test=() if data.test is None else data.test.test_set.excluded,
            comparison=comparison,
        )
        await self._progress.begin(Stage.STORING)
        parts = split_by_customer(judged, [example.customer for example in data.judged_examples])
        thumbnails = partial(build_thumbnails, list(report.data.shown_images()), data.dataset.examples, pixels, data.numbers)
        results = Results(definition=document, judged=parts, report=report, build_thumbnails=thumbnails, artifact=artifact)
        await self._revision.save(results)
        await delete_pictures(settings, self._store)
        message = f"Trained on {len(data.dataset.examples)} images"
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

    async def _read(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, *, seed: int
    ) -> _TrainingData:
        # Concurrent: loading an engine takes as long as reading a hundred photographs.
        loading = asyncio.create_task(self._load_engine(metadata))
        try:
            dataset, test_set, numbers = await self._read_remaining(document, metadata, pixels)
            await self._progress.begin(Stage.EXTRACTING)
            data = await asyncio.to_thread(self._extract, await loading, dataset, test_set, pixels, numbers, seed)
            if data.test is not None:
                # Again, without near duplicates of examples.
                check_test_set(self._settings.classifier, data.test.test_set, dataset.class_names)
                if not data.test.test_set.examples:
                    # Only customers who were erased had images that are not examples.
                    data = replace(data, test=None)
            return data
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def _load_engine(self, metadata: BackboneMetadata) -> Engine:
        device = device_for(metadata, await asyncio.to_thread(available_device, self._settings.accelerator))
        backbone = await load_backbone(
            self._store, metadata.digest, cache=self._scratch / "backbones", files=needed_files(device)
        )
        return await asyncio.to_thread(
            load_engine, backbone, threads=self._settings.cpu_count, device=device, precision=_PRECISION
        )

    async def _read_remaining(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile
    ) -> tuple[Dataset, TestSet | None, Mapping[str, int]]:
        """As `_read_dataset`, without sources that were erased while it was reading."""
        while True:
            try:
                return await self._read_dataset(parse_spec(document), metadata, pixels)
            except SourcesError:
                now = await self._revision.load_definition()
                if now == document:
                    raise
                logger.info("sources.erased")
                document = now

    async def _read_dataset(
        self, definition: ClassifierSpec, metadata: BackboneMetadata, pixels: PixelFile
    ) -> tuple[Dataset, TestSet | None, Mapping[str, int]]:
        """The checked dataset and test set, and by digest the number of each image in the pixel file."""
        started = time.monotonic()
        reader = DataReader(
            settings=self._settings, store=self._store, scratch=self._scratch, on_progress=self._progress.report
        )
        data = await reader.load_or_read(definition, pixels, metadata.preprocessing)
        dataset = build_dataset(data.sets, data.readings)
        log_sets(dataset.reports)
        check_dataset(self._settings.classifier, dataset, data.readings)
        test_set = build_test_set(data.test_sets, data.test_readings, dataset)
        if test_set is not None:
            check_test_set(self._settings.classifier, test_set, dataset.class_names)
        logger.info("data.valid", extra={"images": len(dataset.examples), "seconds": time.monotonic() - started})
        return dataset, test_set, data.numbers

    def _extract(
        self,
        engine: Engine,
        dataset: Dataset,
        test_set: TestSet | None,
        pixels: PixelFile,
        numbers: Mapping[str, int],
        seed: int,
    ) -> _TrainingData:
        """Compute features of all images, those of the test set after the examples, and find near duplicates."""
        started = time.monotonic()
        images_of_all = (*dataset.examples, *(() if test_set is None else test_set.examples))
        count, learned = len(images_of_all), len(dataset.examples)
        features = np.empty((count, engine.metadata.feature_count), dtype=np.float32)
        # A test set changes nothing about what is learned.
        other_views = {view: np.empty_like(features[:learned]) for view in _VIEWS if learned <= VIEWS_LIMIT_IMAGES}
        prints = np.empty((count, FINGERPRINT_NUMBERS), dtype=np.float16)
        for start in range(0, count, _BATCH_IMAGES):
            rows = slice(start, start + _BATCH_IMAGES)
            images = pixels.read([numbers[image.digest] for image in images_of_all[rows]])
            features[rows] = engine.features(images)
            examples_here = images[: max(0, learned - start)]
            for view, view_features in other_views.items():
                if len(examples_here):
                    view_features[rows] = engine.features(_VIEWS[view](examples_here))
            prints[rows] = fingerprints(images)
            self._progress.report(min(start + _BATCH_IMAGES, count) / count)
        logger.info("features.extracted", extra={"images": count, "engine": engine.name, "seconds": time.monotonic() - started})
        groups = find_groups(prints, features, images_of_all, learned)
        test = None if test_set is None else TestImages.build(test_set, features[learned:], groups[learned:], learned)
        examples = build_examples(dataset, features[:learned], other_views, groups[:learned], seed)
        return _TrainingData(dataset=dataset, examples=examples, groups=groups[:learned], numbers=numbers, test=test)

    async def _learn(self, data: _TrainingData) -> tuple[Fit, Evaluation, Judged]:
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
            names = [image_name(example) for example in data.dataset.examples]
            evaluation = await asyncio.to_thread(
                evaluate, fit, data.examples.membership, data.groups, data.dataset.class_names, names
            )
        else:
            evaluation = await asyncio.to_thread(data.test.evaluate, fit, data.dataset.class_names, judged.has_negatives)
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

    async def _compare(self, judged: Judged, metadata: BackboneMetadata, data: _TrainingData) -> Comparison | None:
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
            NewFeatures(features=features, backbone_digest=metadata.digest, precision=_PRECISION),
        )
