"""A worse retrain is refused with its figures, a better one promoted; by manifest and by REST, with real trainings."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from ocelli_quickstart.digits import DIGIT_NAMES, Digits
from tests.product.classifiers import wait_for_status
from tests.product.instance import Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster

CLASSES = (3, 5, 8)
"""Digits that look alike."""
LEARNED, SWAPPED = 20, 6
TESTED = range(100, 140)
OVERLAP = 5
"""Test images of each class that are also examples."""


@pytest.fixture(scope="module")
def folder(ocelli: Ocelli) -> Path:
    """Zips of digits, below the folder of file sources."""
    folder = ocelli.samples / "gates"
    folder.mkdir(exist_ok=True)
    digits = Digits()
    for place, digit in enumerate(CLASSES):
        name, other = DIGIT_NAMES[digit], CLASSES[place - 1]
        digits.write_zip(folder / f"{name}.zip", [digit], range(LEARNED))
        digits.write_zip(folder / f"{name}-kept.zip", [digit], range(SWAPPED, LEARNED))
        digits.write_zip(folder / f"{name}-wrong.zip", [other], range(SWAPPED))
        digits.write_zip(folder / f"{name}-test.zip", [digit], TESTED)
        digits.write_zip(folder / f"{name}-known.zip", [digit], range(OVERLAP))
    return folder


def build(name: str, *, swapped: bool = False, **spec: object) -> Document:
    """Three digits with a test set of their own; `swapped`: three tenths of the examples are in the wrong class."""

    def sources(*files: str) -> list[dict[str, str]]:
        return [{"url": f"file:///gates/{file}.zip"} for file in files]

    names = [DIGIT_NAMES[digit] for digit in CLASSES]
    learned = {item: sources(f"{item}-kept", f"{item}-wrong") if swapped else sources(item) for item in names}
    tested = [{"name": item, "examples": sources(f"{item}-test", f"{item}-known")} for item in names]
    return {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": name, "annotations": {"ocelli.dev/rest-writes": "Allowed"}},
        "spec": {
            "classes": [{"name": item, "examples": examples} for item, examples in learned.items()],
            "evaluation": {"classes": tested},
            **spec,
        },
    }


def wait_for_reason(ocelli: Ocelli, name: str, condition_type: str, reason: str) -> Document:
    """The object, once a condition of its generation has the reason."""

    def reached() -> Document | None:
        found = ocelli.get("classifier", name)
        conditions = {item["type"]: item for item in found["status"].get("conditions") or ()}
        condition = conditions.get(condition_type, {})
        seen = condition.get("observedGeneration") == found["metadata"]["generation"]
        return found if seen and condition.get("reason") == reason else None

    found = wait_for(f"{condition_type} of {name} is {reason}", reached, 120)
    assert found is not None
    return found


def message_of(document: Document, condition_type: str) -> str:
    found: str = next(item["message"] for item in document["status"]["conditions"] if item["type"] == condition_type)
    return found


@pytest.fixture(scope="module")
def refused(ocelli: Ocelli, folder: Path) -> Document:
    """A Classifier with a served revision, and a worse one that was refused."""
    assert folder.is_dir()
    gate = {"promotion": {"maxAccuracyDrop": "0.01"}}
    ocelli.apply(build("worse", **gate))
    first = wait_for_reason(ocelli, "worse", "Ready", "Served")
    ocelli.apply(build("worse", swapped=True, **gate))
    found = wait_for_reason(ocelli, "worse", "Stalled", "Regressed")
    assert found["status"]["servedRevision"] == first["status"]["servedRevision"]
    return found


def test_a_retrain_with_three_tenths_of_the_examples_swapped_is_refused_with_figures(refused: Document) -> None:
    held, served = refused["status"]["history"][:2]
    drop = held["comparison"]["accuracyDrop"]["drop"]
    assert float(drop) > 0.01
    judged = held["comparison"]["images"]
    assert judged > 100
    figures = f"{drop} less accurate than revision {served['revision']} on {judged} images that neither learned from"
    assert figures in message_of(refused, "Promoted")


def test_test_images_that_are_also_examples_are_left_out_and_counted(ocelli: Ocelli, refused: Document) -> None:
    served = refused["status"]["history"][1]
    stored = ocelli.state_dir / "store/tenants/default/artifacts" / refused["status"]["classifierID"] / served["revision"]
    evaluation = json.loads((stored / "report.json").read_text())["evaluation"]
    # Near duplicates of examples are left out as well.
    assert served["excludedImages"] == evaluation["excludedImages"] >= len(CLASSES) * OVERLAP
    assert (
        served["judgedImages"] == evaluation["images"] == len(CLASSES) * (len(TESTED) + OVERLAP) - evaluation["excludedImages"]
    )


def test_rest_shows_the_refusal_and_the_served_revision_answers(
    ocelli: Ocelli, client: httpx.Client, refused: Document
) -> None:
    identity = refused["status"]["classifierID"]
    body = client.get(f"/v3/classifiers/{identity}").json()
    assert body["status"] == "failed"
    assert "less accurate than revision" in body["explanation"]
    image = Digits().png(CLASSES[0], 160)
    answer = client.post("/v3/classify", files={"images_file": image}, data={"classifier_ids": identity, "threshold": "0"})
    assert answer.status_code == 200, answer.text
    classes = answer.json()["images"][0]["classifiers"][0]["classes"]
    assert {item["class"] for item in classes} == {DIGIT_NAMES[digit] for digit in CLASSES}


def test_an_approval_serves_it_and_a_revert_rolls_back_without_a_training(ocelli: Ocelli, refused: Document) -> None:
    held, served = (entry["revision"] for entry in refused["status"]["history"][:2])
    attempt = refused["status"]["attempt"]
    patch = json.dumps({"spec": {"approvedRevision": held}})
    ocelli.kubectl("patch", "clf", "worse", "--type=merge", "-p", patch)
    approved = wait_for_reason(ocelli, "worse", "Ready", "Served")
    assert (approved["status"]["servedRevision"], approved["status"]["attempt"]) == (held, attempt)
    ocelli.apply(build("worse", promotion={"maxAccuracyDrop": "0.01"}))
    reverted = wait_for_reason(ocelli, "worse", "Ready", "Served")
    assert (reverted["status"]["servedRevision"], reverted["status"]["attempt"]) == (served, attempt)


@pytest.mark.usefixtures("folder")
def test_a_better_retrain_is_promoted_also_by_rest(ocelli: Ocelli, client: httpx.Client, folder: Path) -> None:
    ocelli.apply(build("better", swapped=True, promotion={"maxAccuracyDrop": "0.01"}))
    first = wait_for_reason(ocelli, "better", "Ready", "Served")["status"]
    parts = {
        f"{DIGIT_NAMES[digit]}_positive_examples": (folder / f"{DIGIT_NAMES[digit]}.zip").read_bytes() for digit in CLASSES
    }
    response = client.post(f"/v3/classifiers/{first['classifierID']}", files=parts)
    assert response.status_code == 200, response.text
    wait_for_status(client, first["classifierID"])
    after = ocelli.get("classifier", "better")
    assert after["status"]["servedRevision"] != first["servedRevision"]
    assert float(after["status"]["history"][0]["comparison"]["accuracyDrop"]["drop"]) < 0
    assert "more accurate than revision" in message_of(after, "Promoted")
    # REST adds examples and keeps the test set.
    assert len(after["spec"]["evaluation"]["classes"]) == len(CLASSES)
