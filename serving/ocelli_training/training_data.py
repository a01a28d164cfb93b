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

from ocelli_api.classifier import parse_spec
from ocelli_api.outcome import Stage
from ocelli_model.backbone import BackboneMetadata
from ocelli_model.engine import available_device, device_for
from ocelli_storage.object_store import ObjectStore
from ocelli_training.corrections import CorrectionCounts
from ocelli_training.data_reading import Data, DefinitionReader, log_sets
from ocelli_training.dataset import Dataset, Example, build_dataset, check_dataset
from ocelli_training.example_rows import build_examples, find_groups
from ocelli_training.extraction import Extraction, Wanted, wanted_views
from ocelli_training.feature_cache import (
    FEATURES,
    TEST_FEATURES,
    FeatureCache,
    ImageFeatures,
    KnownImages,
    describe_computation,
)
from ocelli_training.features import PRECISION, load_feature_engine
from ocelli_training.fit import Examples
from ocelli_training.own_test_set import TestImages, TestSet, build_test_set, check_test_set
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.provenance import Input, find_inputs
from ocelli_training.reading import SourcesError
from ocelli_training.settings import TrainerSettings

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
    find_pixels: Callable[[str], NDArray[np.uint8] | None]
    """See `Data.find_pixels`."""
    inputs: tuple[Input, ...]
    """What was read, for the provenance."""
    engine_name: str
    """What computed the features, such as `OpenVINO CPU float32`."""
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
    data: Data
    inputs: tuple[Input, ...]

    @property
    def wanted(self) -> tuple[Wanted, Wanted]:
        """Examples, and test images: a test set changes nothing about what is learned, so it needs no other views."""
        tested = () if self.test_set is None else self.test_set.examples
        counts = Counter(example.set_index for example in self.dataset.examples)
        fewest = min(counts[index] for index in range(len(self.dataset.class_names)))
        views = wanted_views(len(self.dataset.examples), fewest, parse_spec(self.document).model.strategy)
        return Wanted(images=self.dataset.examples, views=views), Wanted(images=tested)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Computed:
    """What was computed of the images that were read."""

    computation: str
    """See `describe_computation`."""
    engine_name: str
    learned: ImageFeatures
    tested: ImageFeatures


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
        loading_engine = load_feature_engine(
            self._store, metadata, device, scratch=self._scratch, threads=self._settings.cpu_count
        )
        loading = asyncio.create_task(loading_engine)
        try:
            computation = describe_computation(metadata, device, PRECISION)
            known = await self.cache.load(computation, metadata.feature_count)
            reader = DefinitionReader(self._settings, self._store, self._scratch, pixels, metadata.preprocessing)
            reading, usable = await self._read_needed(document, reader, KnownImages() if every_pixel else known)
            await self._progress.begin(Stage.EXTRACTING)
            engine = await loading
            self._progress.report_device(engine.name)
            extraction = Extraction(
                engine=engine,
                pixels=pixels,
                threads=self._settings.cpu_count,
                numbers=reading.data.numbers,
                on_images=self._progress.report_images,
            )
            # Features are the same bits whether they are known or computed.
            known = known if every_pixel else usable
            learned, tested = await asyncio.to_thread(extraction.run, reading.wanted, known)
            computed = _Computed(computation=computation, engine_name=engine.name, learned=learned, tested=tested)
            return await asyncio.to_thread(self._prepare, reading, computed, seed)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def _read_needed(
        self, document: dict[str, Any], reader: DefinitionReader, known: KnownImages
    ) -> tuple[_Reading, KnownImages]:
        """What was read, and the known images among it that have all views."""
        while True:
            reading = await self._read_remaining(document, reader, known)
            lacking = {
                image.digest
                for wanted in reading.wanted
                for image, place in zip(wanted.images, wanted.find(known), strict=True)
                if place is None and image.digest not in reading.data.numbers
            }
            if not lacking:
                return reading, known
            # They were test images, or part of a dataset that was too large for other views: their pixels are needed.
            document, known = reading.document, known.without(lacking)

    async def _read_remaining(self, document: dict[str, Any], reader: DefinitionReader, known: KnownImages) -> _Reading:
        """As `_read_dataset`, without sources that were erased while it was reading."""
        while True:
            try:
                return await self._read_dataset(document, reader, known)
            except SourcesError:
                now = await self._load_definition()
                if now == document:
                    raise
                logger.info("sources.erased")
                document = now

    async def _read_dataset(self, document: dict[str, Any], reader: DefinitionReader, known: KnownImages) -> _Reading:
        started = time.monotonic()
        definition, classifier = parse_spec(document), self._settings.classifier
        data = await reader.load_or_read(definition, self._progress.report, known)
        dataset = build_dataset(data.sets, data.readings, definition.corrections)
        log_sets(dataset.reports)
        check_dataset(classifier, dataset, data.readings)
        test_set = build_test_set(data.test_sets, data.test_readings, dataset, definition.corrections)
        if test_set is not None:
            check_test_set(classifier, test_set, dataset.class_names)
        logger.info("data.valid", extra={"images": len(dataset.examples), "seconds": time.monotonic() - started})
        return _Reading(
            dataset=dataset,
            test_set=test_set,
            corrections=data.count_corrections(definition.corrections),
            document=document,
            data=data,
            inputs=find_inputs((*data.sets, *data.test_sets), (*data.readings, *data.test_readings)),
        )

    def _prepare(self, reading: _Reading, computed: _Computed, seed: int) -> TrainingData:
        """Find near duplicates, and assign folds. Fingerprints are only needed until then."""
        learned, tested = computed.learned, computed.tested
        dataset, count = reading.dataset, len(learned.digests)
        images = [image for wanted in reading.wanted for image in wanted.images]
        for name, rows, wanted in zip((FEATURES, TEST_FEATURES), (learned, tested), reading.wanted, strict=True):
            self.cache.prepare(computed.computation, name, rows, [image.customer for image in wanted.images])
        groups = find_groups(_joined(learned.prints, tested.prints), _joined(learned.features, tested.features), images, count)
        test = None
        if reading.test_set is not None:
            test = TestImages.build(reading.test_set, tested.features, groups[count:], count)
            # Again, without near duplicates of examples.
            check_test_set(self._settings.classifier, test.test_set, dataset.class_names)
            if not test.test_set.examples:
                # Only customers who were erased had images that are not examples.
                test = None
        groups = groups[:count]
        examples = build_examples(dataset, learned.features, learned.other_views, groups, seed)
        return TrainingData(
            dataset=dataset,
            examples=examples,
            groups=groups,
            corrections=reading.corrections,
            find_pixels=reading.data.find_pixels,
            inputs=reading.inputs,
            engine_name=computed.engine_name,
            pixels=reading.data.pixels,
            numbers=reading.data.numbers,
            test=test,
        )


def _joined(rows: NDArray[_T], others: NDArray[_T]) -> NDArray[_T]:
    """One after the other, without a copy where there are no others."""
    return np.concatenate([rows, others]) if len(others) else rows
