"""The data of a definition: its sources as this machine reads them, or as a check before the training has read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import ClassifierSpec
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.object_store import ObjectStore
from ocelli_training.checked_pictures import (
    CheckedPictures,
    CheckedPicturesError,
    arrange_readings,
    list_sources,
    load_pictures,
)
from ocelli_training.dataset import SUBJECTS_SHOWN, ExampleSet, SetReport, SourceReading, example_sets
from ocelli_training.own_test_set import find_test_sets
from ocelli_training.pixel_file import PixelFile
from ocelli_training.reading import ImageReader, SourceFault, SourcesError
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Every source of a definition that can be used."""

    sets: tuple[ExampleSet, ...]
    readings: tuple[tuple[SourceReading, ...], ...]
    """For each set, those of its sources in order."""
    test_sets: tuple[ExampleSet, ...]
    test_readings: tuple[tuple[SourceReading, ...], ...]
    numbers: Mapping[str, int]
    """By digest of each usable image, its number in the pixel file."""
    faults: tuple[SourceFault, ...] = ()
    """Sources that cannot be used: they have no files."""

    def checked(self, definition: ClassifierSpec) -> CheckedPictures:
        """The same, by source of the definition that was read."""
        readings = [reading for of_set in (*self.readings, *self.test_readings) for reading in of_set]
        indices = [index for index, _ in list_sources(definition)]
        return CheckedPictures(readings=dict(zip(indices, readings, strict=True)), numbers=self.numbers)


@dataclass(frozen=True, kw_only=True)
class DataReader:
    """Reads the data of an attempt."""

    settings: TrainerSettings
    store: ObjectStore
    scratch: Path
    on_progress: Callable[[float], None]
    """Called with the part done, 0 to 1, from any thread."""

    async def read(
        self, definition: ClassifierSpec, pixels: PixelFile, preprocessing: Preprocessing, *, faults_limit: int
    ) -> Data:
        """Read every source. After `faults_limit` that cannot be used, no further ones are fetched."""
        sets, test_sets = example_sets(definition), find_test_sets(definition)
        sources = open_sources(self.settings, self.store, self.scratch)
        images = ImageReader(
            sources=sources,
            decode=ImageDecoder(preprocessing, EXAMPLE_KINDS),
            pixels=pixels,
            decoding_threads=self.settings.cpu_count,
        )
        try:
            async with sources:
                every, faults = await images.read_usable((*sets, *test_sets), self.on_progress, faults_limit=faults_limit)
        finally:
            images.close()
        return Data(
            sets=sets,
            readings=every[: len(sets)],
            test_sets=test_sets,
            test_readings=every[len(sets) :],
            numbers=images.pixel_numbers(),
            faults=faults,
        )

    async def load_or_read(self, definition: ClassifierSpec, pixels: PixelFile, preprocessing: Preprocessing) -> Data:
        """What a check of this attempt read, otherwise the sources.

        Raises:
            SourcesError: there are sources that cannot be used. After a few of them, no further ones are fetched.
            StoreUnavailableError: see there.
        """
        try:
            checked = await load_pictures(self.settings, self.store, definition, pixels, preprocessing)
        except CheckedPicturesError as error:
            logger.warning("pictures.not_loaded", extra={"error": str(error)})
            checked = None
        if checked is not None:
            logger.info("pictures.loaded", extra={"images": len(checked.numbers)})
            sets, test_sets = example_sets(definition), find_test_sets(definition)
            every = arrange_readings(checked, [item.sources for item in (*sets, *test_sets)])
            return Data(
                sets=sets,
                readings=every[: len(sets)],
                test_sets=test_sets,
                test_readings=every[len(sets) :],
                numbers=checked.numbers,
            )
        data = await self.read(definition, pixels, preprocessing, faults_limit=SUBJECTS_SHOWN)
        if data.faults:
            raise SourcesError.about(self.settings.classifier, data.faults)
        return data


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
