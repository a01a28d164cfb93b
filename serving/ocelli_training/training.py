"""A training: from the definition of a revision to its artifact and reports, in stages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ocelli_api.classifier import ClassifierSpec, Pretrained, Strategy, parse_spec
from ocelli_api.export import PartPlace
from ocelli_api.outcome import Outcome, OutcomeReason, Stage
from ocelli_model.artifact import Artifact, library_versions
from ocelli_model.backbone import BackboneMetadata, load_backbone, load_backbone_metadata
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import enlarged, mirrored
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.object_store import ObjectStore
from ocelli_training.backbone_choice import BackboneNotInstalledError, choose_backbone
from ocelli_training.dataset import Dataset, build_dataset, check_dataset, example_sets
from ocelli_training.features import PRECISION
from ocelli_training.fit import Examples, View, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.judged import split_by_customer
from ocelli_training.judgement import judge_learned
from ocelli_training.learned import NOT_TUNED, TUNED
from ocelli_training.learner import Learner, TrainingData
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, fingerprints, group_near_duplicates
from ocelli_training.own_test_set import TestImages, TestSet, build_test_set, check_test_set, find_test_sets
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.reading import ImageReader, SourcesError
from ocelli_training.report import Report, describe_artifact
from ocelli_training.revision_store import Results, RevisionStore
from ocelli_training.served_baseline import compare_stored
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources
from ocelli_training.stop_request import StopRequest

_BATCH_IMAGES = 64
VIEWS_LIMIT_IMAGES = 5000
"""With more images, only whole views are used: other views improve little then, and double time and memory."""
_VIEWS = {View.ENLARGED: enlarged, View.MIRRORED: mirrored}

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

    async def run(self) -> Outcome:
        """Train the revision, unless an earlier attempt stored its artifact.

        Raises:
            DefinitionError, BackboneNotInstalledError, BackboneError, SourcesError, DatasetError, TuningError,
            WorkersMissingError, WorkerLostError, ObjectStoreError, OSError: see there; `ocelli_training.failure` describes each
            of them.
        """
        settings, location = self._settings, self._settings.location
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
        preprocessing = metadata.preprocessing
        with PixelFile(self._scratch / "pixels", height=preprocessing.height, width=preprocessing.width) as pixels:
            data = await self._read(document, metadata, pixels, seed=definition.model.seed)
            learned = await learner.learn(definition, metadata, choice.description, data, group)
            await self._progress.begin(Stage.EVALUATING)
            judgement = await judge_learned(learned, data, settings, self._store, self._scratch)
        exports = await build_exports(
            self._store,
            learned.metadata,
            learned.fit.heads,
            data.dataset.class_names,
            description=f"{location.classifier_id}, revision {settings.revision}, made with Ocelli",
            own_files=None if learned.network is None else learned.network.files,
        )
        artifact = Artifact(
            classifier_id=location.classifier_id,
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
            artifact=describe_artifact(settings.classifier, artifact, learned.description),
            dataset=data.dataset,
            recipe=learned.fit.recipe,
            evaluation=judgement.evaluation,
            groups=data.groups,
            label_errors=judgement.label_errors,
            outliers=judgement.outliers,
            input_side_pixels=min(preprocessing.height, preprocessing.width),
            excluded_from_test=() if data.test is None else data.test.test_set.excluded,
            comparison=judgement.comparison,
            tuning=learned.tuning,
            before_tuning=judgement.before_tuning,
        )
        await self._progress.begin(Stage.STORING)
        results = Results(
            definition=document,
            judged=split_by_customer(judgement.judged, [example.customer for example in data.judged_examples]),
            report=report,
            artifact=artifact,
            network=learned.network,
        )
        await self._revision.save(results)
        await learner.clean_up(definition, group)
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

    async def _read(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, *, seed: int
    ) -> TrainingData:
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
            load_engine, backbone, threads=self._settings.cpu_count, device=device, precision=PRECISION
        )

    async def _read_remaining(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile
    ) -> tuple[Dataset, TestSet | None, Sequence[int]]:
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
    ) -> tuple[Dataset, TestSet | None, Sequence[int]]:
        """The checked dataset and test set, and the numbers of all their images in the pixel file."""
        started = time.monotonic()
        sets, sets_of_test = example_sets(definition), find_test_sets(definition)
        sources = open_sources(self._settings, self._store, self._scratch)
        images = ImageReader(
            sources=sources,
            decode=ImageDecoder(metadata.preprocessing, EXAMPLE_KINDS),
            pixels=pixels,
            decoding_threads=self._settings.cpu_count,
        )
        try:
            async with sources:
                every = await images.read(self._settings.classifier, (*sets, *sets_of_test), self._progress.report)
        finally:
            images.close()
        readings, readings_of_test = every[: len(sets)], every[len(sets) :]
        dataset = build_dataset(sets, readings)
        for report in dataset.reports:
            logger.info(
                "examples.read",
                extra={
                    "of": report.example_set.class_name or "negatives",
                    "files": report.files,
                    "usable": report.usable,
                    "duplicates": report.duplicates,
                    "skipped": len(report.skipped),
                    "given_away": len(report.given_away),
                },
            )
        check_dataset(self._settings.classifier, dataset, readings)
        test_set = build_test_set(sets_of_test, readings_of_test, dataset)
        if test_set is not None:
            check_test_set(self._settings.classifier, test_set, dataset.class_names)
        logger.info("data.valid", extra={"images": len(dataset.examples), "seconds": time.monotonic() - started})
        judged_on = () if test_set is None else test_set.examples
        return dataset, test_set, [images.pixel_number(example.digest) for example in (*dataset.examples, *judged_on)]

    def _extract(
        self,
        engine: Engine,
        dataset: Dataset,
        test_set: TestSet | None,
        pixels: PixelFile,
        numbers: Sequence[int],
        seed: int,
    ) -> TrainingData:
        """Compute features of all images, those of the test set after the examples, and find near duplicates."""
        started = time.monotonic()
        count, learned = len(numbers), len(dataset.examples)
        features = np.empty((count, engine.metadata.feature_count), dtype=np.float32)
        # A test set changes nothing about what is learned.
        other_views = {view: np.empty_like(features[:learned]) for view in _VIEWS if learned <= VIEWS_LIMIT_IMAGES}
        prints = np.empty((count, FINGERPRINT_NUMBERS), dtype=np.float16)
        for start in range(0, count, _BATCH_IMAGES):
            rows = slice(start, start + _BATCH_IMAGES)
            images = pixels.read(numbers[rows])
            features[rows] = engine.features(images)
            examples_here = images[: max(0, learned - start)]
            for view, view_features in other_views.items():
                if len(examples_here):
                    view_features[rows] = engine.features(_VIEWS[view](examples_here))
            prints[rows] = fingerprints(images)
            self._progress.report(min(start + _BATCH_IMAGES, count) / count)
        logger.info("features.extracted", extra={"images": count, "engine": engine.name, "seconds": time.monotonic() - started})
        images_of_all = (*dataset.examples, *(() if test_set is None else test_set.examples))
        sets = np.array([example.set_index for example in images_of_all], dtype=np.intp)
        # Test images come last, so that none of them changes the group of an example.
        oldest_first = sorted(
            range(count), key=lambda row: (row >= learned, images_of_all[row].round, images_of_all[row].digest)
        )
        groups = group_near_duplicates(prints, normalised_rows(features), sets, oldest_first)
        test = None if test_set is None else TestImages.build(test_set, features[learned:], groups[learned:], learned)
        features, groups, sets = features[:learned], groups[:learned], sets[:learned]
        membership = np.zeros((learned, len(dataset.class_names)), dtype=np.bool_)
        for row, example in enumerate(dataset.examples):
            if example.set_index < len(dataset.class_names):
                membership[row, example.set_index] = True
        examples = Examples(
            features=features,
            other_views=other_views,
            membership=membership,
            folds=assign_folds([example.digest for example in dataset.examples], groups, sets, seed),
        )
        return TrainingData(dataset=dataset, examples=examples, groups=groups, pixels=pixels, numbers=numbers, test=test)
