"""`ocelli classify` and `evaluate`, over the gateway and stubs of inference servers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_harness.images import build_zip, png
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.photographs import write_images

SCORES = {"heron": 0.871204, "owl": 0.000001}


@pytest.fixture(scope="module")
def herons(client: V3Client) -> Iterator[str]:
    """A classifier that takes every image for a heron."""
    classifier_id = client.ready("herons", SCORES)
    yield classifier_id
    client.delete(classifier_id)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "barn [1].png"
    path.write_bytes(png())
    return path


def test_scores_are_those_of_v3_to_the_last_digit(anna: CommandLine, client: V3Client, herons: str, image: Path) -> None:
    answer = client.classify(("barn.png", image.read_bytes()), classifier_ids=herons, threshold="0")
    found = json.loads(answer.text, parse_float=str)["images"][0]["classifiers"][0]["classes"]
    run = anna.succeed("classify", str(image), "-c", herons, "--threshold", "0", "-o", "json")
    printed = json.loads(run.out, parse_float=str)["images"][0]["classifiers"][0]["classes"]
    assert printed == found
    human = anna.succeed("classify", str(image), "-c", herons, "--threshold", "0").out
    assert [item["score"] for item in found] == [line.split()[-1] for line in human.splitlines()[1:]]


def test_an_image_has_the_same_score_alone_and_in_a_zip(anna: CommandLine, herons: str, image: Path) -> None:
    archive = image.with_suffix(".zip")
    archive.write_bytes(build_zip({"a.png": image.read_bytes()}))
    document = anna.succeed("classify", str(image), str(archive), "-c", herons, "-o", "json").document
    alone, zipped = (item["classifiers"] for item in document["images"])
    assert alone == zipped


def test_a_name_is_as_good_as_an_id(anna: CommandLine, herons: str, image: Path) -> None:
    run = anna.succeed("classify", str(image), "-c", "herons", "-o", "name")
    assert run.out == f"{image}\theron\n"


def test_files_keep_their_paths(anna: CommandLine, herons: str, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "many", range(23))
    document = anna.succeed("classify", str(folder), "-c", herons, "-o", "json").document
    assert [item["image"] for item in document["images"]] == [str(path) for path in sorted(folder.iterdir())]


def test_an_unusable_image_fails_and_the_others_are_printed(anna: CommandLine, herons: str, image: Path) -> None:
    text = image.with_name("notes.txt")
    text.write_text("not an image")
    run = anna.run("classify", str(image), str(text), "-c", herons)
    assert run.code == 1
    assert "heron" in run.out
    assert f"{text}: Invalid/corrupted image data" in run.err
    assert anna.run("classify", str(text), "-c", herons, "-o", "json").document["images"][0]["error"]["code"] == 400


def test_the_built_in_classifier_answers_without_a_name(anna: CommandLine, image: Path) -> None:
    run = anna.succeed("classify", str(image), "-o", "json")
    assert run.document["images"][0]["classifiers"][0]["classifier_id"] == "default"
    assert "Warning: " in run.err  # Its model is not installed here.


def test_an_unknown_classifier_exits_with_3(anna: CommandLine, image: Path) -> None:
    run = anna.run("classify", str(image), "-c", "nothing")
    assert (run.code, run.out) == (3, "")
    assert 'There is no classifier "nothing"' in run.err


def test_a_classifier_of_another_tenant_exits_with_3(anna: CommandLine, herons: str, image: Path) -> None:
    bert = {"OCELLI_USER": "bert", "OCELLI_PASSWORD": "other"}
    assert anna.run("classify", str(image), "-c", herons, **bert).code == 3


def test_a_missing_file_exits_with_2(anna: CommandLine, herons: str) -> None:
    run = anna.run("classify", "gone.png", "-c", herons)
    assert (run.code, run.out) == (2, "")
    assert "gone.png does not exist" in run.err


def test_a_classifier_in_training_is_refused_in_words(anna: CommandLine, client: V3Client, image: Path) -> None:
    run = anna.run("classify", str(image), "-c", client.created("new"))
    assert (run.code, run.out) == (1, "")
    assert "training" in run.err


def test_evaluate_measures_balanced_accuracy(anna: CommandLine, herons: str, tmp_path: Path) -> None:
    write_images(tmp_path / "heron", range(30))
    write_images(tmp_path / "owl", range(30, 40))
    document = anna.succeed("evaluate", str(tmp_path), "-c", herons, "-o", "json").document
    assert document["accuracy"]["value"] == 0.5
    assert document["accuracy"]["lower"] < 0.5 < document["accuracy"]["upper"]
    assert document["confusion"] == [
        {"actual": "heron", "predicted": "heron", "images": 30},
        {"actual": "owl", "predicted": "heron", "images": 10},
    ]
    assert len(document["wrong"]) == 10


def test_evaluate_shows_wrong_images(anna: CommandLine, herons: str, tmp_path: Path) -> None:
    write_images(tmp_path / "owl", range(2))
    run = anna.succeed("evaluate", str(tmp_path), "-c", herons, "--limit", "1")
    assert run.out.startswith("Accuracy 0.0 % (")
    assert "and 1 more; --limit shows them" in run.out
    assert anna.succeed("evaluate", str(tmp_path), "-c", herons, "-o", "name").out.count(".jpg") == 2


def test_evaluate_names_folders_that_are_not_classes(anna: CommandLine, herons: str, tmp_path: Path) -> None:
    write_images(tmp_path / "eagle", range(2))
    run = anna.run("evaluate", str(tmp_path), "-c", herons)
    assert (run.code, run.out) == (2, "")
    assert "has no class eagle; its classes are heron, owl" in run.err


def test_negatives_below_the_threshold_are_right(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    shy = client.ready("shy", {"heron": 0.4, "owl": 0.1})
    negatives = write_images(tmp_path / "none", range(3))
    write_images(tmp_path / "classes" / "heron", range(3, 6))
    run = anna.succeed("evaluate", str(tmp_path / "classes"), "-c", shy, "--negatives", str(negatives), "-o", "json")
    assert run.document["confusion"] == [
        {"actual": "heron", "predicted": None, "images": 3},
        {"actual": None, "predicted": None, "images": 3},
    ]


def test_a_file_name_that_is_not_utf8_is_shown_with_a_replacement(anna: CommandLine, herons: str, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(png())
    document = anna.succeed("classify", str(folder), "-c", herons, "-o", "json").document
    assert [item["image"] for item in document["images"]] == [f"{folder}/caf�.png"]
