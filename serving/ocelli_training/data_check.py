"""A check of the data before the training, without a GPU: everything that is wrong, and what a person should look at.

What it read is stored for the training of the same attempt. Images are compared by features of the default backbone, whatever
the recipe's: it takes milliseconds on a CPU, and the thresholds for near duplicates were measured with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ocelli_api.classifier import Accelerator, ClassifierSpec, parse_spec
from ocelli_api.outcome import ExitCode, Outcome, OutcomeReason, Stage
from ocelli_api.times import format_time
from ocelli_model.backbone import load_backbone_metadata
from ocelli_model.engine import Engine
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.layout import CHECK_PAGE, CHECK_REPORT, THUMBNAILS, is_image_data
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.thumbnails import erase_thumbnails
from ocelli_training.backbone_choice import AUTO, choose_backbone
from ocelli_training.check_summary import describe_faults, describe_findings
from ocelli_training.checked_images import save_checked
from ocelli_training.data_reading import NOTHING_KNOWN, Data, DefinitionReader, log_sets
from ocelli_training.data_report import DataReport
from ocelli_training.dataset import Dataset, build_dataset, find_faults
from ocelli_training.example_rows import find_groups
from ocelli_training.extraction import Extraction, Wanted
from ocelli_training.features import load_feature_engine
from ocelli_training.image_data import find_erased_customers
from ocelli_training.own_test_set import TestImages, TestSet, build_test_set, find_test_set_faults
from ocelli_training.pixel_file import PixelFile
from ocelli_training.progress import Progress
from ocelli_training.report import render_check_page
from ocelli_training.revision_store import RevisionStore
from ocelli_training.settings import TrainerSettings
from ocelli_training.suspicion import search_suspicious
from ocelli_training.thumbnails import Thumbnails, ThumbnailSource

FORMAT_VERSION = 1
SOURCE_FAULTS_LIMIT = 50
"""After this many sources that cannot be used, no further ones are read: each may take minutes, if its server is down."""
FAULTS_REPORTED = 1000

logger = logging.getLogger(__name__)


class DataCheckError(Exception):
    """The data does not suffice for a training. The message names the Classifier and everything that is wrong."""

    def __init__(self, message: str, reason: OutcomeReason, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What is wrong with the data, and the report on it."""

    report: DataReport
    faults: Sequence[str]
    data: Data
    thumbnails: Thumbnails


