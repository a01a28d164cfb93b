"""The feature cache: what a retrain computes again, and what is never used."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_api.names import customer_key
from ocelli_storage.layout import ARTIFACT_METADATA, BACKBONES, DEFINITION
from ocelli_storage.object_store import StoreQuotaError
from ocelli_training import feature_cache, thumbnails, training, training_data
from ocelli_training.feature_cache import (
    FEATURES,
    TEST_FEATURES,
    FeatureCache,
    FeatureCacheError,
    ImageFeatures,
    KnownImages,
    read_features,
    write_features,
)
from ocelli_training.fit import View
from ocelli_training.judgement import judge_learned
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS
from ocelli_training.thumbnails import load_thumbnails
from ocelli_training.training_data import TrainingData
from tests.installed_backbone import install_backbone
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.slow

FIRST_REVISION, NEXT_REVISION = Trainer.revision, "1123456789"
ANNA = customer_key("anna")
ENDLESS = b'{"classifier": "", "computation": "", "features": 0, "images": Infinity, "views": [], "sha256": ""}'


def made(count: int = 3) -> ImageFeatures:
    random = np.random.default_rng(0)
    rows = random.normal(size=(3, count, 8)).astype(np.float32)
    return ImageFeatures(
        digests=[f"{number:064x}" for number in range(count)],
        sides=random.integers(10, 5000, size=(count, 2)).astype(np.int32),
        features=rows[0],
        other_views={View.MIRRORED: rows[1], View.ENLARGED: rows[2]},
        prints=random.uniform(0, 255, size=(count, FINGERPRINT_NUMBERS)).astype(np.float16),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_features(tmp_path / FEATURES, "dogs_1", "computation", made(), np.arange(3))
    return tmp_path / FEATURES


def refused(path: Path, classifier: str = "dogs_1", computation: str = "computation", features: int = 8) -> str:
    with pytest.raises(FeatureCacheError) as raised:
        read_features(path, classifier, computation, features)
    return str(raised.value)


def test_a_cache_gives_every_bit_back(path: Path) -> None:
    found, expected = read_features(path, "dogs_1", "computation", 8), made()
    assert found.digests == expected.digests
    assert found.sides.tolist() == expected.sides.tolist()
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


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 4096, b'{"classifier": "dogs_1"}', b"\xff" * 5000, ENDLESS])
def test_another_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "header" in refused(path)


@pytest.mark.parametrize("other", [{"classifier": "cats_1"}, {"computation": "another"}, {"features": 9}])
def test_a_cache_of_something_else_is_refused(path: Path, other: dict[str, Any]) -> None:
    assert "another" in refused(path, **other)


def test_a_file_has_the_chosen_rows(tmp_path: Path) -> None:
    write_features(tmp_path / FEATURES, "dogs_1", "computation", made(), np.array([2, 0]))
    found, expected = read_features(tmp_path / FEATURES, "dogs_1", "computation", 8), made()
    assert found.digests == [expected.digests[2], expected.digests[0]]
    assert found.other_views[View.MIRRORED].tolist() == expected.other_views[View.MIRRORED][[2, 0]].tolist()


def test_a_cache_has_at_most_the_limit_of_bytes(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LIMIT_BYTES", 2 * 4096 + 2 * made().row_bytes)
    cache = FeatureCache(trainer.store, trainer.location, trainer.scratch)
    cache.prepare("computation", FEATURES, made(), [ANNA, None, None])
    asyncio.run(cache.save(FIRST_REVISION, ()))
    assert len(asyncio.run(cache.load("computation", 8))) == 2
    objects = asyncio.run(trainer.store.list_objects(trainer.location.artifacts_prefix))
    assert sum(item.size_bytes for item in objects) <= feature_cache.LIMIT_BYTES


def test_of_two_records_of_an_image_the_one_with_more_views_counts() -> None:
    every = made(2)
    whole = ImageFeatures(
        digests=every.digests, sides=every.sides, features=every.features, other_views={}, prints=every.prints
    )
    for parts in ((whole, every), (every, whole)):
        assert KnownImages(parts).find(every.digests[1]) == (every, 1)


@pytest.fixture(scope="module")
def first_store(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> Path:
    """The folder of a store after the first training of `define`, for copies."""
    trainer = Trainer(tmp_path_factory.mktemp("first"))
    define(trainer, make_example_zip)
    assert trainer.run()[0].succeeded
    return trainer.folder / "store"


def define(trainer: Trainer, make_example_zip: Any) -> None:
    """Blue, of a customer's images, and red, with a test set of ten images."""
    tested = make_example_zip(10, first_seed=200, red=190)
    trainer.add_class("blue", trainer.upload(make_example_zip(12), customer=ANNA))
    trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=190)))
    trainer.definition["evaluation"] = {"classes": [{"name": "red", "examples": [trainer.upload(tested)]}]}


