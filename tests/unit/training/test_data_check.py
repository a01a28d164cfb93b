"""Checks of the data before a training: everything that is wrong, and a training that uses what the check read."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ocelli_api.outcome import ExitCode, OutcomeReason, Stage
from ocelli_storage.layout import CHECK_OUTCOME, DEFINITION, THUMBNAILS, is_image_data
from ocelli_storage.object_store import StoreQuotaError
from tests.unit.training import made_pictures as pictures
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.slow

BLUE, RED = 0, 190
ANNA = "a" * 32


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> Any:
    """A trainer whose data was checked; for tests that only read the result."""
    trainer = Trainer(tmp_path_factory.mktemp("checked"))
    trainer.add_class("blue", make_example_zip(12, red=BLUE))
    trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=RED), customer=ANNA))
    outcome, exit_code = trainer.check()
    assert (outcome.reason, exit_code) == (OutcomeReason.SUCCEEDED, ExitCode.SUCCEEDED)
    return trainer


def test_a_check_trains_nothing(checked: Any) -> None:
    assert checked.keys("/artifacts/") == []


def test_the_outcome_is_stored_apart_from_that_of_the_training(checked: Any) -> None:
    key = checked.location.training_key(checked.revision, 1, CHECK_OUTCOME)
    assert json.loads(checked.get(key))["message"].startswith(
        'every source was read: 24 different images ("blue" 12, "red" 12)'
    )
    assert not checked.exists(checked.outcome_key)


def test_progress_ends_with_checking_where_the_training_goes_on(checked: Any) -> None:
    assert (checked.progress.stage, checked.progress.percent) == (Stage.CHECKING, 35)


def test_the_page_shows_images_to_look_at(checked: Any) -> None:
    assert "It suffices for a training." in checked.check_page
    assert checked.check_page.count('<img class="thumbnail"') >= 24


def test_what_was_read_is_stored_for_each_customer(checked: Any) -> None:
    prefix = checked.location.checked_prefix(checked.revision, 1)
    names = [key.removeprefix(f"{prefix}/") for key in checked.keys("/trainings/") if is_image_data(key)]
    files = ["pixels.bin", "sources.json", THUMBNAILS]
    assert names == [*(f"customer-{ANNA}/{file}" for file in files), *files]


def test_the_training_reads_no_source_and_makes_the_same_artifact(
    trainer: Any, web_server: Any, make_example_zip: Any, make_image: Any
) -> None:
    zips = [make_example_zip(12, red=BLUE, others={"x.txt": b"text"}), make_example_zip(12, first_seed=50, red=RED)]
    for name, data in zip(("blue", "red"), zips, strict=True):
        trainer.add_class(name, {"url": web_server.answer(f"/{name}", body=data)})
    trainer.check(attempt=1)
    assert sorted(web_server.requests) == ["/blue", "/red"]
    with_check, _ = trainer.run(attempt=1)
    assert len(web_server.requests) == 2
    report = trainer.report
    trainer.delete_artifact()
    alone, _ = trainer.run(attempt=2)
    assert with_check.artifact_digest == alone.artifact_digest is not None
    assert report["data"] == trainer.report["data"]


def test_what_was_read_is_deleted_after_the_training(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("blue", make_example_zip(12, red=BLUE))
    trainer.add_class("red", make_example_zip(12, first_seed=50, red=RED))
    trainer.check()
    assert trainer.run()[0].succeeded
    assert [key for key in trainer.keys("/trainings/") if is_image_data(key)] == []


def test_a_training_without_what_was_read_reads_the_sources(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("blue", make_example_zip(12, red=BLUE))
    trainer.add_class("red", make_example_zip(12, first_seed=50, red=RED))
    trainer.check()
    (pixels,) = trainer.keys("/image-data/pixels.bin")
    trainer.put(pixels, b"damaged")
    assert trainer.run()[0].succeeded


def test_an_exceeded_quota_for_what_was_read_does_not_fail_the_check(
    trainer: Any, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = trainer.store.put

    async def refuse(key: str, data: Any) -> None:
        if is_image_data(key):
            raise StoreQuotaError(key, "no room")
        await put(key, data)

    trainer.add_class("blue", make_example_zip(12, red=BLUE))
    trainer.add_class("red", make_example_zip(12, first_seed=50, red=RED))
    monkeypatch.setattr(trainer.store, "put", refuse)
    assert trainer.check()[0].succeeded
    assert [key for key in trainer.keys("/trainings/") if is_image_data(key)] == []


def test_everything_that_is_wrong_is_named_at_the_same_time(
    trainer: Any, web_server: Any, make_example_zip: Any, make_zip: Any, make_image: Any
) -> None:
    trainer.add_class("few", make_example_zip(3, others={"notes.txt": b"text"}))
    for number in range(5):
        trainer.add_class(f"gone {number}", {"url": f"{web_server.url}/gone-{number}.zip"})
    trainer.add_class("page", {"url": web_server.answer("/page", body=b"<html>")})
    trainer.add_class("good", make_example_zip(12, first_seed=100, red=RED))
    trainer.definition["evaluation"] = {
        "classes": [{"name": "good", "examples": [trainer.upload(make_zip({"copy.png": make_image(100, red=RED)}))]}]
    }
    outcome, exit_code = trainer.check()
    assert (outcome.reason, exit_code) == (OutcomeReason.INVALID_DATA, ExitCode.INVALID_DATA)
    assert outcome.message.startswith("Classifier team-a/dogs: 8 faults: ")
    wanted = [f'class "gone {number}": {web_server.url}/gone-{number}.zip: the server answered 404' for number in range(5)]
    wanted += [
        'class "page": ',
        "it is a web page, not a zip",
        'class "few" has 3 usable examples of 4 files; add at least 7. Skipped: notes.txt (not a JPEG or PNG image)',
        'the test images of class "good" (1) are all examples or near duplicates of examples',
    ]
    assert [text for text in wanted if text not in outcome.message] == []
    assert trainer.check_report["faultsCount"] == len(trainer.check_report["faults"]) == 8


def test_bad_data_is_not_stored_for_a_training(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("few", make_example_zip(3))
    trainer.add_class("good", make_example_zip(12, first_seed=100, red=RED))
    trainer.check()
    stored = [key.rpartition("/")[2] for key in trainer.keys("/trainings/") if is_image_data(key)]
    # People look at the images of a failed check.
    assert stored == [THUMBNAILS]
    assert "What has to change before a training" in trainer.check_page


def test_conflicts_and_suspects_are_found_in_data_that_is_not_sufficient(
    trainer: Any, make_zip: Any, make_example_zip: Any, make_image: Any
) -> None:
    clouds = [pictures.textured(seed) for seed in range(12)]
    trainer.add_class("calm", make_zip({f"{seed}.jpg": pictures.save(clouds[seed]) for seed in range(12)}))
    trainer.add_class("empty", make_zip({"notes.txt": b"text"}))
    others = {"again.jpg": pictures.save(clouds[5], 60), "0.jpg": pictures.save(clouds[0])}
    trainer.add_class("red", make_example_zip(12, red=RED, others=others))
    assert trainer.check()[0].reason is OutcomeReason.INVALID_DATA
    data = trainer.check_report["data"]
    assert data["conflictsCount"] == 1
    assert data["sets"][0]["givenAwayCount"] == 1
    suspects = {item["image"].partition(" › ")[2]: item["suggestedClass"] for item in data["suspectedLabelErrors"]}
    assert suspects["again.jpg"] == suspects["0.jpg"] == "calm"


def test_without_two_sets_nothing_is_called_free_of_suspects(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("blue", make_example_zip(12))
    trainer.check()
    assert trainer.check_report["data"]["suspectedLabelErrorsCount"] is None
    assert "too few examples to find images that have the wrong class" in trainer.check_page


def test_sources_that_may_be_readable_later_let_the_job_try_again(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("red", make_example_zip(12))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        trainer.add_class("blue", {"url": f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"})
        outcome, exit_code = trainer.check()
    assert (outcome.reason, exit_code) == (OutcomeReason.SOURCE_UNREADABLE, ExitCode.FAILED)


def test_a_check_stops_after_many_sources_that_cannot_be_used(trainer: Any, web_server: Any) -> None:
    trainer.add_class("gone", *({"url": f"{web_server.url}/{number}.zip"} for number in range(80)))
    trainer.check()
    assert trainer.check_report["stoppedEarly"]
    assert 50 <= trainer.check_report["faultsCount"] < 60
    assert "the others were not read" in trainer.check_page


def test_hostile_names_do_nothing_in_the_page(trainer: Any, make_example_zip: Any) -> None:
    name = '<img class="thumbnail" alt="" data-customer="" src="x">'
    trainer.add_class(name, make_example_zip(3, others={f"{name}\n{name}.txt": b"text"}))
    trainer.add_class("red", make_example_zip(12, first_seed=50, red=RED))
    trainer.check()
    lines = [line for line in trainer.check_page.splitlines() if "<img" in line]
    assert all(line.startswith('<img class="thumbnail" alt="" data-customer="" src="data:image/jpeg;base64,') for line in lines)


def test_sources_erased_during_the_check_leave_nothing(
    trainer: Any, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.add_class("blue", make_example_zip(12))
    annas = trainer.upload(make_example_zip(12, first_seed=50, red=RED), customer=ANNA)
    trainer.add_class("red", make_example_zip(12, first_seed=80, red=RED), annas)
    open_read = trainer.store.open_read

    async def erase_after_reading(key: str, *arguments: int) -> AsyncIterator[bytes]:
        async for chunk in open_read(key, *arguments):
            yield chunk
        if key.endswith(".zip"):
            trainer.definition["classes"][1]["examples"][1]["erased"] = True
            definition = trainer.location.training_key(trainer.revision, 1, DEFINITION)
            await trainer.store.put(definition, json.dumps(trainer.definition).encode())

    monkeypatch.setattr(trainer.store, "open_read", erase_after_reading)
    assert trainer.check()[0].succeeded
    assert trainer.keys(ANNA) == []
    assert ANNA not in trainer.check_page
