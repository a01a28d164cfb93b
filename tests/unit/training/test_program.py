"""`python -m ocelli_training` as the process that a Job starts."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.outcome import ExitCode, OutcomeReason, parse_termination_message
from ocelli_api.pods import Environment

pytestmark = pytest.mark.slow

PHOTOGRAPHS = Path(__file__).resolve().parents[3].parent / "shared" / "data"
DEADLINE_SECONDS = 60


def finish(process: Any) -> tuple[int, str]:
    """Exit code and log."""
    _, log = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, log


@pytest.fixture
def two_classes(trainer: Any, make_example_zip: Any) -> Any:
    trainer.add_class("blue", trainer.upload(make_example_zip(12)))
    trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=190)))
    return trainer


def test_the_program_writes_its_outcome_to_store_termination_message_and_exit_code(two_classes: Any) -> None:
    exit_code, _ = finish(two_classes.start())
    assert exit_code == ExitCode.SUCCEEDED
    assert two_classes.outcome.succeeded
    assert parse_termination_message(two_classes.termination_message.read_text()) == two_classes.outcome


def test_the_log_shows_every_stage(two_classes: Any) -> None:
    _, log = finish(two_classes.start())
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == [
        "training.started",
        "backbone.chosen",
        "examples.read",
        "examples.read",
        "data.valid",
        "features.extracted",
        "heads.fitted",
        "heads.evaluated",
        "thumbnails.made",
        "artifact.stored",
        "thumbnails.stored",
        "features.cached",
        "training.ended",
    ]


def test_the_scratch_folder_is_left_empty(two_classes: Any) -> None:
    finish(two_classes.start())
    assert list(two_classes.scratch.iterdir()) == []


def test_bad_data_has_its_own_exit_code(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("blue", make_example_zip(3))
    trainer.add_class("red", make_example_zip(12, first_seed=50))
    exit_code, log = finish(trainer.start())
    assert exit_code == ExitCode.INVALID_DATA
    assert json.loads(trainer.termination_message.read_text())["reason"] == OutcomeReason.INVALID_DATA
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (Environment.STORE_URL, ""),
        (Environment.STORE_URL, "ftp://store"),
        (Environment.BACKBONES, "resnet50"),
        (Environment.SCRATCH_FOLDER, "/proc/scratch"),
    ],
)
def test_a_wrong_environment_is_named_in_the_termination_message(two_classes: Any, variable: str, value: str) -> None:
    exit_code, _ = finish(two_classes.start(**{variable: value}))
    outcome = parse_termination_message(two_classes.termination_message.read_text())
    assert exit_code == ExitCode.MISCONFIGURED
    assert outcome is not None
    assert (outcome.reason, outcome.revision, outcome.attempt) == (OutcomeReason.FAILED, two_classes.revision, 1)
    assert (value or variable) in outcome.message


def test_the_same_definition_gives_the_same_artifact_in_any_order(trainer: Any, web_server: Any, make_example_zip: Any) -> None:
    # As many images as make the numerical libraries share the work among threads, if they are let.
    for number, name in enumerate(("blue", "violet", "red")):
        zips = [make_example_zip(24, first_seed=100 * number + 50 * part, red=number * 95) for part in range(2)]
        for part, data in enumerate(zips):
            web_server.answer(f"/{name}-{part}", body=data, delay_seconds=0.3 * (part == number % 2))
        trainer.add_class(name, *({"url": f"{web_server.url}/{name}-{part}"} for part in range(2)))
    finish(trainer.start(attempt=1, **{Environment.CPU_LIMIT: "2"}))
    first = trainer.outcome
    trainer.delete_artifact()
    for answers in web_server.answers.values():
        answers[0].delay_seconds = 0.3 - answers[0].delay_seconds
    finish(trainer.start(attempt=2, **{Environment.CPU_LIMIT: "1"}))
    second = trainer.outcome
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.artifact_digest == second.artifact_digest is not None


def test_two_installations_make_the_same_artifact_of_the_same_definition(
    tmp_path: Path, make_trainer: Any, make_example_zip: Any
) -> None:
    zips = {name: make_example_zip(24, first_seed=seed, red=seed) for name, seed in (("blue", 0), ("violet", 90), ("red", 180))}
    digests = []
    # A Classifier without the label has a random id.
    for cores, installation in enumerate(({"namespace": "team-a", "classifier_id": "dogs_1"}, {"namespace": "b"}), 1):
        folder = tmp_path / str(cores)
        folder.mkdir()
        trainer = make_trainer(folder, **{"classifier_id": "dogs_1941945966", **installation})
        for name, data in zips.items():
            trainer.add_class(name, trainer.upload(data))
        finish(trainer.start(**{Environment.CPU_LIMIT: str(cores)}))
        digests.append(trainer.outcome.artifact_digest)
    assert digests[0] == digests[1] is not None


def test_another_seed_gives_another_artifact(two_classes: Any) -> None:
    finish(two_classes.start(attempt=1))
    first = two_classes.outcome
    two_classes.delete_artifact()
    two_classes.definition["model"] = {"seed": 1}
    finish(two_classes.start(attempt=2))
    assert two_classes.outcome.artifact_digest != first.artifact_digest


def test_a_terminated_trainer_has_no_outcome(trainer: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        trainer.add_class("blue", {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"})
        trainer.add_class("red", {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/b.zip"})
        process = trainer.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not trainer.exists(trainer.progress_key):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        asked_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        exit_code, log = finish(process)
    assert time.monotonic() - asked_at < 5
    assert exit_code == 128 + signal.SIGTERM
    assert "training.stopped" in log
    assert not trainer.exists(trainer.outcome_key)
    assert list(trainer.scratch.iterdir()) == []


@pytest.mark.photographs
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="the sample photographs are not next to the checkout")
def test_photographs_of_cars_and_trucks_are_distinguished(trainer: Any) -> None:
    trainer.add_class("car", (PHOTOGRAPHS / "cars.zip").read_bytes())
    trainer.add_class("truck", (PHOTOGRAPHS / "trucks.zip").read_bytes())
    finish(trainer.start())
    assert trainer.outcome.accuracy >= 0.8
