"""Judged scores in the store: what is kept, what erasing a customer deletes, and what cannot be used."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ocelli_storage.judged import JUDGED, Judged, JudgedError, load_judged, read_judged, save_judged
from ocelli_storage.layout import ClassifierLocation, is_image_data
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from ocelli_training.judgement import split_by_customer

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
REVISION = "0123456789"
ANNA, BERT = "a" * 32, "b" * 32


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


def make_judged(count: int = 4) -> Judged:
    random = np.random.default_rng(0)
    return Judged(
        class_names=("Katze", 'dog "x"'),
        has_negatives=True,
        digests=tuple(f"{row:064x}" for row in range(count)),
        scores=random.random((count, 2), dtype=np.float32),
        actual=(np.arange(count, dtype=np.int32) % 3) - 1,
        groups=np.arange(count, dtype=np.int32),
        tested=np.arange(count) == count - 1,
        learned_count=count - 1,
    )


def save(store: ObjectStore, judged: Judged, customers: list[str | None]) -> None:
    asyncio.run(save_judged(store, LOCATION, REVISION, split_by_customer(judged, customers)))


def load(store: ObjectStore) -> Judged:
    return asyncio.run(load_judged(store, LOCATION, REVISION))


def judged_key(customer: str | None) -> str:
    return LOCATION.image_data_key(REVISION, customer, JUDGED)


def refusal(store: ObjectStore) -> str:
    with pytest.raises(JudgedError) as caught:
        load(store)
    return str(caught.value)


def keys(store: ObjectStore) -> list[str]:
    return sorted(item.key for item in asyncio.run(store.list_objects(LOCATION.artifacts_prefix)))


def test_scores_are_loaded_as_they_were_saved(store: ObjectStore) -> None:
    judged = make_judged()
    save(store, judged, [None] * 4)
    found = load(store)
    assert (found.class_names, found.has_negatives, found.digests) == (judged.class_names, True, judged.digests)
    assert found.learned_count == 3
    for name in ("scores", "actual", "groups", "tested"):
        assert np.array_equal(getattr(found, name), getattr(judged, name))


def test_each_customer_has_a_file(store: ObjectStore) -> None:
    save(store, make_judged(), [None, ANNA, BERT, ANNA])
    assert keys(store) == [judged_key(customer) for customer in (ANNA, BERT, None)]
    assert sorted(load(store).digests) == list(make_judged().digests)


def test_without_a_customers_file_the_other_images_are_left(store: ObjectStore) -> None:
    save(store, make_judged(), [None, ANNA, BERT, ANNA])
    (file,) = [key for key in keys(store) if is_image_data(key, ANNA)]
    asyncio.run(store.delete(file))
    assert load(store).digests == (make_judged().digests[2], make_judged().digests[0])
    assert load(store).is_complete is False


def test_files_of_an_earlier_attempt_are_replaced(store: ObjectStore) -> None:
    save(store, make_judged(), [None, ANNA, BERT, ANNA])
    save(store, make_judged(2), [None, None])
    assert keys(store) == [judged_key(None)]


def test_a_revision_without_scores_is_explained(store: ObjectStore) -> None:
    assert refusal(store) == (
        f"revision {REVISION} has no stored scores, because an earlier release trained it or its examples were erased"
    )


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"], ids=["empty", "noise", "no tensors"])
def test_a_damaged_file_is_explained(store: ObjectStore, content: bytes) -> None:
    asyncio.run(store.put(judged_key(None), content))
    assert refusal(store) == f"the stored scores of revision {REVISION} are damaged"


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("classes", "[" * 100_000),
        ("classes", '["\\ud800", "owl"]'),
        ("classes", '["owl", "owl"]'),
        ("learnedImages", "1e999"),
        ("learnedImages", "[]"),
        ("formatVersion", "2"),
    ],
    ids=["nested", "half a character", "one name twice", "infinite", "a list", "a later version"],
)
def test_a_file_with_odd_metadata_is_explained(store: ObjectStore, fact: str, value: str) -> None:
    save(store, make_judged(), [None] * 4)
    key = judged_key(None)
    content = asyncio.run(store.get(key, limit_bytes=1 << 20))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    odd = {**header["__metadata__"], fact: value}
    asyncio.run(store.put(key, safetensors.numpy.save(safetensors.numpy.load(content), odd)))
    assert refusal(store) == f"the stored scores of revision {REVISION} are damaged"


def test_a_long_header_is_not_parsed(store: ObjectStore) -> None:
    content = (2 << 20).to_bytes(8, "little") + b"[" * (2 << 20)
    asyncio.run(store.put(judged_key(None), content))
    assert refusal(store) == f"the stored scores of revision {REVISION} are damaged"


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("scores", np.full((4, 2), 1.5, dtype=np.float32)),
        ("scores", np.full((4, 2), np.nan, dtype=np.float32)),
        ("scores", np.zeros((4, 2), dtype=np.float64)),
        ("digests", np.zeros((4, 31), dtype=np.uint8)),
        ("actual", np.full(4, 2, dtype=np.int32)),
        ("groups", np.zeros(3, dtype=np.int32)),
    ],
    ids=["above 1", "no number", "another type", "short digests", "unknown class", "another length"],
)
def test_odd_tensors_are_explained(store: ObjectStore, name: str, odd: np.ndarray) -> None:
    save(store, make_judged(), [None] * 4)
    content = asyncio.run(store.get(judged_key(None), limit_bytes=1 << 20))
    facts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    tensors = {**safetensors.numpy.load(content), name: odd}
    asyncio.run(store.put(judged_key(None), safetensors.numpy.save(tensors, facts)))
    assert refusal(store) == f"the stored scores of revision {REVISION} are damaged"


def test_the_size_of_all_files_together_is_limited(store: ObjectStore) -> None:
    save(store, make_judged(), [None, ANNA, BERT, ANNA])
    objects = asyncio.run(store.list_objects(LOCATION.image_data_prefix(REVISION)))
    largest = max(item.size_bytes for item in objects)
    with pytest.raises(JudgedError, match="has more than"):
        asyncio.run(read_judged(store, REVISION, objects, limit_bytes=largest + 1))


def test_files_of_two_trainings_are_not_mixed(store: ObjectStore) -> None:
    save(store, make_judged(5), [ANNA] * 5)
    content = asyncio.run(store.get(judged_key(ANNA), limit_bytes=1 << 20))
    save(store, make_judged(), [None] * 4)
    asyncio.run(store.put(judged_key(ANNA), content))
    assert refusal(store) == f"the stored scores of revision {REVISION} are damaged"