class Retrain:
    """A trainer that has learned what `define` defines. Then it learns ten more blue images as another revision."""

    def __init__(self, trainer: Trainer, make_example_zip: Any, caplog: pytest.LogCaptureFixture) -> None:
        self.trainer, self.caplog = trainer, caplog
        self.more, self.tested = make_example_zip(10, first_seed=100), make_example_zip(10, first_seed=200, red=190)
        define(trainer, make_example_zip)
        caplog.set_level(logging.INFO)

    def key(self, revision: str, customer: str | None = None, name: str = FEATURES) -> str:
        return self.trainer.location.image_data_key(revision, customer, name)

    def run(self, revision: str = NEXT_REVISION, *, attempt: int = 2, more: bytes | None = None) -> bytes:
        """The metadata of the artifact, which name the digest of every file."""
        trainer = self.trainer
        blue = trainer.definition["classes"][0]["examples"]
        blue.append(trainer.upload(self.more if more is None else more, round=2))
        trainer.revision = trainer.environment["OCELLI_REVISION"] = revision
        self.caplog.clear()
        assert trainer.run(attempt=attempt)[0].succeeded
        return self.read(trainer.location.artifact_key(revision, ARTIFACT_METADATA))

    def read(self, key: str) -> bytes:
        return asyncio.run(self.trainer.store.get(key, limit_bytes=2**30))

    @property
    def stored(self) -> list[str]:
        objects = asyncio.run(self.trainer.store.list_objects(self.trainer.location.artifacts_prefix))
        return sorted(item.key for item in objects if item.key.endswith((f"/{FEATURES}", f"/{TEST_FEATURES}")))

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
def retrain(first_store: Path, tmp_path: Path, make_example_zip: Any, caplog: pytest.LogCaptureFixture) -> Retrain:
    install_backbone(tmp_path / "store")
    backbones = shutil.ignore_patterns(BACKBONES)
    shutil.copytree(first_store, tmp_path / "store", ignore=backbones, dirs_exist_ok=True)
    return Retrain(Trainer(tmp_path), make_example_zip, caplog)


def test_a_retrain_with_ten_new_images_computes_ten(retrain: Retrain) -> None:
    retrain.run()
    assert retrain.computed == [10, 34]


def test_the_artifact_is_the_same_with_and_without_the_cache(retrain: Retrain) -> None:
    with_cache, sides = retrain.run(), retrain.trainer.report["data"]["sides"]
    retrain.trainer.delete_artifact()
    retrain.trainer.definition["classes"][0]["examples"].pop()
    assert retrain.run(attempt=3) == with_cache
    assert retrain.computed == [44, 0]
    assert retrain.trainer.report["data"]["sides"] == sides


def test_the_report_shows_cached_images_to_look_at(retrain: Retrain) -> None:
    retrain.run()
    # All 34 examples are smaller than what the network takes.
    shown = {line for line in retrain.trainer.report_page.splitlines() if line.startswith('<img class="thumbnail"')}
    assert len(shown) == 34


