"""The progress file."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocelli_api.documents import parse_fields
from ocelli_api.outcome import ProgressReport, Stage, TuningProgress
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError
from ocelli_storage.store_url import open_store
from ocelli_training.progress import Progress

KEY = "trainings/progress.json"


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path.as_uri())


def make_progress(store: ObjectStore, clock: Clock | None = None, interval_seconds: float = 60) -> Progress:
    return Progress(store, KEY, now=clock or Clock(), interval_seconds=interval_seconds)


async def stored(store: ObjectStore) -> ProgressReport:
    return parse_fields(ProgressReport, json.loads(await store.get(KEY, limit_bytes=1 << 20)))


def test_the_file_is_there_from_the_start(store: ObjectStore) -> None:
    async def claim() -> None:
        async with make_progress(store):
            assert await stored(store) == ProgressReport(stage=Stage.READING, percent=0, data_valid=False)

    asyncio.run(claim())


def test_a_new_stage_is_written_at_once(store: ObjectStore) -> None:
    async def claim() -> None:
        async with make_progress(store) as progress:
            await progress.begin(Stage.EXTRACTING)
            assert await stored(store) == ProgressReport(stage=Stage.EXTRACTING, percent=35, data_valid=True)

    asyncio.run(claim())


def test_progress_within_a_stage_is_written_regularly(store: ObjectStore) -> None:
    async def claim() -> None:
        async with make_progress(store, interval_seconds=0.01) as progress:
            progress.report(0.5)
            deadline = time.monotonic() + 10
            while (await stored(store)).percent != 17:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(claim())


def test_percentages_never_fall_and_never_reach_100(store: ObjectStore) -> None:
    async def claim() -> list[int]:
        percents = []
        async with make_progress(store) as progress:
            for stage in Stage:
                await progress.begin(stage)
                for part in (0.2, 0.1, 1.0, 2.0):
                    progress.report(part)
                    percents.append(progress.build_report().percent)
        return percents

    percents = asyncio.run(claim())
    assert percents == sorted(percents)
    assert percents[-1] == 99


def test_the_completion_is_estimated_from_what_is_done(store: ObjectStore) -> None:
    async def claim() -> str | None:
        clock = Clock()
        async with make_progress(store, clock) as progress:
            progress.report(20 / 35)
            clock.time += timedelta(seconds=10)
            return progress.build_report().estimated_completion

    assert asyncio.run(claim()) == "2026-01-31T12:00:50Z"


def test_images_are_counted_within_their_stage(store: ObjectStore) -> None:
    async def claim() -> tuple[ProgressReport, ProgressReport]:
        async with make_progress(store) as progress:
            await progress.begin(Stage.EXTRACTING)
            progress.report_images(64, 128)
            extracting = progress.build_report()
            await progress.begin(Stage.FITTING)
            return extracting, progress.build_report()

    extracting, fitting = asyncio.run(claim())
    assert (extracting.images, extracting.images_total, extracting.percent) == (64, 128, 50)
    assert (fitting.images, fitting.images_total) == (None, None)


def test_device_and_accuracy_are_kept_until_the_end(store: ObjectStore) -> None:
    async def claim() -> ProgressReport:
        async with make_progress(store) as progress:
            progress.report_device("OpenVINO CPU float32")
            progress.report_accuracy(0.9)
            await progress.begin(Stage.STORING)
            return await stored(store)

    report = asyncio.run(claim())
    assert (report.device, report.accuracy) == ("OpenVINO CPU float32", 0.9)


def test_nothing_is_estimated_from_the_first_seconds(store: ObjectStore) -> None:
    async def claim() -> str | None:
        async with make_progress(store) as progress:
            progress.report(0.9)
            return progress.build_report().estimated_completion

    assert asyncio.run(claim()) is None


def test_an_unreachable_store_does_not_end_the_training(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailableError("object store: down")

    async def claim() -> Stage:
        monkeypatch.setattr(store, "put", refuse)
        async with make_progress(store) as progress:
            await progress.begin(Stage.FITTING)
            return progress.build_report().stage

    assert asyncio.run(claim()) is Stage.FITTING


def test_it_says_how_far_fine_tuning_is_until_the_next_stage(store: ObjectStore) -> None:
    tuning = TuningProgress(network=2, networks=6, epoch=3, epochs=10, loss=0.25)

    async def claim() -> None:
        async with make_progress(store, interval_seconds=0.01) as progress:
            await progress.begin(Stage.FITTING)
            progress.report_tuning(tuning)
            assert progress.build_report().fine_tuning == tuning
            await progress.begin(Stage.EVALUATING)
            assert (await stored(store)).fine_tuning is None

    asyncio.run(claim())


def test_the_progress_of_fine_tuning_survives_the_store(store: ObjectStore) -> None:
    tuning = TuningProgress(network=2, networks=6, epoch=3, epochs=10, loss=0.25)
    report = ProgressReport(stage=Stage.FITTING, percent=20, data_valid=True, fine_tuning=tuning)
    assert parse_fields(ProgressReport, json.loads(json.dumps(report.to_json()))) == report
