"""The data of a definition: its sources as this machine reads them, or as a check before the training has read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import ClassifierSpec, Correction
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.object_store import ObjectStore
from ocelli_training.checked_images import (
    CheckedImages,
    CheckedImagesError,
    arrange_readings,
    list_sources,
    load_checked,
)
from ocelli_training.corrections import CorrectionCounts, count_corrections
from ocelli_training.dataset import SUBJECTS_SHOWN, ExampleSet, SetReport, SourceReading, example_sets
from ocelli_training.feature_cache import KnownImages
from ocelli_training.kept_images import KeptImages
from ocelli_training.own_test_set import find_test_sets
from ocelli_training.pixel_file import PixelFile
from ocelli_training.reading import ImageReader, SourceFault, SourcesError
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources

NOTHING_KNOWN = KnownImages()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Every source of a definition that can be used."""

    sets: tuple[ExampleSet, ...]
    readings: tuple[tuple[SourceReading, ...], ...]
    """For each set, those of its sources in order."""
    test_sets: tuple[ExampleSet, ...]
    test_readings: tuple[tuple[SourceReading, ...], ...]
    numbers: Mapping[str, int]
    """By digest of each usable image that was decoded, its number in the pixel file."""
    pixels: PixelFile
    kept: KeptImages
    """The images that were not decoded, because they are known."""
    faults: tuple[SourceFault, ...] = ()
    """Sources that cannot be used: they have no files."""

    def find_pixels(self, digest: str) -> NDArray[np.uint8] | None:
        """The pixels of an image, uint8[height, width, 3]; None where they are not at hand."""
        number = self.numbers.get(digest)
        return self.kept.find(digest) if number is None else self.pixels.read([number])[0]

    def count_corrections(self, corrections: Sequence[Correction]) -> CorrectionCounts:
        """What the corrections of the definition change."""
        counts = count_corrections(corrections, self.sets, self.readings, self.test_sets, self.test_readings)
        if corrections:
            logger.info("corrections.applied", extra={**counts.to_json(), "unknown": len(counts.unknown)})
        return counts

    def checked(self, definition: ClassifierSpec) -> CheckedImages:
        """The same, by source of the definition that was read."""
        readings = [reading for of_set in (*self.readings, *self.test_readings) for reading in of_set]
        indices = [index for index, _ in list_sources(definition)]
        return CheckedImages(readings=dict(zip(indices, readings, strict=True)), numbers=self.numbers)


class DefinitionReader:
    """Reads the data of an attempt into a pixel file."""

    def __init__(
        self,
        settings: TrainerSettings,
        store: ObjectStore,
        scratch: Path,
        pixels: PixelFile,
        preprocessing: Preprocessing,
    ) -> None:
        """`scratch` is a folder of the attempt; `preprocessing` makes images of the size of `pixels`."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._decoder = ImageDecoder(preprocessing, EXAMPLE_KINDS)
        self._kept = KeptImages(scratch / "kept", self._decoder)

    async def read(
        self,
        definition: ClassifierSpec,
        on_progress: Callable[[float], None],
        known: KnownImages = NOTHING_KNOWN,
        *,
        faults_limit: int,
    ) -> Data:
        """Read every source, and decode every image that is not known.

        After `faults_limit` sources that cannot be used, no further ones are fetched. `on_progress` is called with the part
        done, 0 to 1, from any thread.
        """
        sets, test_sets = example_sets(definition), find_test_sets(definition)
        sources = open_sources(self._settings, self._store, self._scratch)
        images = ImageReader(
            sources=sources,
            open_image=self._decoder.open,
            pixels=self._pixels,
            decoding_threads=self._settings.cpu_count,
            known_sides=known.sides,
            keep=self._kept.add,
        )
        try:
            async with sources:
                every, faults = await images.read_usable((*sets, *test_sets), on_progress, faults_limit=faults_limit)
        finally:
            images.close()
        return self._arrange(sets, test_sets, every, images.pixel_numbers(), faults)

    async def load_or_read(self, definition: ClassifierSpec, on_progress: Callable[[float], None], known: KnownImages) -> Data:
        """What a check of this attempt read, with the pixels of all images; otherwise the sources.

        Raises:
            SourcesError: there are sources that cannot be used. After a few of them, no further ones are fetched.
            StoreUnavailableError: see there.
        """
        try:
            checked = await load_checked(self._settings, self._store, definition, self._pixels, self._preprocessing)
        except CheckedImagesError as error:
            logger.warning("checked_images.not_loaded", extra={"error": str(error)})
            checked = None
        if checked is not None:
            logger.info("checked_images.loaded", extra={"images": len(checked.numbers)})
            sets, test_sets = example_sets(definition), find_test_sets(definition)
            every = arrange_readings(checked, [item.sources for item in (*sets, *test_sets)])
            return self._arrange(sets, test_sets, every, checked.numbers)
        data = await self.read(definition, on_progress, known, faults_limit=SUBJECTS_SHOWN)
        if data.faults:
            raise SourcesError.about(self._settings.classifier, data.faults)
        return data

    def _arrange(
        self,
        sets: tuple[ExampleSet, ...],
        test_sets: tuple[ExampleSet, ...],
        every: tuple[tuple[SourceReading, ...], ...],
        numbers: Mapping[str, int],
        faults: tuple[SourceFault, ...] = (),
    ) -> Data:
        return Data(
            sets=sets,
            readings=every[: len(sets)],
            test_sets=test_sets,
            test_readings=every[len(sets) :],
            numbers=numbers,
            pixels=self._pixels,
            kept=self._kept,
            faults=faults,
        )


def log_sets(reports: tuple[SetReport, ...]) -> None:
    """A line for each example set, with what was read of it."""
    for report in reports:
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
