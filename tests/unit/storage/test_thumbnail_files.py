"""Files of thumbnails: what is found in them, and what a hostile one cannot do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_storage import thumbnail_files
from ocelli_storage.layout import THUMBNAILS, ClassifierLocation
from ocelli_storage.object_store import ObjectStore, StoredObject
from ocelli_storage.store_url import open_store
from ocelli_storage.thumbnail_files import (
    StoredThumbnail,
    ThumbnailFileError,
    build_thumbnail_file,
    find_thumbnails,
    read_every_thumbnail,
    read_thumbnails,
)
from tests.gateway_harness.images import plain

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
REVISION, ANNA = "0123456789", "a" * 32
FIRST, SECOND = "1" * 64, "2" * 64
JPEG = plain((200, 10, 10), format_name="JPEG")
OTHER_JPEG = plain((10, 10, 200), format_name="JPEG", size=(128, 96))
LARGE_JPEG = plain((10, 10, 200), format_name="JPEG", size=(2000, 2000))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


def put(store: ObjectStore, content: bytes, customer: str | None = None) -> None:
    asyncio.run(store.put(LOCATION.image_data_key(REVISION, customer, THUMBNAILS), content))


def listed(store: ObjectStore) -> list[StoredObject]:
    return asyncio.run(store.list_objects(LOCATION.image_data_prefix(REVISION)))


def find(store: ObjectStore) -> dict[str, StoredThumbnail]:
    return asyncio.run(find_thumbnails(store, listed(store)))


def with_header(header: Any, data: bytes = JPEG) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int = 0, end: int = len(JPEG), kind: str = "U8") -> dict[str, Any]:
    return {"dtype": kind, "shape": [end - start], "data_offsets": [start, end]}


def document(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {"__metadata__": {"formatVersion": "1"}, **entries}


def test_single_thumbnails_of_all_customers_are_read(store: ObjectStore) -> None:
    put(store, build_thumbnail_file({FIRST: JPEG}))
    put(store, build_thumbnail_file({SECOND: OTHER_JPEG}), ANNA)
    places = find(store)
    assert asyncio.run(read_thumbnails(store, [places[SECOND], places[FIRST]])) == [OTHER_JPEG, JPEG]


def test_all_thumbnails_are_read_at_once(store: ObjectStore) -> None:
    put(store, build_thumbnail_file({FIRST: JPEG, SECOND: OTHER_JPEG}))
    assert asyncio.run(read_every_thumbnail(store, listed(store))) == {FIRST: JPEG, SECOND: OTHER_JPEG}


def test_a_thumbnail_that_was_erased_after_it_was_found_is_left_out(store: ObjectStore) -> None:
    put(store, build_thumbnail_file({FIRST: JPEG}))
    places = find(store)
    asyncio.run(store.delete_prefix(LOCATION.image_data_prefix(REVISION)))
    assert asyncio.run(read_thumbnails(store, [places[FIRST]])) == [None]


@pytest.mark.parametrize("data", [b"<script>alert(1)</script>" * 20, b"\xff\xd8\xff" + b"\0" * 500, LARGE_JPEG])
def test_what_is_not_a_small_jpeg_is_left_out(store: ObjectStore, data: bytes) -> None:
    put(store, build_thumbnail_file({FIRST: data}))
    places = find(store)
    assert asyncio.run(read_thumbnails(store, [places[FIRST]])) == [None]
    assert asyncio.run(read_every_thumbnail(store, listed(store))) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 100,
        (1 << 20).to_bytes(8, "little") + b" " * (1 << 20),
        with_header(b"[" * 100_000),
        with_header(b"not JSON"),
        with_header([]),
        with_header({}),
        with_header({"__metadata__": {"formatVersion": "2"}}),
        with_header({"__metadata__": "1"}),
        with_header(document({"../../secret": entry()})),
        with_header(document({FIRST: entry(end=len(JPEG) + 1)})),
        with_header(document({FIRST: entry(start=-1)})),
        with_header(document({FIRST: entry(end=0)})),
        with_header(document({FIRST: entry(end=70_000)}), b"\xff" * 70_000),
        with_header(document({FIRST: entry(kind="F32")})),
        with_header(document({FIRST: {"dtype": "U8", "data_offsets": [0.0, True]}})),
        with_header(document({FIRST: []})),
    ],
    ids=[
        "empty",
        "short",
        "long header",
        "large header",
        "nested",
        "no JSON",
        "a list",
        "no metadata",
        "later version",
        "text as metadata",
        "no digest",
        "past the end",
        "before the start",
        "no bytes",
        "too large",
        "another type",
        "odd offsets",
        "odd entry",
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(store: ObjectStore, content: bytes) -> None:
    put(store, content)
    for read in (find_thumbnails, read_every_thumbnail):
        with pytest.raises(ThumbnailFileError, match=r"image-data/thumbnails\.safetensors"):
            asyncio.run(read(store, listed(store)))  # type: ignore[operator]


def test_more_thumbnails_than_a_training_stores_are_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail_files, "IMAGES_LIMIT", 2)
    put(store, build_thumbnail_file({f"{number:064x}": JPEG for number in range(3)}))
    with pytest.raises(ThumbnailFileError, match="more than 2 thumbnails"):
        find(store)


def test_files_that_are_too_large_together_are_not_read(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail_files, "FILES_LIMIT_BYTES", 1000)
    put(store, build_thumbnail_file({FIRST: np.zeros(2000, dtype=np.uint8).tobytes()}))
    with pytest.raises(ThumbnailFileError, match=r"more than 1,000 bytes"):
        asyncio.run(read_every_thumbnail(store, listed(store)))
