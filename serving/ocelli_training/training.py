"""A training: from the definition of a revision to its artifact and reports, in stages."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator, ClassifierSpec, Pretrained, parse_spec
from ocelli_api.outcome import Outcome, OutcomeReason, Stage
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact, save_artifact
from ocelli_model.backbone import BackboneMetadata, Precision, load_backbone, load_backbone_metadata, save_backbone
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.image_decoder import ImageDecoder
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, REPORT, REPORT_PAGE
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_training.backbone_choice import BackboneNotInstalledError, choose_backbone
from ocelli_training.dataset import Dataset, build_dataset, check_dataset, example_sets
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.extraction import Extraction, wanted_views
from ocelli_training.feature_cache import FeatureCache, PictureFeatures, describe_computation
from ocelli_training.fit import Examples, Fit, fit_heads, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.near_duplicates import group_near_duplicates
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.reading import ImageReader, SourcesError
from ocelli_training.report import Report, describe_artifact, image_name, render_page
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources

_PRECISION = Precision.FLOAT32
"""Of all features, even where the backbone allows others: heads trained on one node are served on other nodes."""

logger = logging.getLogger(__name__)


class DefinitionError(Exception):
    """The definition to learn is missing or cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _TrainingData:
    """The dataset as numbers: one row for each of its examples."""

    dataset: Dataset
    examples: Examples
    groups: NDArray[np.intp]
    """intp[N]: the row of each example's oldest near duplicate, see `group_near_duplicates`."""
    document: dict[str, Any]
    """The definition that was read: without sources that were erased before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """The checked dataset before its features are known."""

    dataset: Dataset
    numbers: dict[str, int]
    """By digest: the number in the pixel file of each example that is not cached."""
    document: dict[str, Any]
    """The definition that was read."""


class Training:
    """One attempt at one revision."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._cache = FeatureCache(store, settings.location, scratch)

    async def run(self) -> Outcome:
        """Train the revision, unless an earlier attempt stored its artifact.

        Raises:
            DefinitionError, BackboneNotInstalledError, BackboneError, SourcesError, DatasetError, ObjectStoreError,
            OSError: see there; `ocelli_training.failure` describes each of them.
        """
        settings, location = self._settings, self._settings.location
        fields = {"classifier": settings.classifier, "revision": settings.revision, "attempt": settings.attempt}
        logger.info("training.started", extra={**fields, "cores": settings.cpu_count})
        document = await self._load_definition()
        definition = parse_spec(document)
        earlier = await self._load_earlier_artifact()
        if earlier is not None:
            return self._reuse(definition, earlier)
        if definition.pretrained is not None:
            return await self._import_pretrained(definition.pretrained)
        choice = choose_backbone(definition.model.backbone, settings.backbones)
        metadata = await load_backbone_metadata(self._store, choice.installed.digest)
        logger.info("backbone.chosen", extra={"backbone": choice.description, "digest": choice.installed.digest})
        data = await self._read(document, metadata, seed=definition.model.seed)
        fit, evaluation = await self._learn(data)
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
            dataset=data.dataset,
            recipe=fit.recipe,
            evaluation=evaluation,
            groups=data.groups,
        )
        await self._store_results(artifact, report)
        await self._save_features(data.document)
        return self._succeeded(f"Trained on {len(data.dataset.examples)} images", artifact, choice.description)

    async def _import_pretrained(self, pretrained: Pretrained) -> Outcome:
        """Check the files that the definition names, and store them as an artifact with its own network. Nothing is trained."""
        # Imported on demand: other trainings start faster without it.
        from ocelli_training.pretrained import import_pretrained

        made = await import_pretrained(pretrained, self._settings, self._store, self._scratch, self._progress)
        await self._progress.begin(Stage.STORING)
        location, revision = self._settings.location, self._settings.revision
        await self._store_definition()
        await self._store.put(location.artifact_key(revision, REPORT), _json(made.report))
        metadata, files = made.network.metadata, made.network.files
        await save_backbone(self._store, metadata, files, prefix=location.network_prefix(revision))
        digest = await save_artifact(self._store, location, made.artifact)
        logger.info("artifact.stored", extra={"digest": digest})
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
            artifact_digest=artifact.digest,
            backbone=backbone,
            backbone_digest=artifact.backbone_digest,
        )

    async def _store_definition(self) -> None:
        # Read again: sources that were erased meanwhile must not be stored again.
        definition = await self._load_definition()
        key = self._settings.location.definition_key(self._settings.revision)
        await self._store.put(key, _json(definition))

    async def _save_features(self, document: dict[str, Any]) -> None:
        """Cache what was computed, unless some of its sources were erased since they were read.

        Last: without a cache the revision is complete, and a quota must not be used up by it. The definition is read again
        after the cache was stored: whoever erases changes the definition first, and deletes caches afterwards.
        """
        if await self._load_definition() != document:
            return
        await self._cache.save(self._settings.revision)
        try:
            unchanged = await self._load_definition() == document
        except DefinitionError:
            unchanged = False
        if not unchanged:
            await self._cache.delete()

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
        """The artifact of this revision, where an earlier attempt succeeded and its outcome was lost."""
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
            # It was installed when the artifact was made. Serving does not depend on the trainer's list.
            pass
        return self._succeeded("Reused the artifact that an earlier attempt stored", artifact, description)

    async def _read(self, document: dict[str, Any], metadata: BackboneMetadata, *, seed: int) -> _TrainingData:
        device = device_for(metadata, await asyncio.to_thread(available_device, self._settings.accelerator))
        # Concurrent: loading an engine takes as long as reading a hundred photographs.
        loading = asyncio.create_task(self._load_engine(metadata, device))
        try:
            computation = describe_computation(metadata, device, _PRECISION)
            cached = await self._cache.load(computation, metadata.feature_count)
            height, width = metadata.preprocessing.height, metadata.preprocessing.width
            with PixelFile(self._scratch / "pixels", height=height, width=width) as pixels:
                reading = await self._read_remaining(document, metadata, pixels, cached)
                views = wanted_views(len(reading.dataset.examples))
                if cached is not None and not cached.other_views.keys() >= set(views):
                    # The cache is of a larger dataset, which was learned without other views.
                    cached = None
                    reading = await self._read_remaining(reading.document, metadata, pixels, cached)
                await self._progress.begin(Stage.EXTRACTING)
                extraction = Extraction(
                    engine=await loading,
                    pixels=pixels,
                    threads=self._settings.cpu_count,
                    views=views,
                    on_progress=self._progress.report,
                )
                digests = [example.digest for example in reading.dataset.examples]
                computed = await asyncio.to_thread(extraction.run, digests, reading.numbers, cached)
            await asyncio.to_thread(self._cache.prepare, computation, computed)
            examples, groups = await asyncio.to_thread(self._prepare_examples, reading.dataset, computed, seed)
            return _TrainingData(dataset=reading.dataset, examples=examples, groups=groups, document=reading.document)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def _load_engine(self, metadata: BackboneMetadata, device: Accelerator) -> Engine:
        backbone = await load_backbone(
            self._store, metadata.digest, cache=self._scratch / "backbones", files=needed_files(device)
        )
        return await asyncio.to_thread(
            load_engine, backbone, threads=self._settings.cpu_count, device=device, precision=_PRECISION
        )

    async def _read_remaining(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, cached: PictureFeatures | None
    ) -> _Reading:
        """As `_read_dataset`, without sources that were erased while it was reading."""
        while True:
            try:
                return await self._read_dataset(document, metadata, pixels, cached)
            except SourcesError:
                now = await self._load_definition()
                if now == document:
                    raise
                logger.info("sources.erased")
                document = now

    async def _read_dataset(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, cached: PictureFeatures | None
    ) -> _Reading:
        """The checked dataset. Only images that are not cached are decoded."""
        started = time.monotonic()
        sets = example_sets(parse_spec(document))
        known = frozenset() if cached is None else frozenset(cached.digests)
        sources = open_sources(self._settings, self._store, self._scratch)
        images = ImageReader(
            sources=sources,
            decode=ImageDecoder(metadata.preprocessing, EXAMPLE_KINDS),
            pixels=pixels,
            decoding_threads=self._settings.cpu_count,
            known=known,
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
        digests = {example.digest for example in dataset.examples} - known
        return _Reading(dataset=dataset, numbers={digest: images.pixel_number(digest) for digest in digests}, document=document)

    def _prepare_examples(self, dataset: Dataset, computed: PictureFeatures, seed: int) -> tuple[Examples, NDArray[np.intp]]:
        """The examples, and for each the row of its oldest near duplicate."""
        count, features = len(dataset.examples), computed.features
        sets = np.array([example.set_index for example in dataset.examples], dtype=np.intp)
        oldest_first = sorted(range(count), key=lambda row: (dataset.examples[row].round, dataset.examples[row].digest))
        groups = group_near_duplicates(computed.prints, normalised_rows(features), sets, oldest_first)
        membership = np.zeros((count, len(dataset.class_names)), dtype=np.bool_)
        for row, example in enumerate(dataset.examples):
            if example.set_index < len(dataset.class_names):
                membership[row, example.set_index] = True
        examples = Examples(
            features=features,
            other_views=dict(computed.other_views),
            membership=membership,
            folds=assign_folds([example.digest for example in dataset.examples], groups, sets, seed),
        )
        return examples, groups

    async def _learn(self, data: _TrainingData) -> tuple[Fit, Evaluation]:
        started = time.monotonic()
        await self._progress.begin(Stage.FITTING)
        fit = await asyncio.to_thread(fit_heads, data.examples, self._progress.report, threads=self._settings.cpu_count)
        logger.info(
            "heads.fitted",
            extra={"views": fit.recipe.views, "penalty": fit.recipe.penalty, "seconds": time.monotonic() - started},
        )
        await self._progress.begin(Stage.EVALUATING)
        names = [image_name(example) for example in data.dataset.examples]
        evaluation = await asyncio.to_thread(
            evaluate, fit, data.examples.membership, data.groups, data.dataset.class_names, names
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
        """Write definition and reports, then the artifact: once `artifact.json` exists, the revision counts as trained."""
        await self._progress.begin(Stage.STORING)
        document = report.to_json()
        location, revision = self._settings.location, self._settings.revision
        await self._store_definition()
        await self._store.put(location.artifact_key(revision, REPORT), _json(document))
        await self._store.put(location.artifact_key(revision, REPORT_PAGE), render_page(document).encode())
        digest = await save_artifact(self._store, location, artifact)
        counts = {name: document["data"][f"{name}Count"] for name in ("nearDuplicates", "conflicts")}
        logger.info("artifact.stored", extra={"digest": digest, **counts})


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode()
