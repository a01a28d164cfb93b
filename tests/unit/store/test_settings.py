"""Settings of the embedded store."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ocelli_api.settings import SettingsError, list_settings, load_settings
from ocelli_store.settings import StoreSettings

GOOD = {
    "OCELLI_STORE_FOLDER": "/data",
    "OCELLI_STORE_ADMINISTRATORS": "system:serviceaccount:ocelli-system:ocelli-operator",
}


def parse(environment: Mapping[str, str]) -> StoreSettings:
    return load_settings(StoreSettings, environment)


def test_folder_and_administrators_must_be_set() -> None:
    assert [item.name for item in list_settings(StoreSettings) if item.default is None] == list(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_required_setting_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set; set it to "):
        parse({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_STORE_ADMINISTRATORS", "ocelli-operator"),
        ("OCELLI_STORE_ADMINISTRATORS", "system:serviceaccount:ocelli-system:ocelli-operator,"),
        ("OCELLI_STORE_NAMESPACE_QUOTA", "5 GB"),
        ("OCELLI_STORE_NAMESPACE_QUOTA", "0"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse({**GOOD, name: value})


def test_administrators_are_a_list() -> None:
    other = "system:serviceaccount:ocelli-system:ocelli-gateway"
    names = f"{GOOD['OCELLI_STORE_ADMINISTRATORS']}, {other}"
    parsed = parse({**GOOD, "OCELLI_STORE_ADMINISTRATORS": names})
    assert parsed.administrators == {GOOD["OCELLI_STORE_ADMINISTRATORS"], other}


@pytest.mark.parametrize(("text", "quota_bytes"), [("5Gi", 5 * 1024**3), ("1000", 1000), ("", None)])
def test_a_quota_is_a_quantity_or_empty(text: str, quota_bytes: int | None) -> None:
    assert parse({**GOOD, "OCELLI_STORE_NAMESPACE_QUOTA": text}).namespace_quota_bytes == quota_bytes
