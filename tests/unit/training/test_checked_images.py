"""What a check leaves for the training: stored by customer, read again bit by bit, or refused as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_api.classifier import parse_spec
from ocelli_api.pods import Environment
from ocelli_api.prediction import ImageFault
from ocelli_api.settings import load_settings
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import EntryFault
from ocelli_storage.layout import is_image_data
from ocelli_storage.store_url import open_store
from ocelli_training.checked_images import (
    CheckedImages,
    CheckedImagesError,
    arrange_readings,
    list_sources,
    load_checked,
    save_checked,
)
from ocelli_training.dataset import FileReading, SourceReading
from ocelli_training.pixel_file import PixelFile
from ocelli_training.settings import TrainerSettings

ANNA = "a" * 32
PREPROCESSING = Preprocessing(height=4, width=6)
OLD, ANNAS, TESTED = "1" * 64, "2" * 64, "3" * 64


def make_definition(*, erased: bool = False, customer: str | None = ANNA) -> dict[str, Any]:
    of_customer = {key: value for key, value in (("customer", customer), ("erased", erased)) if value}
    return {
        "classes": [
            {"name": "cat", "examples": [{"url": "https://data.test/cat.zip"}]},
            {"name": "dog", "examples": [{"upload": "f" * 64, **of_customer}]},
        ],
        "evaluation": {"classes": [{"name": "cat", "examples": [{"url": "https://data.test/test.zip"}]}]},
    }


class Stored:
    """A store with the result of one check."""

    def __init__(self, folder: Path, pixels: PixelFile, *, customer: str | None = ANNA) -> None:
        self.folder = folder
        self.customer = customer
        self.store = open_store((folder / "store").as_uri())
        environment = {
            Environment.STORE_URL: self.store.url,
            Environment.CLASSIFIER: "team-a/dogs",
            Environment.NAMESPACE: "team-a",
            Environment.CLASSIFIER_ID: "dogs_1",
            Environment.REVISION: "0123456789",
            Environment.ATTEMPT: "1",
            Environment.CPU_LIMIT: "1",
        }
        self.settings = load_settings(TrainerSettings, environment)
        self.pixels = pixels
        files = [
            (FileReading(name="1.png", digest=OLD, sides=(10, 20)), FileReading(name="n.txt", fault=EntryFault.NOT_AN_IMAGE)),
            (FileReading(name="2.png", digest=ANNAS), FileReading(name="tiny.png", fault=ImageFault.TOO_SMALL)),
            (FileReading(name="3.png", digest=TESTED),),
        ]
        self.images = {digest: np.full((4, 6, 3), shade, np.uint8) for shade, digest in enumerate((ANNAS, TESTED, OLD))}
        numbers = {digest: pixels.append(image) for digest, image in self.images.items()}
        sources = dict(list_sources(parse_spec(make_definition(customer=customer))))
        digests = [None, "a" * 64, "b" * 64]
        readings = {index: SourceReading(source=sources[index], files=files[index], sha256=digests[index]) for index in sources}
        self.checked = CheckedImages(readings=readings, numbers=numbers)

    def save(self, *erased: str) -> bool:
        saving = save_checked(self.settings, self.store, self.folder, self.checked, self.pixels, PREPROCESSING, erased)
        return asyncio.run(saving)

    def load(
        self, *, erased: bool = False, preprocessing: Preprocessing = PREPROCESSING
    ) -> tuple[CheckedImages | None, PixelFile]:
        loaded = PixelFile(self.folder / "loaded", height=4, width=6)
        definition = parse_spec(make_definition(erased=erased, customer=self.customer))
        return asyncio.run(load_checked(self.settings, self.store, definition, loaded, preprocessing)), loaded

    def find_keys(self) -> list[str]:
        return sorted(item.key for item in asyncio.run(self.store.list_objects("tenants")))

    def erase(self, customer: str) -> None:
        for key in self.find_keys():
            if is_image_data(key, customer):
                asyncio.run(self.store.delete(key))


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    with PixelFile(tmp_path / "pixels", height=4, width=6) as pixels:
        yield Stored(tmp_path, pixels)


def test_the_training_gets_what_the_check_read(stored: Stored) -> None:
    assert stored.save()
    loaded, pixels = stored.load()
    assert loaded is not None
    assert loaded.readings == stored.checked.readings
    for digest, image in stored.images.items():
        np.testing.assert_array_equal(pixels.read([loaded.numbers[digest]])[0], image)


def test_readings_are_arranged_by_set(stored: Stored) -> None:
    sources = [source for _, source in list_sources(parse_spec(make_definition()))]
    arranged = arrange_readings(stored.checked, [sources[:1], sources[1:2], sources[2:]])
    assert [[reading.source for reading in of_set] for of_set in arranged] == [sources[:1], sources[1:2], sources[2:]]


def test_images_of_one_owner_are_stored_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PixelFile(tmp_path / "pixels", height=4, width=6) as pixels:
        monkeypatch.setattr(pixels, "copy_images", None)
        stored = Stored(tmp_path, pixels, customer=None)
        assert stored.save()
        assert stored.load()[0] == stored.checked


def test_a_definition_without_a_check_has_none(stored: Stored) -> None:
    assert stored.load()[0] is None


def test_erasing_a_customer_leaves_nothing_of_its_images(stored: Stored) -> None:
    stored.save()
    stored.erase(ANNA)
    assert [key for key in stored.find_keys() if ANNA in key] == []
    contents = [asyncio.run(stored.store.get(key, limit_bytes=1 << 20)) for key in stored.find_keys()]
    assert not any(ANNAS.encode() in content or b"2.png" in content for content in contents)


def test_the_training_goes_on_without_an_erased_customer(stored: Stored) -> None:
    stored.save()
    stored.erase(ANNA)
    loaded, _ = stored.load(erased=True)
    assert loaded is not None
    assert sorted(loaded.readings) == [0, 2]
    assert ANNAS not in loaded.numbers


def test_customers_that_are_erased_already_are_not_stored(stored: Stored) -> None:
    stored.save(ANNA)
    assert [key for key in stored.find_keys() if ANNA in key] == []


def test_pixels_for_another_network_are_refused(stored: Stored) -> None:
    stored.save()
    with pytest.raises(CheckedImagesError, match="another network"):
        stored.load(preprocessing=Preprocessing(height=4, width=6, mean=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + bytes(72), lambda data: b""])
def test_pixels_of_another_size_are_refused(stored: Stored, change: Any) -> None:
    stored.save()
    key = next(key for key in stored.find_keys() if key.endswith("/image-data/pixels.bin"))
    asyncio.run(stored.store.put(key, change(asyncio.run(stored.store.get(key, limit_bytes=1 << 20)))))
    with pytest.raises(CheckedImagesError, match=r"truncated|more images"):
        stored.load()


def test_sides_that_are_no_sides_are_refused(stored: Stored) -> None:
    stored.save()
    key = next(key for key in stored.find_keys() if key.endswith("/image-data/sources.json"))
    document = json.loads(asyncio.run(stored.store.get(key, limit_bytes=1 << 20)))
    next(iter(document["sources"].values()))["files"][0][2] = []
    asyncio.run(stored.store.put(key, json.dumps(document).encode()))
    with pytest.raises(CheckedImagesError, match="damaged"):
        stored.load()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff"])
def test_a_damaged_list_is_refused(stored: Stored, content: bytes) -> None:
    stored.save()
    key = next(key for key in stored.find_keys() if key.endswith("/image-data/sources.json"))
    asyncio.run(stored.store.put(key, content))
    with pytest.raises(CheckedImagesError):
        stored.load()


@pytest.mark.parametrize("file", ["sources.json", "pixels.bin"])
def test_a_missing_file_is_refused(stored: Stored, file: str) -> None:
    stored.save()
    key = next(key for key in stored.find_keys() if key.endswith(f"/image-data/customer-{ANNA}/{file}"))
    asyncio.run(stored.store.delete(key))
    with pytest.raises(CheckedImagesError):
        stored.load()


def test_too_many_pixels_are_not_stored(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocelli_training.checked_images.PIXELS_LIMIT_BYTES", 3 * 4 * 6 * 3 - 1)
    assert not stored.save()
    assert stored.find_keys() == []
