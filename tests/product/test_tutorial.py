"""IBM's tutorial by curl: its commands, with only host and credentials changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.product.instance import Ocelli

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial is curl commands, and curl is not installed"),
]


@dataclass
class Tutorial:
    """The answer to each command of the tutorial: (HTTP status, body)."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)

    def body(self, step: str) -> Any:
        status, body = self.answers[step]
        assert status == 200, f"{step} answered {status}: {body}"
        return body


def curl(ocelli: Ocelli, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", "-u", f"{ocelli.user}:{ocelli.password}", *arguments],
        cwd=ocelli.few_samples,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


def poll(ocelli: Ocelli, url: str, timeout_seconds: float = 120) -> tuple[list[str], tuple[int, Any]]:
    seen: list[str] = []
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        answer = curl(ocelli, url)
        if not seen or seen[-1] != answer[1]["status"]:
            seen.append(answer[1]["status"])
        if seen[-1] in ("ready", "failed"):
            return seen, answer
        time.sleep(0.2)
    raise AssertionError(f"not settled within {timeout_seconds} s: {seen}")


@pytest.fixture(scope="module")
def tutorial(ocelli: Ocelli) -> Tutorial:
    played = Tutorial()
    base = f"{ocelli.address}/visual-recognition/api/v3"
    version = "version=2018-03-19"
    answers = played.answers
    answers["create"] = curl(
        ocelli,
        *("-X", "POST", "-F", "zero_positive_examples=@zero.zip", "-F", "one_positive_examples=@one.zip"),
        *("-F", "negative_examples=@other-digits.zip", "-F", "name=digits", f"{base}/classifiers?{version}"),
    )
    classifier_id = answers["create"][1]["classifier_id"]
    one = f"{base}/classifiers/{classifier_id}?{version}"
    played.statuses["create"], answers["ready"] = poll(ocelli, one)
    classify = ("-X", "POST", "-F", "images_file=@test-one.png", "-F", f"classifier_ids={classifier_id}")
    answers["classify"] = curl(ocelli, *classify, f"{base}/classify?{version}")
    answers["classify all scores"] = curl(ocelli, *classify, "-F", "threshold=0.0", f"{base}/classify?{version}")
    answers["retrain"] = curl(
        ocelli,
        *("-X", "POST", "-F", "two_positive_examples=@two.zip", "-F", "one_positive_examples=@more-ones.zip", one),
    )
    played.statuses["retrain"], answers["ready again"] = poll(ocelli, one)
    answers["classify two"] = curl(
        ocelli,
        *("-X", "POST", "-F", "images_file=@../test-two.png", "-F", f"classifier_ids={classifier_id},default"),
        f"{base}/classify?{version}",
    )
    answers["misspelt"] = curl(
        ocelli,
        *("-X", "POST", "-F", "images_file=@test-one.png"),
        *("-F", f"classifier_ids={classifier_id.replace('_', '__')},default", f"{base}/classify?{version}"),
    )
    answers["delete"] = curl(ocelli, "-X", "DELETE", one)
    answers["get deleted"] = curl(ocelli, one)
    answers["classify deleted"] = curl(ocelli, *classify, f"{base}/classify?{version}")
    return played


def test_create_answers_at_once_with_status_training(tutorial: Tutorial) -> None:
    assert tutorial.body("create")["status"] == "training"


def test_polling_sees_training_and_then_ready(tutorial: Tutorial) -> None:
    assert tutorial.statuses["create"] == ["training", "ready"]


def test_classify_without_threshold_returns_only_the_class_that_is_in_the_image(tutorial: Tutorial) -> None:
    (classifier,) = tutorial.body("classify")["images"][0]["classifiers"]
    assert [item["class"] for item in classifier["classes"]] == ["one"]


def test_classify_with_threshold_zero_returns_every_class(tutorial: Tutorial) -> None:
    (classifier,) = tutorial.body("classify all scores")["images"][0]["classifiers"]
    assert [item["class"] for item in classifier["classes"]] == ["one", "zero"]


def test_retrain_keeps_the_id_and_answers_retraining_with_the_new_class(tutorial: Tutorial) -> None:
    body = tutorial.body("retrain")
    assert (body["classifier_id"], body["status"], sorted(item["class"] for item in body["classes"])) == (
        tutorial.body("create")["classifier_id"],
        "retraining",
        ["one", "two", "zero"],
    )


def test_polling_after_retrain_sees_retraining_and_then_ready(tutorial: Tutorial) -> None:
    assert tutorial.statuses["retrain"] == ["retraining", "ready"]


def test_ready_after_retrain_says_when_it_was_retrained(tutorial: Tutorial) -> None:
    body = tutorial.body("ready again")
    assert body["retrained"] == body["updated"] > body["created"]


def test_the_class_that_retraining_added_is_recognised(tutorial: Tutorial) -> None:
    custom = tutorial.body("classify two")["images"][0]["classifiers"][0]
    assert custom["classes"][0]["class"] == "two"


def test_default_answers_with_colours_next_to_the_custom_classifier(tutorial: Tutorial) -> None:
    default = tutorial.body("classify two")["images"][0]["classifiers"][1]
    assert default["classifier_id"] == "default"
    assert default["classes"]
    assert all(item["class"].endswith(" color") for item in default["classes"])


def test_the_tutorials_misspelt_id_still_answers_for_default(tutorial: Tutorial) -> None:
    body = tutorial.body("misspelt")
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["default"]
    assert "unknown_classifier_ids" in [item["warning_id"] for item in body["warnings"]]


def test_delete_answers_with_an_empty_object(tutorial: Tutorial) -> None:
    assert tutorial.answers["delete"] == (200, {})


def test_a_deleted_classifier_is_not_found(tutorial: Tutorial) -> None:
    assert tutorial.answers["get deleted"][0] == 404


def test_classify_treats_a_deleted_id_as_unknown(tutorial: Tutorial) -> None:
    status, body = tutorial.answers["classify deleted"]
    assert status == 404
    assert body["images"][0]["error"]["description"].startswith("None of the requested classifier ids were found: ")
