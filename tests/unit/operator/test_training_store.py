"""Documents written by a tenant's Pods do no harm to the operator."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from ocelli_api.classifier_status import AccuracyDrop, AccuracyInterval, HistoryEntry, RevisionComparison
from ocelli_api.outcome import ProgressReport, Stage
from ocelli_operator.training_store import TrainingStore
from ocelli_storage.documents import LIMITS_BYTES
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    CHECK_OUTCOME,
    CHECK_PAGE,
    OUTCOME,
    PROGRESS,
    REPORT_PAGE,
    ClassifierLocation,
)
from ocelli_storage.store_url import open_store
from ocelli_storage.thumbnails import build_thumbnail

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_19")
REVISION = "0123456789"
KEY = LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)


OUTCOME_HEAD = {"reason": "Succeeded", "message": "Learned", "revision": REVISION, "attempt": 1}
FIGURES = {"accuracy": 0.93412, "accuracyInterval": [0.87049, 0.96661]}


def figures_of(folder: Path, metrics: dict[str, object], outcome: dict[str, object] | None = None) -> tuple[object, ...]:
    """Accuracy, interval and number of images that the operator reads from stored documents."""

    async def scenario() -> HistoryEntry | None:
        store = open_store(folder.as_uri())
        await store.put(KEY, json.dumps({"metrics": metrics}).encode())
        if outcome is not None:
            await store.put(OUTCOME_KEY, json.dumps({**OUTCOME_HEAD, **outcome}).encode())
        return await TrainingStore(store).load_artifact(LOCATION, REVISION, 1)

    artifact = asyncio.run(scenario())
    assert artifact is not None
    return artifact.accuracy, artifact.accuracy_interval, artifact.judged_images


@pytest.mark.parametrize("outcome", [None, {**FIGURES, "judgedImages": 100}], ids=["artifact", "outcome"])
def test_artifact_and_outcome_give_the_same_figures(tmp_path: Path, outcome: dict[str, object] | None) -> None:
    metrics = {**FIGURES, "images": 100} if outcome is None else {}
    expected = ("0.934", AccuracyInterval(lower="0.870", upper="0.967"), 100)
    assert figures_of(tmp_path, metrics, outcome) == expected


@pytest.mark.parametrize(("stored", "expected"), [(4, 4), (0, None), (-1, None), ("4", None), (None, None)])
def test_images_that_a_test_set_shares_with_the_examples_are_counted(
    tmp_path: Path, stored: object, expected: int | None
) -> None:
    async def scenario(outcome: bool) -> HistoryEntry | None:
        store = open_store(tmp_path.as_uri())
        metrics = {**FIGURES, "images": 100, "excludedImages": stored}
        await store.put(KEY, json.dumps({"metrics": metrics}).encode())
        if outcome:
            await store.put(OUTCOME_KEY, json.dumps({**OUTCOME_HEAD, **FIGURES, "excludedImages": stored}).encode())
        return await TrainingStore(store).load_artifact(LOCATION, REVISION, 1)

    found = [asyncio.run(scenario(outcome)) for outcome in (False, True)]
    assert [None if entry is None else entry.excluded_images for entry in found] == [expected, expected]
    assert None not in found


@pytest.mark.parametrize("outcome", [None, {"accuracy": 0.93412}], ids=["artifact", "outcome"])
def test_an_artifact_of_an_earlier_release_has_only_an_accuracy(tmp_path: Path, outcome: dict[str, object] | None) -> None:
    assert figures_of(tmp_path, {"accuracy": 0.93412, "images": 100}, outcome) == ("0.934", None, None)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"accuracy": 1e300}, (None, None, None)),
        ({"accuracy": float("nan"), "accuracyInterval": [0, 1]}, (None, None, None)),
        ({"accuracy": True}, (None, None, None)),
        ({"accuracy": 0.5, "accuracyInterval": [0.4]}, ("0.500", None, None)),
        ({"accuracy": 0.5, "accuracyInterval": [0.4, "0.6"]}, ("0.500", None, None)),
        ({"accuracy": 0.5, "accuracyInterval": [-1, 0.6], "images": 9}, ("0.500", None, None)),
        (
            {"accuracy": 0.5, "accuracyInterval": [0.4, 0.6], "images": 2**40},
            ("0.500", AccuracyInterval(lower="0.400", upper="0.600"), None),
        ),
    ],
    ids=str,
)
def test_figures_that_the_crd_does_not_allow_are_left_out(
    tmp_path: Path, metrics: dict[str, object], expected: tuple[object, ...]
) -> None:
    assert figures_of(tmp_path, metrics) == expected


PROGRESS_KEY = LOCATION.training_key(REVISION, 1, PROGRESS)
OUTCOME_KEY = LOCATION.training_key(REVISION, 1, OUTCOME)
HOSTILE = {
    "too large": lambda key: b" " * (LIMITS_BYTES[key.rsplit("/", 1)[-1]] + 1),
    "nested": lambda key: b"[" * 50_000,
    "not an object": lambda key: b"7",
    "not text": lambda key: b"\xff",
    "other types": lambda key: b'{"metrics": [1], "backbone": 2, "stage": [], "percent": 1e999, "reason": {}}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("key", [PROGRESS_KEY, OUTCOME_KEY, KEY], ids=["progress", "outcome", "artifact"])
def test_an_invalid_document_counts_as_absent(tmp_path: Path, content: Callable[[str], bytes], key: str) -> None:
    async def scenario() -> list[object]:
        store = open_store(tmp_path.as_uri())
        await store.put(key, content(key))
        read = TrainingStore(store)
        return [
            await read.load_progress(LOCATION, REVISION, 1),
            await read.load_outcome(LOCATION, REVISION, 1),
            await read.load_artifact(LOCATION, REVISION, 1),
        ]

    assert asyncio.run(scenario()) == [None, None, None]


def test_a_document_that_is_too_large_is_reported_and_logged_once_until_it_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[str]:
        store = open_store(tmp_path.as_uri())
        read = TrainingStore(store)
        await store.put(KEY, HOSTILE["too large"](KEY))
        for _ in range(3):
            await read.load_artifact(LOCATION, REVISION, 1)
        fault = read.find_fault(LOCATION, REVISION, 1)
        await store.put(KEY, b"{}")
        await read.load_artifact(LOCATION, REVISION, 1)
        return [fault, read.find_fault(LOCATION, REVISION, 1)]

    with caplog.at_level(logging.WARNING):
        faults = asyncio.run(scenario())
    assert faults == [f"object store: {KEY!r} has 4,194,305 bytes; the limit is 4,194,304", ""]
    assert len(caplog.records) == 1


DAMAGED = {"truncated": b'{"metrics": ', "nested": b"[" * 50_000, "not an object": b"7", "not text": b"\xff"}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize(
    ("key", "what"),
    [(KEY, "valid artifact metadata"), (OUTCOME_KEY, "a JSON object")],
    ids=["artifact", "outcome"],
)
def test_a_damaged_document_is_reported_by_its_key_without_the_parser_message(
    tmp_path: Path, content: bytes, key: str, what: str
) -> None:
    async def scenario() -> str:
        store = open_store(tmp_path.as_uri())
        await store.put(key, content)
        read = TrainingStore(store)
        await read.load_artifact(LOCATION, REVISION, 1)
        await read.load_outcome(LOCATION, REVISION, 1)
        return read.find_fault(LOCATION, REVISION, 1)

    assert asyncio.run(scenario()) == f"object store: {key!r} is damaged: it is not {what}"


def comparison_of(folder: Path, comparison: object) -> RevisionComparison | None:
    """What the operator reads of a stored outcome with this comparison."""

    async def scenario() -> HistoryEntry | None:
        store = open_store(folder.as_uri())
        await store.put(KEY, json.dumps({"metrics": {}}).encode())
        await store.put(OUTCOME_KEY, json.dumps({**OUTCOME_HEAD, **FIGURES, "comparison": comparison}).encode())
        return await TrainingStore(store).load_artifact(LOCATION, REVISION, 1)

    artifact = asyncio.run(scenario())
    assert artifact is not None
    assert artifact.accuracy == "0.934"
    return artifact.comparison


def test_a_comparison_has_three_decimals_and_no_negative_zero(tmp_path: Path) -> None:
    stored = {"baseline": "aaaaaaaaaa", "drop": -0.0001, "dropInterval": [-0.04126, 0.9999], "images": 240, "reclassified": 3}
    assert comparison_of(tmp_path, stored) == RevisionComparison(
        baseline="aaaaaaaaaa",
        accuracy_drop=AccuracyDrop(drop="0.000", lower="-0.041", upper="1.000"),
        images=240,
        reclassified_images=3,
    )


def test_the_reason_why_revisions_cannot_be_compared_is_read(tmp_path: Path) -> None:
    stored = {"baseline": "aaaaaaaaaa", "fault": "no class in common", "images": 0}
    assert comparison_of(tmp_path, stored) == RevisionComparison(baseline="aaaaaaaaaa", fault="no class in common")


@pytest.mark.parametrize("stored", [None, "x", {"baseline": 7}, {"baseline": "aaaaaaaaaa", "drop": "0.1"}], ids=str)
def test_an_invalid_comparison_is_none_and_the_rest_is_read(tmp_path: Path, stored: object) -> None:
    assert comparison_of(tmp_path, stored) is None


@pytest.mark.parametrize(("reason", "expected"), [("Succeeded", None), ("NotImproved", True)])
def test_the_history_says_that_fine_tuning_did_not_improve(tmp_path: Path, reason: str, expected: bool | None) -> None:
    async def scenario() -> HistoryEntry | None:
        store = open_store(tmp_path.as_uri())
        await store.put(KEY, json.dumps({"metrics": {}}).encode())
        await store.put(OUTCOME_KEY, json.dumps({**OUTCOME_HEAD, **FIGURES, "reason": reason}).encode())
        return await TrainingStore(store).load_artifact(LOCATION, REVISION, 1)

    artifact = asyncio.run(scenario())
    assert artifact is not None
    assert artifact.not_improved is expected


TUNING = {"network": 2, "networks": 6, "epoch": 3, "epochs": 10, "loss": 0.25}


@pytest.mark.parametrize(
    "stored",
    ["x", {}, {**TUNING, "epoch": 0}, {**TUNING, "epochs": 10**9}, {**TUNING, "network": True}, {**TUNING, "loss": "low"}],
    ids=str,
)
def test_invalid_progress_of_fine_tuning_is_none_and_the_rest_is_read(tmp_path: Path, stored: object) -> None:
    progress = {"stage": "Fitting", "percent": 7, "dataValid": True, "fineTuning": stored}

    async def scenario() -> ProgressReport | None:
        store = open_store(tmp_path.as_uri())
        await store.put(LOCATION.training_key(REVISION, 1, PROGRESS), json.dumps(progress).encode())
        return await TrainingStore(store).load_progress(LOCATION, REVISION, 1)

    assert asyncio.run(scenario()) == ProgressReport(stage=Stage.FITTING, percent=7, data_valid=True)


def test_image_data_is_dropped_with_the_uploads_and_the_artifact_is_kept(tmp_path: Path) -> None:
    async def scenario(*uploads: str) -> tuple[int, list[str]]:
        store = open_store(tmp_path.as_uri())
        for key in (
            KEY,
            LOCATION.image_data_key(REVISION, None, "x"),
            LOCATION.image_data_key(REVISION, "a" * 32, "x"),
            *uploads,
        ):
            await store.put(key, b"x")
        dropped = await TrainingStore(store).drop_uploads(LOCATION)
        return dropped, sorted(item.key for item in await store.list_objects("tenants"))

    assert asyncio.run(scenario(LOCATION.upload_key("b" * 64))) == (1, [KEY])
    # Examples at addresses are not deleted, and neither is what was computed of them.
    dropped, left = asyncio.run(scenario())
    assert (dropped, len(left)) == (0, 3)


def test_checked_images_and_thumbnails_are_dropped_with_the_uploads(tmp_path: Path) -> None:
    report, check = LOCATION.artifact_key(REVISION, REPORT_PAGE), LOCATION.training_key(REVISION, 1, CHECK_PAGE)
    thumbnails = "\n".join(build_thumbnail(b"image", customer) for customer in (None, "a" * 32))

    async def scenario() -> list[bytes]:
        store = open_store(tmp_path.as_uri())
        for customer in (None, "a" * 32):
            await store.put(LOCATION.checked_key(REVISION, 1, customer, "pixels.bin"), b"x")
        for key in (report, check):
            await store.put(key, f"<p>before</p>\n{thumbnails}\n<p>after</p>\n".encode())
        await store.put(LOCATION.upload_key("b" * 64), b"x")
        await TrainingStore(store).drop_uploads(LOCATION)
        assert sorted(item.key for item in await store.list_objects("tenants")) == sorted([report, check])
        return [await store.get(key, limit_bytes=1 << 20) for key in (report, check)]

    for page in asyncio.run(scenario()):
        assert b"<img" not in page
        assert page.startswith(b"<p>before</p>")
        assert page.endswith(b"<p>after</p>\n")


def test_the_outcome_of_a_check_is_not_that_of_the_training(tmp_path: Path) -> None:
    async def scenario() -> tuple[str, object]:
        store = open_store(tmp_path.as_uri())
        await store.put(LOCATION.training_key(REVISION, 1, CHECK_OUTCOME), json.dumps(OUTCOME_HEAD).encode())
        documents = TrainingStore(store)
        check = await documents.load_check(LOCATION, REVISION, 1)
        return "" if check is None else check.message, await documents.load_outcome(LOCATION, REVISION, 1)

    assert asyncio.run(scenario()) == ("Learned", None)
