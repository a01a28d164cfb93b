"""Settings: every wrong one is named, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_operator.config import SETTINGS, ConfigError, parse_config

GOOD = {"OCELLI_STORE_URL": "file:///store"}


def test_the_store_alone_must_be_set() -> None:
    assert [setting.name for setting in SETTINGS if setting.default is None] == ["OCELLI_STORE_URL"]
    assert parse_config(GOOD).children.store_url == "file:///store"


def test_the_lease_is_named_by_a_setting() -> None:
    assert parse_config(GOOD).lease_name == "ocelli-operator"
    assert parse_config({**GOOD, "OCELLI_LEASE_NAME": "two-operator"}).lease_name == "two-operator"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_STORE_URL", ""),
        ("OCELLI_BACKBONES", "EfficientNetLite0"),
        ("OCELLI_WORKERS", "0"),
        ("OCELLI_WORKERS", "many"),
        ("OCELLI_WATCH_SECONDS", "60-30"),
        ("OCELLI_TRAINER_RESOURCES", "{"),
        ("OCELLI_TRAINER_RESOURCES", '{"limit": {}}'),
        ("OCELLI_TRAINER_RESOURCES", '{"limits": {"nvidia.com/gpu": 1}}'),
        ("OCELLI_INFERENCE_RESOURCES", '{"requests": {"nvidia.com/mig-1g.10gb": 1}}'),
        ("OCELLI_IMAGE_PULL_POLICY", "Sometimes"),
        ("OCELLI_LOG_LEVEL", "loud"),
        ("OCELLI_GPU_RESOURCE", "gpu"),
        ("OCELLI_GPU_NODE_SELECTOR", '{"pool": 1}'),
        ("OCELLI_GPU_TOLERATIONS", '{"key": "gpu"}'),
        ("OCELLI_GPU_TOLERATIONS", '[{"name": "gpu"}]'),
        ("OCELLI_WATCH_NODES", "yes"),
        ("OCELLI_INFERENCE_PEERS", "{}"),
        ("OCELLI_INFERENCE_PEERS", "[{}]"),
        ("OCELLI_METRICS_PEERS", '[{"namespace": "monitoring"}]'),
        ("OCELLI_JOB_TTL_SECONDS", "0"),
        ("OCELLI_TRAINER_SCRATCH_SIZE", "much"),
        ("OCELLI_INFERENCE_SCRATCH_SIZE", "0"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        parse_config({**GOOD, name: value})


def test_backbones_of_a_folder_follow_those_that_are_listed(tmp_path: Path) -> None:
    (tmp_path / "001").write_text(f"EfficientNetLite0={'c' * 64}\n")
    (tmp_path / "000").write_text(f"resnet18={'b' * 64}\n")
    config = parse_config({**GOOD, "OCELLI_BACKBONES": f"resnet50={'a' * 64}", "OCELLI_BACKBONES_FOLDER": str(tmp_path)})
    assert config.children.backbones == f"resnet50={'a' * 64},resnet18={'b' * 64},EfficientNetLite0={'c' * 64}"


def test_a_wrong_file_of_the_folder_of_backbones_is_named(tmp_path: Path) -> None:
    (tmp_path / "000").write_text("resnet18")
    with pytest.raises(ConfigError, match="000: 'resnet18' is not of the form NAME=DIGEST"):
        parse_config({**GOOD, "OCELLI_BACKBONES_FOLDER": str(tmp_path)})


def test_a_folder_of_backbones_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"OCELLI_BACKBONES_FOLDER=.* cannot be read"):
        parse_config({**GOOD, "OCELLI_BACKBONES_FOLDER": str(tmp_path / "missing")})


def test_namespaces_are_a_list() -> None:
    assert parse_config({**GOOD, "OCELLI_NAMESPACES": "a, b"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, False),
        ({"OCELLI_TRAINER_GPU_IMAGE": "trainer:cuda"}, True),
        ({"OCELLI_INFERENCE_GPU_IMAGE": "inference:cuda"}, True),
        ({"OCELLI_TRAINER_GPU_IMAGE": "trainer:cuda", "OCELLI_WATCH_NODES": "false"}, False),
    ],
)
def test_nodes_are_watched_only_where_it_is_allowed_and_of_use(environment: dict[str, str], watched: bool) -> None:
    assert parse_config({**GOOD, **environment}).watch_nodes is watched


def test_two_operators_without_a_pod_name_have_different_identities() -> None:
    assert parse_config(GOOD).identity != parse_config(GOOD).identity


def test_a_log_level_may_be_written_small() -> None:
    assert parse_config({**GOOD, "OCELLI_LOG_LEVEL": "debug"}).children.log_level == "DEBUG"
