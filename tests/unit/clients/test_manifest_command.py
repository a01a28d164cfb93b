"""`ocelli manifest`: YAML with pins, and the zips that it names."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import API_VERSION, KIND, parse_spec
from tests.documented_commands import bash_blocks
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.photographs import image_bytes, write_images


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_images(tmp_path / "My Pets" / "cat", range(10))
    write_images(tmp_path / "My Pets" / "Große Hunde", range(20, 30))
    write_images(tmp_path / "others", range(40, 50))
    return tmp_path / "My Pets"


def manifest(user: CommandLine, folder: Path, *options: str) -> dict[str, Any]:
    run = user.succeed("manifest", str(folder), "--out", str(folder.parent / "zips"), *options)
    document: dict[str, Any] = yaml.safe_load(run.out)
    return document


def test_each_zip_has_an_address_below_the_prefix_and_its_digest(stranger: CommandLine, pets: Path) -> None:
    options = ("--negatives", str(pets.parent / "others"), "--url-prefix", "https://data.example.com/pets")
    spec = manifest(stranger, pets, *options)["spec"]
    sources = [source for one in spec["classes"] for source in one["examples"]] + spec["negativeExamples"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (pets.parent / "zips").iterdir()}
    assert {source["url"].removeprefix("https://data.example.com/pets/"): source["sha256"] for source in sources} == digests
    assert len(digests) == 3


def test_the_operator_understands_the_manifest(stranger: CommandLine, pets: Path) -> None:
    document = manifest(stranger, pets)
    assert (document["apiVersion"], document["kind"], document["metadata"]) == (API_VERSION, KIND, {"name": "my-pets"})
    assert [one.name for one in parse_spec(document["spec"]).classes] == ["Große Hunde", "cat"]


def test_without_a_prefix_the_addresses_are_files_of_the_installation(stranger: CommandLine, pets: Path) -> None:
    spec = manifest(stranger, pets)["spec"]
    assert [source["url"][:18] for one in spec["classes"] for source in one["examples"]] == [
        "file:///gro-e-hund",
        "file:///cat-" + spec["classes"][1]["examples"][0]["sha256"][:6],
    ]


def test_the_same_images_give_the_same_manifest(stranger: CommandLine, pets: Path) -> None:
    assert manifest(stranger, pets) == manifest(stranger, pets)


def test_a_changed_class_gets_another_zip_and_the_old_one_stays(stranger: CommandLine, pets: Path) -> None:
    before = manifest(stranger, pets)["spec"]["classes"]
    (pets / "cat" / "000.jpg").write_bytes(image_bytes(99))
    after = manifest(stranger, pets)["spec"]["classes"]
    assert (before[0], before[1]["examples"] == after[1]["examples"]) == (after[0], False)
    assert len(list((pets.parent / "zips").iterdir())) == 3


def test_examples_that_would_be_refused_give_no_manifest(stranger: CommandLine, pets: Path) -> None:
    (pets / "cat" / "000.jpg").unlink()
    run = stranger.run("manifest", str(pets), "--out", str(pets.parent / "zips"))
    assert (run.code, run.out) == (1, "")
    assert 'Class "cat" has 9 images' in run.err


def test_a_name_that_kubernetes_refuses_is_refused_with_one_that_it_allows(stranger: CommandLine, pets: Path) -> None:
    run = stranger.run("manifest", str(pets), "--out", str(pets.parent / "zips"), "--name", "My Pets")
    assert run.code == 1
    assert '"My Pets" is not a name of a Kubernetes object' in run.err
    assert '--name "my-pets"' in run.err


def test_a_prefix_that_is_no_address_is_refused(stranger: CommandLine, pets: Path) -> None:
    run = stranger.run("manifest", str(pets), "--out", str(pets.parent / "zips"), "--url-prefix", "data.example.com")
    assert run.code == 1
    assert '"data.example.com" is not an address that Ocelli reads; it begins with https://, http://, s3://' in run.err


def test_a_folder_or_a_classifier_is_needed_and_not_both(stranger: CommandLine, pets: Path) -> None:
    for arguments in ((), (str(pets), "--from", "pets")):
        run = stranger.run("manifest", *arguments)
        assert run.code == 2
        assert "Give either a FOLDER, or --from CLASSIFIER" in run.err


def test_json_is_the_manifest_too(stranger: CommandLine, pets: Path) -> None:
    run = stranger.succeed("manifest", str(pets), "--out", str(pets.parent / "zips"), "-o", "json")
    assert run.document == manifest(stranger, pets)


def test_the_commands_of_the_page_print_manifests_of_a_folder_and_of_a_classifier(
    anna: CommandLine, client: V3Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos" / "beagle", range(10))
    write_images(tmp_path / "photos" / "husky", range(20, 30))
    monkeypatch.chdir(tmp_path)
    classifier_id = client.created("dogs")
    (block,) = bash_blocks("docs/import.md", "A manifest to commit")
    lines = [line.removesuffix(" > dogs.yaml") for line in block.splitlines()]
    of_folder, of_classifier = (yaml.safe_load(anna.succeed(*shlex.split(line)[1:]).out) for line in lines)
    assert of_folder["spec"]["classes"][0]["examples"][0]["url"].startswith("https://data.example.com/dogs/beagle-")
    assert of_classifier["metadata"]["name"] == classifier_id.replace("_", "-")
    assert [one["name"] for one in of_classifier["spec"]["classes"]] == ["heron", "owl"]
