"""Whole attempts, good and bad, in this process."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_api.classifier import Accelerator
from ocelli_api.outcome import ExitCode, OutcomeReason, Stage
from ocelli_api.pods import Environment
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import load_engine
from ocelli_model.preprocessing import decode_image
from ocelli_storage.object_store import StoreQuotaError, StoreUnavailableError
from ocelli_storage.thumbnails import remove_thumbnails
from ocelli_training.report import render_page
from tests.unit.training import made_pictures as pictures
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.slow

BLUE, RED = 0, 190
"""Two values of red that are easy to distinguish."""


@pytest.fixture
def blue(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(12, red=BLUE)
    return data


@pytest.fixture
def red(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(12, red=RED)
    return data


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> Any:
    """A trainer that was trained on blue and red; for tests that only read its results."""
    trainer = Trainer(tmp_path_factory.mktemp("learned"))
    trainer.add_class("blue", trainer.upload(make_example_zip(12, red=BLUE)))
    trainer.add_class("red", trainer.upload(make_example_zip(12, red=RED)))
    assert trainer.run()[0].succeeded
    return trainer


def refusal(trainer: Any, reason: OutcomeReason = OutcomeReason.INVALID_DATA) -> str:
    """The message of an attempt that fails permanently because of its data."""
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (reason, ExitCode.INVALID_DATA)
    assert trainer.outcome == outcome
    assert outcome.message.startswith("Classifier team-a/dogs: ")
    return str(outcome.message)


def test_a_training_ends_with_an_artifact_and_its_outcome(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    outcome, exit_code = trainer.run()
    artifact = asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision))
    assert (outcome.reason, exit_code) == (OutcomeReason.SUCCEEDED, ExitCode.SUCCEEDED)
    assert trainer.outcome == outcome
    assert outcome.artifact_digest == artifact.digest
    assert outcome.accuracy == artifact.metrics["accuracy"] == 1.0
    assert outcome.backbone == "EfficientNetLite0 (Auto)"
    assert outcome.backbone_digest == artifact.backbone_digest == trainer.backbone.digest
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", outcome.finished_at)


def test_the_stored_artifact_classifies_new_images(learned: Any, make_image: Any) -> None:
    artifact = asyncio.run(load_artifact(learned.store, learned.location, learned.revision))
    backbone = asyncio.run(load_backbone(learned.store, artifact.backbone_digest, cache=learned.folder / "cache"))
    images = [make_image(1000 + seed, red=shade) for shade in (BLUE, RED) for seed in range(5)]
    pixels = np.stack([decode_image(image, artifact.preprocessing) for image in images])
    scores = artifact.heads.scores(load_engine(backbone, threads=1, device=Accelerator.CPU).features(pixels))
    assert scores.argmax(axis=1).tolist() == [0] * 5 + [1] * 5
    # One of few images may be rejected: that is the price of rejecting those that are unlike every example.
    assert (scores.max(axis=1) >= 0.5).sum() >= 9


def test_classes_keep_the_order_of_the_definition(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("zebra", blue)
    trainer.add_class("Äpfel & Birnen", red)
    trainer.run()
    artifact = asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision))
    assert artifact.class_names == ("zebra", "Äpfel & Birnen")


def test_the_definition_is_stored_with_the_artifact(learned: Any) -> None:
    assert json.loads(learned.get(learned.location.definition_key(learned.revision))) == learned.definition


def test_one_class_and_negatives_are_enough(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", trainer.upload(blue))
    trainer.add_negatives(trainer.upload(red))
    outcome, _ = trainer.run()
    assert outcome.reason is OutcomeReason.SUCCEEDED
    # An image of the class may be rejected.
    assert outcome.accuracy >= 0.9


def test_progress_ends_with_the_last_stage_and_valid_data(learned: Any) -> None:
    assert (learned.progress.stage, learned.progress.data_valid) == (Stage.STORING, True)


def test_progress_never_reports_bad_data_as_valid(trainer: Any, blue: bytes, make_example_zip: Any) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", make_example_zip(9))
    trainer.run()
    assert (trainer.progress.stage, trainer.progress.data_valid) == (Stage.READING, False)


def test_an_artifact_of_an_earlier_attempt_is_reused(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    first, _ = trainer.run(attempt=1)
    for path in trainer.file_sources.iterdir():
        path.unlink()
    second, exit_code = trainer.run(attempt=2)
    assert exit_code is ExitCode.SUCCEEDED
    assert (second.artifact_digest, second.accuracy, second.backbone) == (first.artifact_digest, first.accuracy, first.backbone)
    assert second.attempt == 2


def test_a_damaged_artifact_of_an_earlier_attempt_is_replaced(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    trainer.put(trainer.artifact_key, b'{"formatVersion": 1}')
    outcome, _ = trainer.run()
    assert outcome.succeeded
    assert asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision)).digest == outcome.artifact_digest


def test_the_scratch_folder_is_left_without_copies_of_sources(learned: Any) -> None:
    assert [path.name for path in learned.scratch.rglob("source-*")] == []


def test_a_retrain_that_adds_images_uses_those_of_all_rounds(
    trainer: Any, blue: bytes, red: bytes, make_example_zip: Any
) -> None:
    trainer.add_class("blue", trainer.upload(blue), trainer.upload(make_example_zip(10, first_seed=100), round=2))
    trainer.add_class("red", trainer.upload(red))
    trainer.run()
    assert trainer.report["data"]["images"] == 34


def test_the_report_counts_what_was_skipped_and_why(trainer: Any, make_example_zip: Any, make_image: Any, red: bytes) -> None:
    broken = make_image(99)[:70]
    trainer.add_class(
        "blue", make_example_zip(12, others={"notes.txt": b"notes", "broken.png": broken, "copy.png": make_image(3)})
    )
    trainer.add_class("red", red)
    trainer.run()
    report = trainer.report["data"]["sets"][0]
    assert (report["files"], report["usable"], report["distinct"], report["duplicates"]) == (15, 13, 12, 1)
    assert {file["name"]: file["reason"] for file in report["skipped"]} == {
        "notes.txt": "not a JPEG or PNG image",
        "broken.png": "cannot be decoded",
    }


def test_the_report_names_near_duplicates(trainer: Any, make_zip: Any, make_image: Any, red: bytes) -> None:
    images = {f"{seed}.png": make_image(seed) for seed in range(12)}
    trainer.add_class("blue", make_zip({**images, "saved-again.png": make_image(3) + b"\0"}))
    trainer.add_class("red", red)
    trainer.run()
    (pair,) = trainer.report["data"]["nearDuplicates"]
    assert sorted(pair[name].partition(" › ")[2] for name in ("image", "oldest")) == ["3.png", "saved-again.png"]


def test_near_duplicates_in_two_classes_are_reported_as_a_conflict(trainer: Any, make_zip: Any) -> None:
    clouds = [pictures.textured(seed) for seed in range(24)]
    trainer.add_class("calm", make_zip({f"{seed}.jpg": pictures.save(clouds[seed]) for seed in range(12)}))
    stormy = {f"{seed}.jpg": pictures.save(clouds[seed]) for seed in range(12, 24)}
    trainer.add_class("stormy", make_zip({**stormy, "again.jpg": pictures.save(clouds[5], 60)}))
    trainer.run()
    data = trainer.report["data"]
    (conflict,) = data["conflicts"]
    assert data["conflictsCount"] == 1
    assert {conflict["class"], conflict["nearDuplicateClass"]} == {"calm", "stormy"}
    assert {conflict[name].partition(" › ")[2] for name in ("image", "nearDuplicate")} == {"5.jpg", "again.jpg"}
    assert "Near duplicates in different classes (1)" in trainer.report_page
    assert all(conflict[name] in trainer.report_page for name in ("image", "nearDuplicate"))


def test_the_report_suspects_an_image_in_the_wrong_class(
    trainer: Any, make_example_zip: Any, make_image: Any, red: bytes
) -> None:
    trainer.add_class("blue", make_example_zip(others={"wrong.png": make_image(200, red=180)}))
    trainer.add_class("red", red)
    trainer.run()
    (suspect,) = trainer.report["data"]["suspectedLabelErrors"]
    assert suspect["image"].endswith("wrong.png")
    assert (suspect["class"], suspect["suggestedClass"]) == ("blue", "red")
    assert suspect["probability"] < 0.5 < suspect["suggestedProbability"]
    assert "Suspected label errors (1)" in trainer.report_page


def test_the_report_shows_a_misclassified_test_image(
    trainer: Any, make_zip: Any, make_image: Any, blue: bytes, red: bytes
) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    wrong = make_image(200, red=BLUE)
    tested = {**{f"{seed}.png": make_image(seed, red=RED) for seed in range(100, 110)}, "wrong.png": wrong}
    trainer.definition["evaluation"] = {"classes": [{"name": "red", "examples": [trainer.upload(make_zip(tested))]}]}
    trainer.run()
    (image,) = trainer.report["evaluation"]["misclassified"]
    assert (image["image"].endswith("wrong.png"), image["sha256"]) == (True, sha256(wrong).hexdigest())
    table = trainer.report_page.partition("Misclassified images")[2].partition("</table>")[0]
    assert table.count('<img class="thumbnail"') == 1


def test_a_suspect_is_corrected_by_the_digest_in_the_report(
    trainer: Any, make_example_zip: Any, make_image: Any, red: bytes
) -> None:
    trainer.add_class("blue", make_example_zip(others={"wrong.png": make_image(200, red=180)}))
    trainer.add_class("red", red)
    trainer.run()
    (suspect,) = trainer.report["data"]["suspectedLabelErrors"]
    trainer.definition["corrections"] = [
        {"image": suspect["sha256"], "class": suspect["suggestedClass"]},
        {"image": "f" * 64, "class": ""},
    ]
    trainer.delete_artifact()
    outcome, _ = trainer.run(attempt=2)
    data = trainer.report["data"]
    assert [item["distinct"] for item in data["sets"]] == [12, 13]
    assert data["suspectedLabelErrorsCount"] == 0
    assert (data["corrections"]["relabelled"], data["corrections"]["unknown"]) == (1, ["f" * 64])
    assert "no source has 1 of the images that spec.corrections names" in outcome.message
    assert "gave 1 images another class" in trainer.report_page


def test_the_report_describes_the_sizes_of_the_images_and_names_small_ones(
    trainer: Any, make_example_zip: Any, make_image: Any, red: bytes
) -> None:
    trainer.add_class(
        "blue",
        make_example_zip(others={"large.png": make_image(300, size=(90, 40)), "flat.png": make_image(301, size=(70, 12))}),
    )
    trainer.add_class("red", red)
    trainer.run()
    data = trainer.report["data"]
    assert data["sides"] == {
        "shorter": {"smallest": 12, "median": 24, "largest": 40},
        "longer": {"smallest": 24, "median": 24, "largest": 90},
    }
    small = {item["image"]: item["sides"] for item in data["smallImages"]}
    (flat,) = [sides for name, sides in small.items() if name.endswith("flat.png")]
    assert flat == [12, 70]
    assert data["smallImagesCount"] == len(small) == 26
    assert f"input of {data['inputSidePixels']} pixels (26)" in trainer.report_page


def test_the_report_names_an_image_unlike_the_others(trainer: Any, make_example_zip: Any, red: bytes) -> None:
    trainer.add_class("blue", make_example_zip(30, others={"other.png": pictures.save(pictures.photographs()[0])}))
    trainer.add_class("red", red)
    trainer.run()
    data = trainer.report["data"]
    assert data["outliers"][0]["image"].endswith("other.png")
    assert data["outliersCount"] == len(data["outliers"])
    assert "Images unlike the others of every class" in trainer.report_page


def test_a_class_of_one_burst_is_trained_and_counts_as_one_image(trainer: Any, make_zip: Any) -> None:
    burst = pictures.take_burst(pictures.photographs()[0], 12)
    trainer.add_class("temple", make_zip({f"{number}.jpg": data for number, data in enumerate(burst)}))
    trainer.add_class("clouds", make_zip({f"{seed}.jpg": pictures.save(pictures.textured(seed)) for seed in range(30)}))
    assert trainer.run()[0].succeeded
    low, high = trainer.report["evaluation"]["accuracyInterval"]
    assert trainer.report["data"]["nearDuplicatesCount"] == 11
    assert high - low > 0.3


def test_the_page_shows_names_as_text_and_loads_nothing(trainer: Any, make_example_zip: Any, red: bytes) -> None:
    trainer.add_class("<script>alert(1)</script>", make_example_zip(12, others={"<img src=x>.txt": b"notes"}))
    trainer.add_class("red", red)
    trainer.run()
    page = remove_thumbnails(trainer.report_page.encode()).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img" not in page
    assert "<script" not in page
    assert not re.search(r"<[^>]+(src|href)=|url\(|@import", page)
    assert "default-src 'none'; img-src data:" in page


def test_the_page_shows_the_accuracy_and_every_class(learned: Any) -> None:
    assert "100.0 %" in learned.report_page
    assert all(f"<td>{name}</td>" in learned.report_page for name in ("blue", "red"))


def test_a_zip_of_text_files_is_refused(trainer: Any, make_zip: Any, red: bytes) -> None:
    trainer.add_class("blue", make_zip({f"{number}.jpg": b"text" for number in range(12)}))
    trainer.add_class("red", red)
    text = refusal(trainer)
    assert 'class "blue" has 0 usable examples of 12 files; add at least 10. Skipped: 0.jpg (not a JPEG or PNG image)' in text


def test_uploads_of_fewer_than_ten_images_count_for_their_class_together(
    trainer: Any, make_example_zip: Any, red: bytes
) -> None:
    trainer.add_class("blue", *(trainer.upload(make_example_zip(6, first_seed=seed)) for seed in (0, 50)))
    trainer.add_class("red", trainer.upload(red))
    assert trainer.run()[0].succeeded


def test_an_upload_of_ten_images_of_which_nine_can_be_decoded_is_refused(
    trainer: Any, blue: bytes, make_example_zip: Any, make_image: Any, red: bytes
) -> None:
    trainer.add_class(
        "blue", trainer.upload(blue), trainer.upload(make_example_zip(9, first_seed=50, others={"x.png": make_image()[:99]}))
    )
    trainer.add_class("red", trainer.upload(red))
    text = refusal(trainer)
    assert "has 9 usable examples of 10 files; add at least 1 to that zip. Skipped: x.png (cannot be decoded)" in text


def test_a_bomb_among_good_images_is_skipped(trainer: Any, make_example_zip: Any, red: bytes) -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + bytes(40 * 1024 * 1024)
    trainer.add_class("blue", make_example_zip(10, others={"bomb.png": bomb}))
    trainer.add_class("red", red)
    assert trainer.run()[0].succeeded
    assert trainer.report["data"]["sets"][0]["skipped"][0]["reason"] == "more than 10 MB"


def test_entry_names_are_never_used_as_paths(trainer: Any, make_zip: Any, make_image: Any, red: bytes) -> None:
    trainer.add_class("blue", make_zip({f"../../{seed}.png": make_image(seed) for seed in range(10)}))
    trainer.add_class("red", red)
    assert trainer.run()[0].succeeded
    assert list(trainer.folder.parent.glob("*.png")) == []


def test_images_in_two_classes_belong_to_the_later_one(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("blue", make_example_zip(14))
    trainer.add_class("red", make_example_zip(12, first_seed=12, red=BLUE))
    assert trainer.run()[0].succeeded
    assert [item["distinct"] for item in trainer.report["data"]["sets"]] == [12, 12]
    assert trainer.report["data"]["sets"][0]["givenAway"][0]["reason"] == 'belongs to class "red", which has the same image'


def test_the_report_page_is_titled_with_the_classifier_id(learned: Any) -> None:
    page = render_page(learned.report)
    heads = [f"<title>{learned.report['classifierID']}, revision", f"<h1>{learned.report['classifierID']}</h1>"]
    assert [head for head in heads if head not in page] == []


def test_an_address_that_is_not_found_is_a_permanent_failure(trainer: Any, web_server: Any, red: bytes) -> None:
    trainer.add_class("blue", {"url": f"{web_server.url}/missing.zip?token=s3cret"})
    trainer.add_class("red", red)
    text = refusal(trainer, OutcomeReason.SOURCE_UNREADABLE)
    assert f'class "blue": {web_server.url}/missing.zip?…: the server answered 404 Not Found' in text


def test_a_server_that_is_down_lets_the_job_try_again(trainer: Any, red: bytes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        trainer.add_class("blue", {"url": f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"})
        trainer.add_class("red", red)
        outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.SOURCE_UNREADABLE, ExitCode.FAILED)


def test_the_outcome_of_an_earlier_pod_is_deleted(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    trainer.put(trainer.outcome_key, b'{"reason": "SourceUnreadable"}')
    trainer.run()
    assert trainer.outcome.succeeded


def test_a_backbone_that_is_not_installed_is_never_replaced(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    trainer.definition["model"] = {"backbone": "resnet50"}
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
    assert '"resnet50" is not installed; name one of EfficientNetLite0' in outcome.message


def test_a_listed_backbone_that_cannot_be_loaded_is_never_replaced(trainer: Any, blue: bytes, red: bytes) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    trainer.environment[Environment.BACKBONES] = f"EfficientNetLite0={'ab' * 32},{trainer.backbone}"
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
    assert not trainer.exists(trainer.artifact_key)


def test_a_missing_or_invalid_definition_is_named(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.definition = {"klassen": []}
    assert "definition.json is not a definition" in trainer.run()[0].message
    asyncio.run(trainer.store.delete_prefix("tenants"))
    monkeypatch.setattr(trainer, "put_definition", lambda: None)
    assert "the object store has no tenants/team-a/trainings/dogs_1/0123456789/2/definition.json" in trainer.run(2)[0].message


def test_a_store_that_refuses_the_outcome_lets_the_job_try_again(
    trainer: Any, blue: bytes, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = trainer.store.put

    async def refuse_outcome(key: str, data: bytes | Path) -> None:
        if key == trainer.outcome_key:
            raise StoreUnavailableError("object store: down")
        await put(key, data)

    trainer.add_class("blue", blue)
    trainer.add_class("red", make_example_zip(3))
    monkeypatch.setattr(trainer.store, "put", refuse_outcome)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.INVALID_DATA, ExitCode.FAILED)


def leave_no_room(trainer: Any, monkeypatch: pytest.MonkeyPatch, *, for_keys_with: str) -> None:
    put = trainer.store.put

    async def put_where_there_is_room(key: str, data: bytes | Path) -> None:
        if for_keys_with in key:
            raise StoreQuotaError(key, 'namespace "team-a" has no room in the store')
        await put(key, data)

    monkeypatch.setattr(trainer.store, "put", put_where_there_is_room)


def test_an_exceeded_quota_for_the_artifact_is_a_permanent_failure(
    trainer: Any, blue: bytes, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    trainer.put_definition()
    monkeypatch.setattr(trainer, "put_definition", lambda: None)
    leave_no_room(trainer, monkeypatch, for_keys_with="tenants/team-a/")
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.FAILED, ExitCode.MISCONFIGURED)
    remedy = 'namespace "team-a" has no room in the store; then raise spec.retrainNonce to train again, or send the examples'
    assert remedy in json.loads(outcome.to_termination_message())["message"]


def test_an_exceeded_quota_for_the_outcome_keeps_the_training_successful(
    trainer: Any, blue: bytes, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.add_class("blue", blue)
    trainer.add_class("red", red)
    leave_no_room(trainer, monkeypatch, for_keys_with="outcome.json")
    assert trainer.run()[1] is ExitCode.SUCCEEDED


def test_the_termination_message_of_a_long_failure_fits(trainer: Any, make_zip: Any) -> None:
    for number in range(20):
        trainer.add_class(f"class {number} " + "ä" * 100, make_zip({f"{'ü' * 200}-{n}.txt": b"text" for n in range(20)}))
    message = trainer.run()[0].to_termination_message()
    assert len(message.encode()) <= 2048
    assert json.loads(message)["reason"] == "InvalidData"
