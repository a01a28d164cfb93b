"""Settings of the operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ocelli_api.settings import SettingsError, list_settings, load_settings
from ocelli_operator.settings import OperatorSettings

GOOD = {"OCELLI_STORE_URL": "file:///store"}


def parse(environment: Mapping[str, str]) -> OperatorSettings:
    return load_settings(OperatorSettings, environment)


def test_only_the_store_is_required() -> None:
    assert [item.name for item in list_settings(OperatorSettings) if item.default is None] == ["OCELLI_STORE_URL"]
    assert parse(GOOD).children.store_url == "file:///store"


def test_the_lease_is_named_by_a_setting() -> None:
    assert parse(GOOD).lease_name == "ocelli-operator"
    assert parse({**GOOD, "OCELLI_LEASE_NAME": "two-operator"}).lease_name == "two-operator"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_STORE_URL", ""),
        ("OCELLI_BACKBONES", "EfficientNetLite0"),
        ("OCELLI_WORKERS", "0"),
        ("OCELLI_WATCH_SECONDS", "60-30"),
        ("OCELLI_TRAINER_RESOURCES", "{"),
        ("OCELLI_TRAINER_RESOURCES", '{"limit": {}}'),
        ("OCELLI_TRAINER_RESOURCES", '{"limits": {"nvidia.com/gpu": 1}}'),
        ("OCELLI_INFERENCE_RESOURCES", '{"requests": {"nvidia.com/mig-1g.10gb": 1}}'),
        ("OCELLI_IMAGE_PULL_POLICY", "Sometimes"),
        ("OCELLI_GPU_RESOURCE", "gpu"),
        ("OCELLI_GPU_NODE_SELECTOR", '{"pool": 1}'),
        ("OCELLI_GPU_TOLERATIONS", '{"key": "gpu"}'),
        ("OCELLI_GPU_TOLERATIONS", '[{"name": "gpu"}]'),
        ("OCELLI_INFERENCE_PEERS", "{}"),
        ("OCELLI_INFERENCE_PEERS", "[{}]"),
        ("OCELLI_METRICS_PEERS", '[{"namespace": "monitoring"}]'),
        ("OCELLI_JOB_TTL_SECONDS", "0"),
        ("OCELLI_TRAINER_SCRATCH_SIZE", "much"),
        ("OCELLI_INFERENCE_SCRATCH_SIZE", "0"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse({**GOOD, name: value})


def test_backbones_of_a_folder_come_after_listed_ones(tmp_path: Path) -> None:
    (tmp_path / "001").write_text(f"EfficientNetLite0={'c' * 64}\n")
    (tmp_path / "000").write_text(f"resnet18={'b' * 64}\n")
    config = parse({**GOOD, "OCELLI_BACKBONES": f"resnet50={'a' * 64}", "OCELLI_BACKBONES_FOLDER": str(tmp_path)})
    assert config.children.backbones == f"resnet50={'a' * 64},resnet18={'b' * 64},EfficientNetLite0={'c' * 64}"


def test_a_wrong_file_of_the_folder_of_backbones_is_named(tmp_path: Path) -> None:
    (tmp_path / "000").write_text("resnet18")
    with pytest.raises(SettingsError, match="000: 'resnet18' is not of the form NAME=DIGEST"):
        parse({**GOOD, "OCELLI_BACKBONES_FOLDER": str(tmp_path)})


def test_a_missing_folder_of_backbones_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"OCELLI_BACKBONES_FOLDER is .*missing.*No such file"):
        parse({**GOOD, "OCELLI_BACKBONES_FOLDER": str(tmp_path / "missing")})


def test_namespaces_are_a_list() -> None:
    assert parse({**GOOD, "OCELLI_NAMESPACES": "a, b"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, False),
        ({"OCELLI_TRAINER_GPU_IMAGE": "trainer:cuda"}, True),
        ({"OCELLI_INFERENCE_GPU_IMAGE": "inference:cuda"}, True),
        ({"OCELLI_TRAINER_GPU_IMAGE": "trainer:cuda", "OCELLI_WATCH_NODES": "false"}, False),
    ],
)
def test_nodes_are_watched_only_if_allowed_and_needed(environment: dict[str, str], watched: bool) -> None:
    assert parse({**GOOD, **environment}).watch_nodes is watched


def test_two_operators_without_a_pod_name_have_different_identities() -> None:
    assert parse(GOOD).identity != parse(GOOD).identity
