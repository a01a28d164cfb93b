"""Settings: every wrong one is named, with the remedy."""

from __future__ import annotations

import pytest

from ocelli_operator.config import SETTINGS, ConfigError, parse_config

GOOD = {"OCELLI_STORE_URL": "file:///store"}


def test_the_store_alone_must_be_set() -> None:
    assert [setting.name for setting in SETTINGS if setting.default is None] == ["OCELLI_STORE_URL"]
    assert parse_config(GOOD).children.store_url == "file:///store"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_STORE_URL", ""),
        ("OCELLI_BACKBONES", "HogColor"),
        ("OCELLI_WORKERS", "0"),
        ("OCELLI_WORKERS", "many"),
        ("OCELLI_WATCH_SECONDS", "60-30"),
        ("OCELLI_TRAINER_RESOURCES", "{"),
        ("OCELLI_TRAINER_RESOURCES", '{"limit": {}}'),
        ("OCELLI_IMAGE_PULL_POLICY", "Sometimes"),
        ("OCELLI_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        parse_config({**GOOD, name: value})


def test_namespaces_are_a_list() -> None:
    assert parse_config({**GOOD, "OCELLI_NAMESPACES": "a, b"}).namespaces == ("a", "b")


def test_two_operators_without_a_pod_name_have_different_identities() -> None:
    assert parse_config(GOOD).identity != parse_config(GOOD).identity
