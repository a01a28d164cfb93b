"""Training data: the examples and the test set of a definition, as numbers that a fit and an evaluation take.

Sources are read and checked first; nothing is computed of data that is not valid. Images of the last training come from the
feature cache.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator, parse_spec
from ocelli_api.outcome import Stage
from ocelli_model.backbone import BackboneMetadata, load_backbone
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.image_decoder import ImageDecoder
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.object_store import ObjectStore
from ocelli_training.corrections import CorrectionCounts, count_corrections
from ocelli_training.dataset import Dataset, Example, build_dataset, check_dataset, example_sets
from ocelli_training.extraction import Extraction, Wanted, wanted_views
from ocelli_training.feature_cache import (
    FEATURES,
    TEST_FEATURES,
    FeatureCache,
    ImageFeatures,
    KnownImages,
    describe_computation,
)
from ocelli_training.features import PRECISION
from ocelli_training.fit import Examples, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.near_duplicates import group_near_duplicates
from ocelli_training.own_test_set import TestImages, TestSet, build_test_set, check_test_set, find_test_sets
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.reading import ImageReader, SourcesError
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources

_T = TypeVar("_T", bound=np.generic)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """The dataset as numbers: one row for each of its examples."""

    dataset: Dataset
    examples: Examples
    groups: NDArray[np.intp]
    """intp[N]: the row of each example's oldest near duplicate, see `group_near_duplicates`."""
    corrections: CorrectionCounts
    pixels: PixelFile
    numbers: Mapping[str, int]
    """By digest, the number of each image in the pixel file; without those whose features were known, unless they were asked
    for."""
    test: TestImages | None = None
    """The Classifier's own test set."""

    @property
    def judged_examples(self) -> tuple[Example, ...]:
        """All images that are judged: the examples, then the test set."""
        return (*self.dataset.examples, *(() if self.test is None else self.test.test_set.examples))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """What was read: the checked dataset and test set, with the pixels of all images that are not known."""

    dataset: Dataset
    test_set: TestSet | None
    corrections: CorrectionCounts
    document: dict[str, Any]
    """The definition that was read."""
    pixels: PixelFile
    numbers: Mapping[str, int]
    """See `TrainingData.numbers`."""

    @property
    def wanted(self) -> tuple[Wanted, Wanted]:
        """Examples, and test images: a test set changes nothing about what is learned, so it needs no other views."""
        tested = () if self.test_set is None else self.test_set.examples
        counts = Counter(example.set_index for example in self.dataset.examples)
        fewest = min(counts[index] for index in range(len(self.dataset.class_names)))
        views = wanted_views(len(self.dataset.examples), fewest, parse_spec(self.document).model.strategy)
        return Wanted(images=self.dataset.examples, views=views), Wanted(images=tested)


