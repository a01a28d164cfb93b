"""The bill of materials of a model: it follows CycloneDX's own schema, and names every input."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from typing import Any

import jsonschema_rs
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.schema._res import BOM_JSON, SPDX_JSON

from ocelli_api.classifier import Source
from ocelli_storage.layout import BILL_OF_MATERIALS
from ocelli_training.dataset import ExampleSet, FileReading, SourceReading
from ocelli_training.provenance import find_inputs
from ocelli_training.trainer_environment import observe_trainer_environment, parse_cpu_kind
from tests.unit.training.conftest import Trainer

SECRET_URL = "https://anna:secret@example.com/dogs.zip?signature=secret#part"
X86 = """processor\t: 0
model name\t: Example CPU @ 2.00GHz
flags\t\t: fpu sse4_1 sse4_2 avx2 fma avx512f amx_bf16 hypervisor

processor\t: 1
model name\t: Example CPU @ 2.00GHz
flags\t\t: fpu avx512_fp16
"""


def schema_faults(document: dict[str, Any]) -> list[str]:
    """What CycloneDX's schema has against a document."""
    path = BOM_JSON[SchemaVersion.V1_6]
    assert path is not None
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    # It refers to the files next to it by their names.
    signature_file = path.replace("bom-1.6", "jsf-0.82")
    base = schema["$id"].rpartition("/")[0]
    resources = []
    for place in (SPDX_JSON, signature_file):
        with open(place, encoding="utf-8") as file:
            resources.append((f"{base}/{place.rpartition('/')[2]}", json.load(file)))
    validator = jsonschema_rs.Draft7Validator(schema, registry=jsonschema_rs.Registry(resources), validate_formats=True)
    return [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(document)]


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"].removeprefix("ocelli:"): item["value"] for item in component.get("properties", ())}


def bom_of(trainer: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(trainer.get(trainer.location.artifact_key(trainer.revision, BILL_OF_MATERIALS)))
    return document


def inputs_of(bom: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in bom["components"] if item["type"] == "data"]


@pytest.fixture(scope="module")
def zips(make_example_zip: Any) -> dict[str, bytes]:
    return {
        "blue": make_example_zip(12),
        "red": make_example_zip(12, first_seed=50, red=190),
        "test": make_example_zip(3, first_seed=90, red=190),
    }


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, zips: dict[str, bytes]) -> Any:
    """A finished training with an upload, a file, and a test set."""
    trainer = Trainer(tmp_path_factory.mktemp("trainer"))
    trainer.add_class("blue", trainer.upload(zips["blue"]))
    trainer.add_class("red", zips["red"])
    (trainer.file_sources / "test.zip").write_bytes(zips["test"])
    trainer.definition["evaluation"] = {"classes": [{"name": "red", "examples": [{"url": "file:///test.zip"}]}]}
    trainer.definition["model"] = {"seed": 7}
    outcome, _ = trainer.run()
    assert outcome.succeeded, outcome.message
    return trainer


@pytest.mark.slow
def test_the_document_follows_the_schema_of_cyclonedx(learned: Any) -> None:
    assert schema_faults(bom_of(learned)) == []


def test_the_schema_finds_faults() -> None:
    # Otherwise the test above could not fail.
    wrong = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "model", "name": "x"}]}
    assert len(schema_faults(wrong)) == 1


@pytest.mark.slow
def test_the_model_is_named_with_the_digest_of_its_artifact(learned: Any) -> None:
    model = bom_of(learned)["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "team-a/dogs", learned.revision)
    assert model["hashes"] == [{"alg": "SHA-256", "content": learned.outcome.artifact_digest}]


@pytest.mark.slow
def test_every_input_has_the_digest_of_its_file(learned: Any, zips: dict[str, bytes]) -> None:
    found = [(item["description"], item["hashes"][0]["content"]) for item in inputs_of(bom_of(learned))]
    assert found == [
        (described, hashlib.sha256(zips[name]).hexdigest())
        for described, name in (
            ('class "blue"', "blue"),
            ('class "red"', "red"),
            ('the test images of class "red"', "test"),
        )
    ]


@pytest.mark.slow
def test_the_backbone_is_named_with_its_digest(learned: Any) -> None:
    (backbone,) = [item for item in bom_of(learned)["components"] if item["bom-ref"] == "backbone"]
    assert backbone["hashes"] == [{"alg": "SHA-256", "content": learned.backbone.digest}]


@pytest.mark.slow
def test_recipe_seed_engine_and_cpu_are_named(learned: Any) -> None:
    found = properties(bom_of(learned)["metadata"]["component"])
    assert (found["recipe:seed"], found["recipe:penalty"]) == ("7", repr(float(learned.report["recipe"]["penalty"])))
    assert found["engine"] == "OpenVINO CPU float32"
    assert found["cpu:architecture"] == observe_trainer_environment().cpu.architecture


@pytest.mark.slow
def test_libraries_are_named_with_their_versions(learned: Any) -> None:
    versions = {item["name"]: item["version"] for item in bom_of(learned)["components"] if item["type"] == "library"}
    assert {name: versions[name] for name in ("numpy", "openvino")} == {
        name: importlib.metadata.version(name) for name in ("numpy", "openvino")
    }


@pytest.mark.slow
def test_the_artifact_s_digest_does_not_depend_on_the_document(learned: Any) -> None:
    assert BILL_OF_MATERIALS not in learned.get(learned.artifact_key).decode()


def reading(url: str, *digests: str, sha256: str | None = None) -> SourceReading:
    files = tuple(FileReading(name=f"anna-{number}.png", digest=digest) for number, digest in enumerate(digests))
    return SourceReading(source=Source(url=url, customer="anna"), files=files, sha256=sha256)


def described(*readings: SourceReading) -> Any:
    example_set = ExampleSet(class_name="dog", sources=tuple(item.source for item in readings))
    return find_inputs([example_set], [readings])


def test_no_input_has_credentials_customers_or_names_of_files() -> None:
    (found,) = described(reading(SECRET_URL, "aa"))
    assert found.properties["address"] == "https://example.com/dogs.zip"
    assert not any(word in repr(found) for word in ("secret", "anna"))


def test_a_folder_is_identified_by_its_images_in_any_order() -> None:
    first, second, other = described(
        reading("file:///a/", "aa", "bb"), reading("file:///b/", "bb", "aa", "aa"), reading("file:///c/", "aa", "cc")
    )
    assert first.sha256 is None
    assert first.properties["images:sha256"] == second.properties["images:sha256"] != other.properties["images:sha256"]


def test_the_kind_of_cpu_is_its_model_and_what_rounding_depends_on() -> None:
    kind = parse_cpu_kind("x86_64", X86)
    assert (kind.model, kind.features) == (
        "Example CPU @ 2.00GHz",
        ("amx_bf16", "avx2", "avx512f", "fma", "sse4_1", "sse4_2"),
    )


def test_a_machine_without_cpu_information_is_only_its_architecture() -> None:
    kind = parse_cpu_kind("aarch64", "")
    assert (kind.architecture, kind.model, kind.features) == ("aarch64", "", ())