def test_a_retrain_reuses_the_thumbnails_of_cached_images(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    before = asyncio.run(load_thumbnails(retrain.trainer.store, retrain.trainer.location))
    encoded: list[int] = []
    encode = thumbnails.encode_thumbnail
    monkeypatch.setattr(thumbnails, "encode_thumbnail", lambda pixels: (encoded.append(1), encode(pixels))[1])
    retrain.run()
    after = asyncio.run(load_thumbnails(retrain.trainer.store, retrain.trainer.location))
    assert len(encoded) == len(after) - len(before) == 10
    assert before.items() <= after.items()


def test_a_training_after_a_check_computes_new_images_only(retrain: Retrain) -> None:
    trainer = retrain.trainer
    examples = trainer.definition["classes"][0]["examples"]
    examples.append(trainer.upload(retrain.more, round=2))
    trainer.revision = trainer.environment["OCELLI_REVISION"] = NEXT_REVISION
    assert trainer.check(attempt=2)[0].succeeded
    examples.pop()
    retrain.run()
    assert retrain.computed == [10, 34]
    assert "checked_images.loaded" in retrain.caplog.messages


def test_only_the_last_training_has_a_cache(retrain: Retrain) -> None:
    retrain.run()
    files = [(ANNA, FEATURES), (None, FEATURES), (None, TEST_FEATURES)]
    assert retrain.stored == [retrain.key(NEXT_REVISION, *file) for file in files]


@pytest.mark.parametrize("content", [b"", b"x" * 10_000], ids=["empty", "noise"])
def test_a_damaged_file_is_logged_and_not_used(retrain: Retrain, content: bytes) -> None:
    retrain.trainer.put(retrain.key(FIRST_REVISION, ANNA), content)
    retrain.run()
    assert retrain.computed == [10 + 12, 12 + 10]
    assert "features.cache_ignored" in retrain.caplog.messages


def test_a_cache_larger_than_the_limit_is_not_read(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LIMIT_BYTES", 5000)
    retrain.run()
    assert retrain.computed == [44, 0]


def test_removed_images_leave_the_cache_with_the_next_training(retrain: Retrain) -> None:
    retrain.trainer.definition["classes"][0]["examples"] = []
    retrain.run()
    assert retrain.key(NEXT_REVISION, ANNA) not in retrain.stored
    assert json.loads(retrain.read(retrain.key(NEXT_REVISION))[:4096])["images"] == 22


def test_other_views_are_computed_where_the_cache_has_none(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "wanted_views", lambda images, fewest, strategy: ())
    retrain.run()
    monkeypatch.undo()
    retrain.run("2123456789", attempt=3)
    # The test images need no other views.
    assert retrain.computed == [34, 10]


def test_pixels_of_known_images_are_read_where_they_are_needed(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels: list[int] = []

    async def needs_pixels(*_: object) -> bool:
        return True

    async def judge(learned: Any, data: TrainingData, *others: Any) -> Any:
        pixels.append(len(data.pixels.read(list(data.numbers.values()))))
        return await judge_learned(learned, data, *others)

    monkeypatch.setattr(training, "needs_pixels", needs_pixels)
    monkeypatch.setattr(training, "judge_learned", judge)
    retrain.run()
    assert pixels == [44]
    assert retrain.computed == [10, 34]


def test_a_test_image_that_becomes_an_example_is_computed_again(retrain: Retrain) -> None:
    (tested,) = retrain.trainer.definition["evaluation"]["classes"]
    tested["examples"] = [retrain.trainer.upload(retrain.more)]
    retrain.run(more=retrain.tested)
    assert retrain.computed == [10 + 10, 24]


def test_features_of_an_erased_customer_are_not_stored(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    erase_when_stored(retrain, monkeypatch, "report.json")
    retrain.run()
    assert retrain.stored == [retrain.key(NEXT_REVISION), retrain.key(NEXT_REVISION, None, TEST_FEATURES)]


def test_data_of_a_customer_who_is_erased_while_it_is_stored_is_deleted(
    retrain: Retrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase_when_stored(retrain, monkeypatch, TEST_FEATURES)
    retrain.run()
    objects = asyncio.run(retrain.trainer.store.list_objects(retrain.trainer.location.image_data_prefix(NEXT_REVISION)))
    assert not [item.key for item in objects if ANNA in item.key]


def erase_when_stored(retrain: Retrain, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Erase the customer right after an object of that name is stored."""
    store, put = retrain.trainer.store, retrain.trainer.store.put

    async def put_and_erase(key: str, data: bytes | Path) -> None:
        await put(key, data)
        if NEXT_REVISION in key and key.endswith(f"/{name}"):
            retrain.trainer.definition["classes"][0]["examples"][0]["erased"] = True
            document = json.dumps(retrain.trainer.definition).encode()
            await put(retrain.trainer.location.training_key(NEXT_REVISION, 2, DEFINITION), document)

    monkeypatch.setattr(store, "put", put_and_erase)


def test_a_cache_that_exceeds_the_quota_does_not_fail_the_training(retrain: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    put = retrain.trainer.store.put

    async def refuse(key: str, data: bytes | Path) -> None:
        if key.endswith(FEATURES):
            raise StoreQuotaError(key, "full")
        await put(key, data)

    monkeypatch.setattr(retrain.trainer.store, "put", refuse)
    retrain.run()
    assert "features.not_cached" in retrain.caplog.messages
