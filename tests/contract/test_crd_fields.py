"""The CRD and the dataclasses of `ocelli_api.classifier` have the same fields, defaults, enums and bounds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api import classifier as api
from ocelli_api.classifier_status import (
    HISTORY_LIMIT,
    AccuracyDrop,
    AccuracyInterval,
    ClassifierStatus,
    FineTuningProgress,
    HistoryEntry,
    ObservedSources,
    Progress,
    RevisionComparison,
)
from ocelli_api.conditions import Condition, ConditionStatus
from ocelli_api.names import FORBIDDEN_CLASS_CHARACTERS
from ocelli_api.outcome import Stage

CRD = yaml.safe_load((Path(__file__).resolve().parents[2] / "crds" / "classifier.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
STATUS = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]
CLASS = SPEC["properties"]["classes"]["items"]
COMPARISON = STATUS["properties"]["history"]["items"]["properties"]["comparison"]
PRETRAINED = SPEC["properties"]["pretrained"]
ACRONYMS = {"Cpu": "CPU", "Id": "ID"}

SCHEMAS = {
    api.ClassifierSpec: SPEC,
    api.ExampleClass: CLASS,
    api.Source: CLASS["properties"]["examples"]["items"],
    api.SecretReference: CLASS["properties"]["examples"]["items"]["properties"]["secretRef"],
    api.Correction: SPEC["properties"]["corrections"]["items"],
    api.ModelRecipe: SPEC["properties"]["model"],
    api.Evaluation: SPEC["properties"]["evaluation"],
    api.Promotion: SPEC["properties"]["promotion"],
    api.Pretrained: PRETRAINED,
    api.PretrainedWeights: PRETRAINED["properties"]["weights"],
    api.PretrainedImages: PRETRAINED["properties"]["images"],
    api.PretrainedLabels: PRETRAINED["properties"]["labels"],
    api.DataFile: PRETRAINED["properties"]["hierarchy"],
    api.Training: SPEC["properties"]["training"],
    api.Serving: SPEC["properties"]["serving"],
    api.Autoscaling: SPEC["properties"]["serving"]["properties"]["autoscaling"],
    ClassifierStatus: STATUS,
    Progress: STATUS["properties"]["progress"],
    FineTuningProgress: STATUS["properties"]["progress"]["properties"]["fineTuning"],
    HistoryEntry: STATUS["properties"]["history"]["items"],
    ObservedSources: STATUS["properties"]["observedSources"],
    AccuracyInterval: STATUS["properties"]["accuracyInterval"],
    RevisionComparison: COMPARISON,
    AccuracyDrop: COMPARISON["properties"]["accuracyDrop"],
    Condition: STATUS["properties"]["conditions"]["items"],
}


def json_name(field: str) -> str:
    words = field.split("_")
    rest = (ACRONYMS.get(word.capitalize(), word.capitalize()) for word in words[1:])
    return words[0] + "".join(rest)


def key_of(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key") or json_name(field.name))


def every_schema(schema: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += every_schema(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found += every_schema(schema[name], f"{path}[]")
    return found


EVERY_SCHEMA = every_schema(SPEC, "spec") + every_schema(STATUS, "status")


@pytest.mark.parametrize("cls", SCHEMAS, ids=lambda cls: cls.__name__)
def test_the_fields_are_the_same(cls: type) -> None:
    assert {key_of(field) for field in dataclasses.fields(cls)} == set(SCHEMAS[cls]["properties"])


@pytest.mark.parametrize(
    "cls", [cls for cls in SCHEMAS if cls not in (ClassifierStatus, Condition)], ids=lambda cls: cls.__name__
)
def test_the_defaults_are_the_same(cls: type) -> None:
    for field in dataclasses.fields(cls):
        plain = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
        expected = field.default if plain else None
        schema = SCHEMAS[cls]["properties"][key_of(field)]
        actual = None if schema.get("default") == {} else schema.get("default")
        assert actual == expected, field.name


def test_a_field_without_a_default_in_the_dataclass_is_required() -> None:
    stored = (
        api.Correction,
        api.SecretReference,
        ObservedSources,
        Progress,
        FineTuningProgress,
        HistoryEntry,
        AccuracyInterval,
        RevisionComparison,
        AccuracyDrop,
    )
    for cls in (api.ClassifierSpec, api.ExampleClass, *stored):
        required = {
            key_of(field)
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        assert required == set(SCHEMAS[cls].get("required", ()))


def test_a_test_set_has_the_schema_of_classes() -> None:
    tested = SPEC["properties"]["evaluation"]["properties"]["classes"]
    assert tested["maxItems"] == api.CLASSES_LIMIT
    assert tested["items"]["required"] == CLASS["required"]
    assert tested["items"]["properties"].keys() == CLASS["properties"].keys()
    assert tested["items"]["properties"]["examples"]["items"] == CLASS["properties"]["examples"]["items"]


def test_the_served_revision_has_the_figures_of_the_history() -> None:
    entry = STATUS["properties"]["history"]["items"]["properties"]
    assert entry["accuracyInterval"] == STATUS["properties"]["accuracyInterval"]


def test_an_unseen_object_has_generation_minus_one() -> None:
    assert STATUS["default"] == {"observedGeneration": ClassifierStatus.observed_generation} == {"observedGeneration": -1}


def test_the_names_are_the_same() -> None:
    names = CRD["spec"]["names"]
    assert (CRD["spec"]["group"], VERSION["name"]) == (api.GROUP, api.VERSION)
    assert (names["kind"], names["plural"]) == (api.KIND, api.PLURAL)
    assert (names["shortNames"], names["categories"]) == (["clf"], ["ocelli"])


def test_the_bounds_are_the_same() -> None:
    assert SPEC["properties"]["classes"]["maxItems"] == api.CLASSES_LIMIT
    assert CLASS["properties"]["name"]["maxLength"] == api.CLASS_NAME_LIMIT
    assert SPEC["properties"]["displayName"]["maxLength"] == api.DISPLAY_NAME_LIMIT
    assert STATUS["properties"]["history"]["maxItems"] == HISTORY_LIMIT
    assert CLASS["properties"]["examples"]["maxItems"] == api.CLASS_SOURCES_LIMIT
    assert SPEC["properties"]["negativeExamples"]["maxItems"] == api.CLASS_SOURCES_LIMIT
    rules = str(SPEC["x-kubernetes-validations"]) + str(VERSION["schema"]["openAPIV3Schema"]["x-kubernetes-validations"])
    assert f"<= {api.SOURCES_LIMIT}" in rules
    assert f"<= {api.NAME_LIMIT}" in rules


def test_the_enums_are_the_same() -> None:
    assert STATUS["properties"]["progress"]["properties"]["stage"]["enum"] == [str(stage) for stage in Stage]
    assert SPEC["properties"]["dataRetention"]["enum"] == [str(retention) for retention in api.DataRetention]
    assert SPEC["properties"]["promotion"]["properties"]["approval"]["enum"] == [str(approval) for approval in api.Approval]
    assert PRETRAINED["properties"]["activation"]["enum"] == [str(activation) for activation in api.Activation]
    for part, packaged in (("weights", api.PackagedWeightsName), ("labels", api.PackagedLabels)):
        names = PRETRAINED["properties"][part]["properties"]["packaged"]["enum"]
        assert names == [str(name) for name in packaged]
    for part in ("training", "serving"):
        accelerators = SPEC["properties"][part]["properties"]["accelerator"]["enum"]
        assert accelerators == [str(accelerator) for accelerator in api.Accelerator]
    statuses = STATUS["properties"]["conditions"]["items"]["properties"]["status"]["enum"]
    assert statuses == [str(status) for status in ConditionStatus]


def test_the_message_lists_the_forbidden_characters() -> None:
    message = next(
        rule["message"] for rule in CLASS["properties"]["name"]["x-kubernetes-validations"] if "one of" in rule["message"]
    )
    assert all(character in message for character in FORBIDDEN_CLASS_CHARACTERS)


@pytest.mark.parametrize(("path", "schema"), EVERY_SCHEMA, ids=[path for path, _ in EVERY_SCHEMA])
def test_every_field_is_described_and_bounded(path: str, schema: dict[str, Any]) -> None:
    assert schema.get("description", "").rstrip().endswith((".", "]"))
    if schema.get("type") == "array":
        assert "maxItems" in schema
    if schema.get("type") == "string":
        bounded = {"maxLength", "enum", "format"} & schema.keys() or re.search(r"\{\d+\}\$$", schema.get("pattern", ""))
        assert bounded


def test_every_rule_has_a_message() -> None:
    rules = [rule for _, schema in EVERY_SCHEMA for rule in schema.get("x-kubernetes-validations", ())]
    assert len(rules) >= 8
    assert all(rule.get("message") for rule in rules)


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(0, ["Ready", "Reason", "Progress", "Accuracy", "Age"]), (1, ["Available", "Revision", "Message"])],
    ids=["always", "with -o wide"],
)
def test_kubectl_get_shows_these_columns(priority: int, expected: list[str]) -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [column["name"] for column in columns if column.get("priority", 0) == priority] == expected
