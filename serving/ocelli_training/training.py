"""A training: from the definition of a revision to its artifact and reports, stage by stage."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import ClassifierSpec, Pretrained, parse_spec
from ocelli_api.outcome import Outcome, OutcomeReason, Stage
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact, save_artifact
from ocelli_model.backbone import BackboneMetadata, Precision, load_backbone, load_backbone_metadata, save_backbone
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import enlarged, mirrored
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, REPORT, REPORT_PAGE
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_training.backbone_choice import BackboneNotInstalledError, choose_backbone
from ocelli_training.dataset import Dataset, build_dataset, check_dataset, example_sets
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.fit import Examples, Fit, View, fit_heads, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, fingerprints, group_near_duplicates
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.reading import ImageReader, SourcesError
from ocelli_training.report import Report, image_name, render_page
from ocelli_training.settings import TrainerSettings
from ocelli_training.sources import SourceReader

_BATCH_IMAGES = 64
VIEWS_LIMIT_IMAGES = 5000
"""Of more images only the whole view is learned from: others gain little there, and cost their time and memory again."""
_VIEWS = {View.ENLARGED: enlarged, View.MIRRORED: mirrored}
_PRECISION = Precision.FLOAT32
"""Of all features, whatever else the backbone allows: heads learned on one node are served on others."""

logger = logging.getLogger(__name__)


class DefinitionError(Exception):
    """The definition to learn is missing or cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lesson:
    """What is learned from, in numbers; row by row as the dataset's examples."""

    dataset: Dataset
    examples: Examples
    groups: NDArray[np.intp]
    """intp[N]: the row of each example's oldest near duplicate, see `group_near_duplicates`."""