class DataReader:
    """Reads the training data of one attempt."""

    def __init__(
        self,
        settings: TrainerSettings,
        store: ObjectStore,
        scratch: Path,
        progress: Progress,
        load_definition: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        """`scratch` is a folder of the attempt; `load_definition` returns the definition as it is now."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._load_definition = load_definition
        self.cache = FeatureCache(store, settings.location, scratch)
        """With the features of this training, ready to be stored."""

    async def read(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, *, every_pixel: bool, seed: int
    ) -> TrainingData:
        """Read and check all sources of a definition, and compute what the cache does not have.

        `pixels` is an empty file. It gets the images whose features are not known, or all of them for `every_pixel`.

        Raises:
            SourcesError, DatasetError, BackboneError, ObjectStoreError, OSError: see there.
        """
        device = device_for(metadata, await asyncio.to_thread(available_device, self._settings.accelerator))
        # Concurrent: loading an engine takes as long as reading a hundred photographs.
        loading = asyncio.create_task(self._load_engine(metadata, device))
        try:
            computation = describe_computation(metadata, device, PRECISION)
            known = await self.cache.load(computation, metadata.feature_count)
            reading, usable = await self._read_needed(document, metadata, pixels, KnownImages() if every_pixel else known)
            await self._progress.begin(Stage.EXTRACTING)
            extraction = Extraction(
                engine=await loading,
                pixels=pixels,
                threads=self._settings.cpu_count,
                numbers=reading.numbers,
                on_progress=self._progress.report,
            )
            # Features are the same bits whether they are known or computed.
            known = known if every_pixel else usable
            learned, tested = await asyncio.to_thread(extraction.run, reading.wanted, known)
            return await asyncio.to_thread(self._prepare, reading, computation, learned, tested, seed)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def _load_engine(self, metadata: BackboneMetadata, device: Accelerator) -> Engine:
        backbone = await load_backbone(
            self._store, metadata.digest, cache=self._scratch / "backbones", files=needed_files(device)
        )
        return await asyncio.to_thread(
            load_engine, backbone, threads=self._settings.cpu_count, device=device, precision=PRECISION
        )

    async def _read_needed(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, known: KnownImages
    ) -> tuple[_Reading, KnownImages]:
        """What was read, and the known images among it that have all views."""
        while True:
            reading = await self._read_remaining(document, metadata, pixels, known)
            lacking = {
                image.digest
                for wanted in reading.wanted
                for image, place in zip(wanted.images, wanted.find(known), strict=True)
                if place is None and known.find(image.digest) is not None
            }
            if not lacking:
                return reading, known
            # They were test images, or part of a dataset that was too large for other views: their pixels are needed.
            document, known = reading.document, known.without(lacking)

    async def _read_remaining(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, known: KnownImages
    ) -> _Reading:
        """As `_read_dataset`, without sources that were erased while it was reading."""
        while True:
            try:
                return await self._read_dataset(document, metadata, pixels, known)
            except SourcesError:
                now = await self._load_definition()
                if now == document:
                    raise
                logger.info("sources.erased")
                document = now

    async def _read_dataset(
        self, document: dict[str, Any], metadata: BackboneMetadata, pixels: PixelFile, known: KnownImages
    ) -> _Reading:
        started = time.monotonic()
        definition, classifier = parse_spec(document), self._settings.classifier
        sets, sets_of_test = example_sets(definition), find_test_sets(definition)
        sources = open_sources(self._settings, self._store, self._scratch)
        images = ImageReader(
            sources=sources,
            open_image=ImageDecoder(metadata.preprocessing, EXAMPLE_KINDS).open,
            pixels=pixels,
            decoding_threads=self._settings.cpu_count,
            known_sides=known.sides,
        )
        try:
            async with sources:
                every = await images.read(classifier, (*sets, *sets_of_test), self._progress.report)
        finally:
            images.close()
        readings, readings_of_test = every[: len(sets)], every[len(sets) :]
        dataset = build_dataset(sets, readings, definition.corrections)
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
        check_dataset(classifier, dataset, readings)
        test_set = build_test_set(sets_of_test, readings_of_test, dataset, definition.corrections)
        if test_set is not None:
            check_test_set(classifier, test_set, dataset.class_names)
        logger.info("data.valid", extra={"images": len(dataset.examples), "seconds": time.monotonic() - started})
        corrections = count_corrections(definition.corrections, sets, readings, sets_of_test, readings_of_test)
        if definition.corrections:
            logger.info("corrections.applied", extra={**corrections.to_json(), "unknown": len(corrections.unknown)})
        return _Reading(
            dataset=dataset,
            test_set=test_set,
            corrections=corrections,
            document=document,
            pixels=pixels,
            numbers=images.pixel_numbers,
        )

    def _prepare(
        self, reading: _Reading, computation: str, learned: ImageFeatures, tested: ImageFeatures, seed: int
    ) -> TrainingData:
        """Find near duplicates, and assign folds. Fingerprints are only needed until then."""
        dataset, count = reading.dataset, len(learned.digests)
        images = [image for wanted in reading.wanted for image in wanted.images]
        for name, computed, wanted in zip((FEATURES, TEST_FEATURES), (learned, tested), reading.wanted, strict=True):
            self.cache.prepare(computation, name, computed, [image.customer for image in wanted.images])
        sets = np.array([image.set_index for image in images], dtype=np.intp)
        groups = group_near_duplicates(
            _joined(learned.prints, tested.prints),
            normalised_rows(_joined(learned.features, tested.features)),
            sets,
            # Test images come last, so that none of them changes the group of an example.
            sorted(range(len(images)), key=lambda row: (row >= count, images[row].round, images[row].digest)),
        )
        test = None
        if reading.test_set is not None:
            test = TestImages.build(reading.test_set, tested.features, groups[count:], count)
            # Again, without near duplicates of examples.
            check_test_set(self._settings.classifier, test.test_set, dataset.class_names)
            if not test.test_set.examples:
                # Only customers who were erased had images that are not examples.
                test = None
        groups, sets = groups[:count], sets[:count]
        membership = sets[:, np.newaxis] == np.arange(len(dataset.class_names))
        examples = Examples(
            features=learned.features,
            other_views=dict(learned.other_views),
            membership=membership,
            folds=assign_folds(learned.digests, groups, sets, seed),
        )
        return TrainingData(
            dataset=dataset,
            examples=examples,
            groups=groups,
            corrections=reading.corrections,
            pixels=reading.pixels,
            numbers=reading.numbers,
            test=test,
        )


def _joined(rows: NDArray[_T], others: NDArray[_T]) -> NDArray[_T]:
    """One after the other, without a copy where there are no others."""
    return np.concatenate([rows, others]) if len(others) else rows