class DataCheck:
    """The check of one attempt at one revision."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress
        self._revision = RevisionStore(settings, store)

    async def run(self) -> Outcome:
        """Check the data, and store the report and what was read.

        Raises:
            DataCheckError: a training would fail. The report is stored.
            DefinitionError, BackboneNotInstalledError, BackboneError, ObjectStoreError, OSError: the data was not checked.
        """
        settings, started = self._settings, time.monotonic()
        fields = {"classifier": settings.classifier, "revision": settings.revision, "attempt": settings.attempt}
        logger.info("check.started", extra={**fields, "cores": settings.cpu_count})
        document = await self._revision.load_definition()
        definition = parse_spec(document)
        wanted = choose_backbone(definition.model.backbone, settings.backbones)
        comparing = choose_backbone(AUTO, settings.backbones)
        preprocessing = (await load_backbone_metadata(self._store, wanted.installed.digest)).preprocessing
        metadata = await load_backbone_metadata(self._store, comparing.installed.digest)
        pixels = PixelFile(self._scratch / "pixels", height=preprocessing.height, width=preprocessing.width)
        # Concurrent: loading an engine takes as long as reading a hundred photographs.
        loading_engine = load_feature_engine(
            self._store, metadata, Accelerator.CPU, scratch=self._scratch, threads=settings.cpu_count
        )
        loading = asyncio.create_task(loading_engine)
        try:
            with pixels:
                reader = DefinitionReader(settings, self._store, self._scratch, pixels, preprocessing)
                data = await self._read(reader, definition)
                while data.faults and (now := await self._revision.load_definition()) != document:
                    logger.info("sources.erased")
                    document, definition = now, parse_spec(now)
                    data = await self._read(reader, definition)
                await self._progress.begin(Stage.CHECKING, data_valid=False)
                findings = await asyncio.to_thread(self._compare, await loading, data, pixels, definition)
                faults = describe_faults(settings.classifier, findings.faults)
                await self._store_report(findings)
                if faults is None:
                    await self._store_checked(definition, findings.data, pixels, preprocessing)
                await self._store_thumbnails(findings.thumbnails)
                await self._delete_erased()
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        counts = {"images": len(findings.report.dataset.examples), "faults": len(findings.faults)}
        logger.info("data.checked", extra={**counts, "seconds": time.monotonic() - started})
        if faults is not None:
            raise DataCheckError(faults, *_judge_faults(findings))
        return Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message=describe_findings(findings.report, self._key(CHECK_PAGE)),
            revision=settings.revision,
            attempt=settings.attempt,
        )

    async def _read(self, reader: DefinitionReader, definition: ClassifierSpec) -> Data:
        return await reader.read(definition, self._progress.report, faults_limit=SOURCE_FAULTS_LIMIT)

    def _compare(self, engine: Engine, data: Data, pixels: PixelFile, definition: ClassifierSpec) -> _Findings:
        dataset = build_dataset(data.sets, data.readings, definition.corrections)
        log_sets(dataset.reports)
        test_set = build_test_set(data.test_sets, data.test_readings, dataset, definition.corrections)
        images = (*dataset.examples, *(() if test_set is None else test_set.examples))
        learned, threads = len(dataset.examples), self._settings.cpu_count
        extraction = Extraction(
            engine=engine,
            pixels=pixels,
            threads=threads,
            numbers=data.numbers,
            on_images=self._progress.report_images,
        )
        (computed,) = extraction.run([Wanted(images=images)], NOTHING_KNOWN)
        features = computed.features
        groups = find_groups(computed.prints, features, images, learned)
        if test_set is not None:
            test_set = TestImages.build(test_set, features[learned:], groups[learned:], learned).test_set
        seed = definition.model.seed
        suspicion = search_suspicious(dataset, features[:learned], groups[:learned], seed, threads=threads)
        height, width = pixels.image_shape
        report = DataReport(
            dataset=dataset,
            groups=groups[:learned],
            suspicion=suspicion,
            corrections=data.count_corrections(definition.corrections),
            input_side_pixels=min(height, width),
        )
        source = ThumbnailSource(find_pixels=data.find_pixels, threads=threads)
        return _Findings(
            report=report,
            faults=_find_faults(data, dataset, test_set),
            data=data,
            thumbnails=source.make(report.shown_images(), dataset.examples),
        )

    async def _store_report(self, findings: _Findings) -> None:
        settings, report = self._settings, findings.report
        document = {
            "formatVersion": FORMAT_VERSION,
            "classifier": settings.classifier,
            "classifierID": settings.location.classifier_id,
            "revision": settings.revision,
            "checkedAt": format_time(datetime.now(UTC), timespec="seconds"),
            "faultsCount": len(findings.faults),
            "faults": list(findings.faults[:FAULTS_REPORTED]),
            "stoppedEarly": len(findings.data.faults) >= SOURCE_FAULTS_LIMIT,
            "data": report.to_json(),
        }
        erased = find_erased_customers(await self._revision.load_definition())
        page = render_check_page(document, findings.thumbnails.build_lines(erased))
        await self._store.put(self._key(CHECK_REPORT), json.dumps(document, ensure_ascii=False, indent=1).encode())
        await self._store.put(self._key(CHECK_PAGE), page.encode())

    async def _store_checked(
        self,
        definition: ClassifierSpec,
        data: Data,
        pixels: PixelFile,
        preprocessing: Preprocessing,
    ) -> None:
        """Store what was read, for the training. Without it, the training reads the sources again."""
        settings = self._settings
        erased = find_erased_customers(await self._revision.load_definition())
        checked = data.checked(definition)
        stored = await save_checked(settings, self._store, self._scratch, checked, pixels, preprocessing, erased)
        logger.info("checked_images.stored", extra={"images": len(data.numbers) if stored else 0})

    async def _store_thumbnails(self, thumbnails: Thumbnails) -> None:
        """After the images, which a training needs: both must fit the namespace's quota."""
        settings = self._settings
        key_of = partial(settings.location.checked_key, settings.revision, settings.attempt, file=THUMBNAILS)
        await thumbnails.save(self._store, key_of, find_erased_customers(await self._revision.load_definition()))

    async def _delete_erased(self) -> None:
        """Delete what was stored of customers who were erased meanwhile: an erasure changes the definition first."""
        settings = self._settings
        erased = find_erased_customers(await self._revision.load_definition())
        for customer in erased:
            await erase_thumbnails(self._store, self._key(CHECK_PAGE), customer)
        prefix = settings.location.checked_prefix(settings.revision, settings.attempt)
        for item in await self._store.list_objects(prefix) if erased else ():
            if any(is_image_data(item.key, customer) for customer in erased):
                await self._store.delete(item.key)

    def _key(self, file: str) -> str:
        return self._settings.location.training_key(self._settings.revision, self._settings.attempt, file)


def _find_faults(data: Data, dataset: Dataset, test_set: TestSet | None) -> list[str]:
    unknown = {fault.example_set for fault in data.faults}
    faults = [str(fault) for fault in data.faults]
    faults += find_faults(dataset, data.readings, unknown)
    if test_set is not None:
        faults += find_test_set_faults(test_set, dataset.class_names, unknown)
    return faults


def _judge_faults(findings: _Findings) -> tuple[OutcomeReason, ExitCode]:
    """Sources that may be readable later are a reason to try again, unless something else is wrong as well."""
    unread = findings.data.faults
    if len(unread) < len(findings.faults):
        return OutcomeReason.INVALID_DATA, ExitCode.INVALID_DATA
    # The permanent ones come first.
    first = unread[0].error
    return first.reason, ExitCode.FAILED if first.transient else ExitCode.INVALID_DATA