class Training:
    """One attempt at one revision."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress

    async def run(self) -> Outcome:
        """Learn the revision, unless an earlier attempt stored its artifact, and say how well.

        Raises:
            DefinitionError, BackboneNotInstalledError, BackboneError, SourcesError, DatasetError, ObjectStoreError,
            OSError: see there; `ocelli_training.ending` says what each means.
        """
        settings = self._settings
        fields = {"classifier": settings.classifier, "revision": settings.revision, "attempt": settings.attempt}
        logger.info("training.started", extra={**fields, "cores": settings.cpu_count})
        document = await self._load_definition()
        definition = parse_spec(document)
        earlier = await self._load_earlier_artifact()
        if earlier is not None:
            return self._reuse(definition, earlier)
        if definition.pretrained is not None:
            return await self._import_pretrained(definition.pretrained)
        choice = choose_backbone(definition.model.backbone, self._settings.backbones)
        metadata = await load_backbone_metadata(self._store, choice.installed.digest)
        logger.info("backbone.chosen", extra={"backbone": choice.description, "digest": choice.installed.digest})
        lesson = await self._read(document, metadata, seed=definition.model.seed)
        fit, evaluation = await self._learn(lesson)
        exports = await build_exports(
            self._store,
            metadata,
            fit.heads,
            lesson.dataset.class_names,
            description=f"{self._settings.location.classifier_id}, revision {self._settings.revision}, made with Ocelli",
        )
        artifact = Artifact(
            classifier_id=self._settings.location.classifier_id,
            revision=self._settings.revision,
            class_names=lesson.dataset.class_names,
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
            classifier=self._settings.classifier,
            classifier_id=self._settings.location.classifier_id,
            revision=self._settings.revision,
            trained_at=datetime.now(UTC),
            backbone=choice.description,
            backbone_digest=metadata.digest,
            artifact_digest=artifact.digest,
            dataset=lesson.dataset,
            recipe=fit.recipe,
            evaluation=evaluation,
            groups=lesson.groups,
        )
        await self._store_results(artifact, report)
        return Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message=f"Learned from {len(lesson.dataset.examples)} images",
            revision=self._settings.revision,
            attempt=self._settings.attempt,
            **_measured(artifact.metrics),
            artifact_digest=artifact.digest,
            backbone=choice.description,
            backbone_digest=metadata.digest,
        )

    async def _import_pretrained(self, pretrained: Pretrained) -> Outcome:
        """Nothing is learned: what the definition names is checked and stored, as an artifact with a network of its own."""
        # Imported where it is needed: all other trainings start without.
        from ocelli_training.pretrained import PretrainedImport

        made = await PretrainedImport(self._settings, self._store, self._scratch, self._progress).run(pretrained)
        await self._progress.begin(Stage.STORING)
        location, revision = self._settings.location, self._settings.revision
        await self._store_definition()
        report = json.dumps(made.report, ensure_ascii=False, indent=1)
        await self._store.put(location.artifact_key(revision, REPORT), report.encode())
        metadata, files = made.network.metadata, made.network.files
        await save_backbone(self._store, metadata, files, prefix=location.network_prefix(revision))
        digest = await save_artifact(self._store, location, made.artifact)
        logger.info("artifact.stored", extra={"digest": digest})
        classes = len(made.artifact.class_names)
        return Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message=f"Made ready from its weights, with {classes} classes",
            revision=revision,
            attempt=self._settings.attempt,
            artifact_digest=digest,
            backbone=made.network.description,
            backbone_digest=metadata.digest,
        )

    async def _store_definition(self) -> None:
        # Read again: what was erased meanwhile must not come back by this way.
        definition = await self._load_definition()
        key = self._settings.location.definition_key(self._settings.revision)
        await self._store.put(key, json.dumps(definition, ensure_ascii=False, indent=1).encode())

    async def _load_definition(self) -> dict[str, Any]:
        key = self._settings.location.training_key(self._settings.revision, self._settings.attempt, DEFINITION)
        try:
            document = parse_document(await read_document(self._store, key))
            parse_spec(document)
        except ObjectNotFoundError as error:
            raise DefinitionError(
                f"the object store has no {key}; the operator writes it before it starts a trainer"
            ) from error
        except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DefinitionError(f"{key} is not a definition; use one version of Ocelli for all its parts") from error
        return document

    async def _load_earlier_artifact(self) -> Artifact | None:
        """The artifact of this revision, where an attempt ended well and its outcome was lost."""
        if not await self._store.exists(self._settings.location.artifact_key(self._settings.revision, ARTIFACT_METADATA)):
            return None
        try:
            return await load_artifact(self._store, self._settings.location, self._settings.revision)
        except ArtifactError as error:
            logger.warning("artifact.unusable", extra={"error": str(error)})
            return None

    def _reuse(self, definition: ClassifierSpec, artifact: Artifact) -> Outcome:
        logger.info("artifact.reused", extra={"digest": artifact.digest})
        description = artifact.backbone_name
        try:
            choice = choose_backbone(definition.model.backbone, self._settings.backbones)
            if choice.installed.digest == artifact.backbone_digest:
                description = choice.description
        except BackboneNotInstalledError:
            # It was when the artifact was made, and serving it is not the trainer's business.
            pass
        return Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message="An earlier attempt had stored the artifact of this revision",
            revision=self._settings.revision,
            attempt=self._settings.attempt,
            **_measured(artifact.metrics),
            artifact_digest=artifact.digest,
            backbone=description,
            backbone_digest=artifact.backbone_digest,
        )

    async def _read(self, document: dict[str, Any], metadata: BackboneMetadata, *, seed: int) -> _Lesson:
        # Loading an engine takes as long as reading a hundred photographs: both at once.
        loading = asyncio.create_task(self._load_engine(metadata))
        try:
            height, width = metadata.preprocessing.height, metadata.preprocessing.width
            with PixelFile(self._scratch / "pixels", height=height, width=width) as pixels:
                dataset, numbers = await self._read_what_is_left(document, metadata, pixels)
                await self._progress.begin(Stage.EXTRACTING)
                return await asyncio.to_thread(self._extract, await loading, dataset, pixels, numbers, seed)
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

    async def _read_what_is_left(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile
    ) -> tuple[Dataset, Sequence[int]]:
        """As `_read_dataset`; where a source could not be read because it was erased meanwhile, without it."""
        while True:
            try:
                return await self._read_dataset(parse_spec(document), metadata, pixels)
            except SourcesError:
                now = await self._load_definition()
                if now == document:
                    raise
                logger.info("sources.erased")
                document = now

    async def _read_dataset(
        self, definition: ClassifierSpec, metadata: BackboneMetadata, pixels: PixelFile
    ) -> tuple[Dataset, Sequence[int]]:
        """The dataset, checked, and for each of its examples the number of its pixels."""
        started = time.monotonic()
        sets = example_sets(definition)
        sources = SourceReader(
            store=self._store,
            location=self._settings.location,
            file_sources_folder=self._settings.file_sources_folder,
            scratch_folder=self._scratch,
            networks=self._settings.networks,
        )
        images = ImageReader(
            sources=sources,
            decode=ImageDecoder(metadata.preprocessing, EXAMPLE_KINDS),
            pixels=pixels,
            decoding_threads=self._settings.cpu_count,
        )
        try:
            async with sources:
                readings = await images.read(self._settings.classifier, sets, self._progress.report)
        finally:
            images.close()
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
        logger.info("data.valid", extra={"images": len(dataset.examples), "seconds": time.monotonic() - started})
        return dataset, [images.pixel_number(example.digest) for example in dataset.examples]

    def _extract(self, engine: Engine, dataset: Dataset, pixels: PixelFile, numbers: Sequence[int], seed: int) -> _Lesson:
        """Compute what is learned from, and find the near duplicates among it."""
        started = time.monotonic()
        count = len(numbers)
        features = np.empty((count, engine.metadata.feature_count), dtype=np.float32)
        other_views = {view: np.empty_like(features) for view in _VIEWS if count <= VIEWS_LIMIT_IMAGES}
        prints = np.empty((count, FINGERPRINT_NUMBERS), dtype=np.float16)
        for start in range(0, count, _BATCH_IMAGES):
            rows = slice(start, start + _BATCH_IMAGES)
            images = pixels.read(numbers[rows])
            features[rows] = engine.features(images)
            for view, view_features in other_views.items():
                view_features[rows] = engine.features(_VIEWS[view](images))
            prints[rows] = fingerprints(images)
            self._progress.report(min(start + _BATCH_IMAGES, count) / count)
        logger.info("features.extracted", extra={"images": count, "engine": engine.name, "seconds": time.monotonic() - started})
        sets = np.array([example.set_index for example in dataset.examples], dtype=np.intp)
        oldest_first = sorted(range(count), key=lambda row: (dataset.examples[row].round, dataset.examples[row].digest))
        groups = group_near_duplicates(prints, normalised_rows(features), sets, oldest_first)
        membership = np.zeros((count, len(dataset.class_names)), dtype=np.bool_)
        for row, example in enumerate(dataset.examples):
            if example.set_index < len(dataset.class_names):
                membership[row, example.set_index] = True
        examples = Examples(
            features=features,
            other_views=other_views,
            membership=membership,
            folds=assign_folds([example.digest for example in dataset.examples], groups, sets, seed),
        )
        return _Lesson(dataset=dataset, examples=examples, groups=groups)

    async def _learn(self, lesson: _Lesson) -> tuple[Fit, Evaluation]:
        started = time.monotonic()
        await self._progress.begin(Stage.FITTING)
        fit = await asyncio.to_thread(fit_heads, lesson.examples, self._progress.report, threads=self._settings.cpu_count)
        logger.info(
            "heads.fitted",
            extra={"views": fit.recipe.views, "penalty": fit.recipe.penalty, "seconds": time.monotonic() - started},
        )
        await self._progress.begin(Stage.EVALUATING)
        names = [image_name(example) for example in lesson.dataset.examples]
        evaluation = await asyncio.to_thread(
            evaluate, fit, lesson.examples.membership, lesson.groups, lesson.dataset.class_names, names
        )
        logger.info(
            "heads.evaluated",
            extra={
                "images": evaluation.images,
                "accuracy": evaluation.accuracy,
                "misclassified": len(evaluation.misclassified),
                "calibration_error": evaluation.calibration_error,
            },
        )
        return fit, evaluation

    async def _store_results(self, artifact: Artifact, report: Report) -> None:
        """Write definition and reports, then the artifact: with its `artifact.json` the revision counts as learned."""
        await self._progress.begin(Stage.STORING)
        document = report.to_json()
        location, revision = self._settings.location, self._settings.revision
        await self._store_definition()
        text = json.dumps(document, ensure_ascii=False, indent=1)
        await self._store.put(location.artifact_key(revision, REPORT), text.encode())
        await self._store.put(location.artifact_key(revision, REPORT_PAGE), render_page(document).encode())
        digest = await save_artifact(self._store, location, artifact)
        counts = {name: document["data"][f"{name}Count"] for name in ("nearDuplicates", "conflicts")}
        logger.info("artifact.stored", extra={"digest": digest, **counts})


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an outcome, from the metrics of an artifact."""
    interval = metrics.get("accuracyInterval")
    return {
        "accuracy": metrics.get("accuracy"),
        # Artifacts of before have no interval, and an accuracy that is not balanced.
        "accuracy_interval": None if interval is None else (interval[0], interval[1]),
        "judged_images": None if interval is None else metrics["images"],
    }
