"""Stored files of revisions: what is read again, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ocelli_gateway import revision_files
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.judged_quality import JudgedQuality
from ocelli_gateway.refusals import NotFoundError
from ocelli_gateway.revision_files import RevisionFiles
from ocelli_storage.judged import Judged, save_judged
from ocelli_storage.layout import CHECK_REPORT, REPORT, ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
REVISION, ANNA = "0123456789", "a" * 32


def make_judged(*digests: str) -> Judged:
    count = len(digests)
    return Judged(
        class_names=("beagle", "husky"),
        has_negatives=False,
        digests=digests,
        scores=np.full((count, 2), 0.5, dtype=np.float32),
        actual=np.zeros(count, dtype=np.int32),
        groups=np.arange(count, dtype=np.int32),
        tested=np.zeros(count, dtype=np.bool_),
        learned_count=3,
    )


class Reader:
    """The files of one revision in a store, and what was read of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: ObjectStore = open_store(folder.as_uri())
        self.read: list[str] = []
        get = self.store.get

        async def counted(key: str, *, limit_bytes: int) -> bytes:
            self.read.append(key.rpartition("/")[2])
            return await get(key, limit_bytes=limit_bytes)

        monkeypatch.setattr(self.store, "get", counted)
        self.save({None: make_judged("1" * 64, "2" * 64), ANNA: make_judged("3" * 64)})
        asyncio.run(self.store.put(LOCATION.artifact_key(REVISION, REPORT), b"{}"))

    def save(self, parts: Mapping[str | None, Judged]) -> None:
        asyncio.run(save_judged(self.store, LOCATION, REVISION, parts))

    def ask(self, *, times: int = 1, concurrently: bool = False) -> list[JudgedQuality]:
        """The scores, by one gateway that is asked several times."""

        async def ask() -> list[JudgedQuality]:
            files = self.open()

            async def once() -> JudgedQuality:
                return await files.read_quality(await files.find(LOCATION, REVISION))

            if concurrently:
                return await asyncio.gather(*(once() for _ in range(times)))
            return [await once() for _ in range(times)]

        return asyncio.run(ask())

    def open(self) -> RevisionFiles:
        return RevisionFiles(self.store, FairSlots("reports are being read", total=2, share=1, timeout_seconds=10))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(tmp_path / "store", monkeypatch)


@pytest.mark.parametrize("concurrently", [True, False])
def test_unchanged_files_are_read_once(reader: Reader, concurrently: bool) -> None:
    found = reader.ask(times=5, concurrently=concurrently)
    assert len(reader.read) == 2
    assert sorted(found[4].judged.digests) == ["1" * 64, "2" * 64, "3" * 64]


def test_an_erasure_takes_effect_in_a_gateway_that_has_read_the_files(reader: Reader) -> None:
    async def ask_twice() -> tuple[int, int]:
        files = reader.open()
        before = await files.read_quality(await files.find(LOCATION, REVISION))
        await reader.store.delete(LOCATION.image_data_key(REVISION, ANNA, "judged.safetensors"))
        after = await files.read_quality(await files.find(LOCATION, REVISION))
        return len(before.judged.digests), len(after.judged.digests)

    assert asyncio.run(ask_twice()) == (3, 2)


def test_what_is_kept_is_bounded(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision_files, "KEPT_LIMIT_BYTES", 100)
    reader.ask(times=2)
    assert len(reader.read) == 4


def test_the_report_of_the_last_check_is_found_where_nothing_was_trained(reader: Reader) -> None:
    async def find() -> tuple[str, bool]:
        await reader.store.delete_prefix(LOCATION.artifacts_prefix)
        for attempt in (1, 2):
            key = LOCATION.training_key(REVISION, attempt, CHECK_REPORT)
            await reader.store.put(key, json.dumps({"attempt": attempt}).encode())
            await asyncio.sleep(0.02)
        place = await reader.open().find(LOCATION, REVISION)
        return place.report.key, place.is_check

    assert asyncio.run(find()) == (LOCATION.training_key(REVISION, 2, CHECK_REPORT), True)


def test_a_revision_without_files_is_not_found(reader: Reader) -> None:
    with pytest.raises(NotFoundError, match="no report on revision 9999999999"):
        asyncio.run(reader.open().find(LOCATION, "9999999999"))
