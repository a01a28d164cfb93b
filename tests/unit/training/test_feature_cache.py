"""The feature cache: what a retrain computes again, and what is never used."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, FEATURES
from ocelli_training import feature_cache, training
from ocelli_training.feature_cache import FeatureCacheError, PictureFeatures, read_cache, write_cache
from ocelli_training.fit import View
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS

NEXT_REVISION = "1123456789"


def made(count: int = 3) -> PictureFeatures:
    random = np.random.default_rng(0)
    rows = random.normal(size=(3, count, 8)).astype(np.float32)
    return PictureFeatures(
        digests=[f"{number:064x}" for number in range(count)],
        features=rows[0],
        other_views={View.MIRRORED: rows[1], View.ENLARGED: rows[2]},
        prints=random.uniform(0, 255, size=(count, FINGERPRINT_NUMBERS)).astype(np.float16),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_cache(tmp_path / FEATURES, "dogs_1", "computation", made())
    return tmp_path / FEATURES


def refused(path: Path, classifier: str = "dogs_1", computation: str = "computation", features: int = 8) -> str:
    with pytest.raises(FeatureCacheError) as raised:
        read_cache(path, classifier, computation, features)
    return str(raised.value)


def test_a_cache_gives_every_bit_back(path: Path) -> None:
    found, expected = read_cache(path, "dogs_1", "computation", 8), made()
    assert found.digests == expected.digests
    assert found.features.tobytes() == expected.features.tobytes()
    assert found.prints.tobytes() == expected.prints.tobytes()
    views = {view: rows.tobytes() for view, rows in found.other_views.items()}
    assert views == {view: rows.tobytes() for view, rows in expected.other_views.items()}


@pytest.mark.parametrize("offset", [4096, 4096 + 3 * 32 + 5, -1])
def test_a_changed_byte_is_found(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    assert "digest" in refused(path)


@pytest.mark.parametrize("length", [0, 100, 4096, 5000])
def test_a_truncated_cache_is_refused(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    assert "feature cache" in refused(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 4096, b'{"classifier": "dogs_1"}', b"\xff" * 5000])
def test_another_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "header" in refused(path)


@pytest.mark.parametrize("other", [{"classifier": "cats_1"}, {"computation": "another"}, {"features": 9}])
def test_a_cache_of_something_else_is_refused(path: Path, other: dict[str, Any]) -> None:
    assert "another" in refused(path, **other)


def test_a_cache_has_at_most_the_limit_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LIMIT_BYTES", 4096 + 2 * 7000)
    write_cache(tmp_path / FEATURES, "dogs_1", "computation", made())
    assert (tmp_path / FEATURES).stat().st_size <= feature_cache.LIMIT_BYTES
    assert len(read_cache(tmp_path / FEATURES, "dogs_1", "computation", 8).digests) == 2


class Retrain:
    """A trainer that has learned blue and red, and then learns ten more blue images as another revision."""

    def __init__(self, trainer: Any, make_example_zip: Any, caplog: pytest.LogCaptureFixture) -> None:
        self.trainer, self.caplog = trainer, caplog
        self.first, self.more = make_example_zip(12), make_example_zip(10, first_seed=100)
        trainer.add_class("blue", trainer.upload(self.first, customer="c-1"))
        trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=190)))
        caplog.set_level(logging.INFO)
        assert trainer.run()[0].succeeded

    def key(self, revision: str) -> str:
        return str(self.trainer.location.artifact_key(revision, FEATURES))

    def run(self) -> bytes:
        """The metadata of the artifact, which name the digest of every file."""
        trainer, revision = self.trainer, self.trainer.revision
        trainer.definition["classes"][0]["examples"].append(trainer.upload(self.more, round=2))
        trainer.revision = NEXT_REVISION
        trainer.environment["OCELLI_REVISION"] = NEXT_REVISION
        assert revision != NEXT_REVISION
        self.caplog.clear()
        assert trainer.run(attempt=2)[0].succeeded
        return self.read(trainer.location.artifact_key(NEXT_REVISION, ARTIFACT_METADATA))

    def read(self, key: str) -> bytes:
        return asyncio.run(self.trainer.store.get(key, limit_bytes=2**30))

    @property
    def stored(self) -> list[str]:
        objects = asyncio.run(self.trainer.store.list_objects(self.trainer.location.artifacts_prefix))
        return [item.key for item in objects if item.key.endswith(FEATURES)]

    @property
    def computed(self) -> list[int]:
        """How many images were computed, and how many were not."""
        return [
            number
            for record in self.caplog.records
            if record.message == "features.extracted"
            for number in (record.__dict__["images"], record.__dict__["cached"])
        ]


@pytest.fixture
def retrain(trainer: Any, make_example_zip: Any, caplog: pytest.LogCaptureFixture) -> Retrain:
    return Retrain(trainer, make_example_zip, caplog)


def test_a_retrain_with_ten_new_images_computes_ten(retrain: Retrain) -> None:
    retrain.run()
    assert retrain.computed == [10, 24]


def test_the_artifact_is_the_same_with_and_without_the_cache(retrain: Retrain) -> None:
    with_cache = retrain.run()
    asyncio.run(retrain.trainer.store.delete_prefix(retrain.trainer.location.artifacts_prefix))
    retrain.caplog.clear()
    assert retrain.trainer.run(attempt=3)[0].succeeded
    assert retrain.computed == [34, 0]
    assert retrain.read(retrain.trainer.location.artifact_key(NEXT_REVISION, ARTIFACT_METADATA)) == with_cache


def test_only_the_last_training_has_a_cache(retrain: Retrain) -> None:
    retrain.run()
    assert retrain.stored == [retrain.key(NEXT_REVISION)]


def test_a_damaged_cache_is_logged_and_not_used(retrain: Retrain) -> None:
    retrain.trainer.put(retrain.key("0123456789"), retrain.read(retrain.key("0123456789"))[:-1])
    retrain.run()
    assert retrain.computed == [34, 0]
    assert "features.cache_ignored" in retrain.caplog.messages


def test_a_cache_larger_than_the_limit_is_not_read(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LIMIT_BYTES", 5000)
    retrain.run()
    assert retrain.computed == [34, 0]


def test_removed_images_leave_the_cache_with_the_next_training(retrain: Retrain) -> None:
    retrain.trainer.definition["classes"][0]["examples"] = [retrain.trainer.upload(retrain.more)]
    retrain.run()
    content = retrain.read(retrain.key(NEXT_REVISION))
    assert json.loads(content[:4096])["images"] == 22


def test_other_views_are_computed_if_the_cache_has_none(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "wanted_views", lambda images: ())
    retrain.run()
    monkeypatch.undo()
    retrain.caplog.clear()
    retrain.trainer.revision = retrain.trainer.environment["OCELLI_REVISION"] = "2123456789"
    assert retrain.trainer.run(attempt=3)[0].succeeded
    assert retrain.computed == [34, 0]


def test_sources_that_are_erased_during_a_training_are_not_cached(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    erase_when_stored(retrain, monkeypatch, "report.json")
    retrain.run()
    assert NEXT_REVISION not in "".join(retrain.stored)


def test_sources_that_are_erased_while_the_cache_is_stored_leave_no_cache(
    retrain: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase_when_stored(retrain, monkeypatch, FEATURES)
    retrain.run()
    assert retrain.stored == []


def erase_when_stored(retrain: Retrain, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Erase a source right after an object of that name is stored."""
    store, put = retrain.trainer.store, retrain.trainer.store.put

    async def put_and_erase(key: str, data: bytes | Path) -> None:
        await put(key, data)
        if key.endswith(f"/{NEXT_REVISION}/{name}"):
            retrain.trainer.definition["classes"][0]["examples"][0]["erased"] = True
            document = json.dumps(retrain.trainer.definition).encode()
            await put(retrain.trainer.location.training_key(NEXT_REVISION, 2, DEFINITION), document)

    monkeypatch.setattr(store, "put", put_and_erase)


def test_a_cache_that_exceeds_the_quota_does_not_fail_the_training(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocelli_storage.object_store import StoreQuotaError

    put = retrain.trainer.store.put

    async def refuse(key: str, data: bytes | Path) -> None:
        if key.endswith(FEATURES):
            raise StoreQuotaError(key, "full")
        await put(key, data)

    monkeypatch.setattr(retrain.trainer.store, "put", refuse)
    retrain.run()
    assert "features.not_cached" in retrain.caplog.messages
