"""What the sweep takes for waste."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ocelli_operator.sweep import References, find_waste
from ocelli_storage.object_store import StoredObject

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
OLD = NOW - timedelta(hours=2)
ALIVE = References(revisions=frozenset({"r1"}), training=("r2", 3), uploads=frozenset({"u1"}))


def waste(*keys: str, ages: dict[str, datetime] | None = None, references: References | None = ALIVE) -> list[str]:
    objects = [StoredObject(key=f"tenants/{key}", size_bytes=1, modified_at=(ages or {}).get(key, OLD)) for key in keys]
    known = {} if references is None else {("ns", "dogs_1"): references}
    return [key.removeprefix("tenants/") for key in find_waste(objects, known, NOW - timedelta(hours=1))]


def test_what_a_living_classifier_refers_to_stays() -> None:
    kept = ["ns/artifacts/dogs_1/r1/artifact.json", "ns/trainings/dogs_1/r2/3/progress.json", "ns/uploads/dogs_1/u1.zip"]
    assert waste(*kept) == []


def test_what_it_does_not_refer_to_goes() -> None:
    lost = ["ns/artifacts/dogs_1/r9/artifact.json", "ns/trainings/dogs_1/r2/2/outcome.json", "ns/uploads/dogs_1/u9.zip"]
    assert waste(*lost) == lost


def test_what_is_young_stays() -> None:
    key = "ns/uploads/dogs_1/u9.zip"
    assert waste(key, ages={key: NOW}) == []


def test_uploads_stay_where_nobody_can_tell() -> None:
    unknown = References(revisions=frozenset(), training=None, uploads=None)
    assert waste("ns/uploads/dogs_1/u9.zip", references=unknown) == []


def test_a_classifier_that_is_not_there_leaves_nothing() -> None:
    lost = ["ns/artifacts/dogs_1/r1/artifact.json", "ns/uploads/dogs_1/u1.zip"]
    assert waste(*lost, references=None) == lost


def test_nothing_of_a_classifier_that_is_not_there_goes_while_a_part_is_young() -> None:
    old, young = "ns/uploads/dogs_1/u1.zip", "ns/uploads/dogs_1/u2.zip"
    assert waste(old, young, ages={young: NOW}, references=None) == []


def test_the_same_id_in_another_namespace_is_another_classifier() -> None:
    assert waste("other/artifacts/dogs_1/r1/artifact.json") == ["other/artifacts/dogs_1/r1/artifact.json"]


def test_unknown_keys_are_left_alone() -> None:
    assert waste("ns/notes/dogs_1/a/b", "ns/uploads", references=None) == []
