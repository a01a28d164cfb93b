"""The store's settings: every wrong one is named, with the remedy."""

import pytest

from ocelli_store.settings import SETTINGS, SettingsError, parse_settings

GOOD = {
    "OCELLI_STORE_FOLDER": "/data",
    "OCELLI_STORE_ADMINISTRATORS": "system:serviceaccount:ocelli-system:ocelli-operator",
}


def test_folder_and_administrators_must_be_set() -> None:
    assert [name for name, (default, _) in SETTINGS.items() if default is None] == list(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_what_must_be_set_is_named_where_it_is_missing(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set; set it"):
        parse_settings({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_STORE_ADMINISTRATORS", "ocelli-operator"),
        ("OCELLI_STORE_ADMINISTRATORS", "system:serviceaccount:ocelli-system:ocelli-operator,"),
        ("OCELLI_STORE_NAMESPACE_QUOTA", "5 GB"),
        ("OCELLI_STORE_NAMESPACE_QUOTA", "0"),
        ("OCELLI_STORE_PORT", "http"),
        ("OCELLI_STORE_PORT", "0"),
        ("OCELLI_STORE_PORT", "65536"),
        ("OCELLI_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse_settings({**GOOD, name: value})


def test_administrators_are_a_list() -> None:
    other = "system:serviceaccount:ocelli-system:ocelli-gateway"
    names = f"{GOOD['OCELLI_STORE_ADMINISTRATORS']}, {other}"
    parsed = parse_settings({**GOOD, "OCELLI_STORE_ADMINISTRATORS": names})
    assert parsed.administrators == {GOOD["OCELLI_STORE_ADMINISTRATORS"], other}


@pytest.mark.parametrize(("text", "quota_bytes"), [("5Gi", 5 * 1024**3), ("1000", 1000), ("", None)])
def test_a_quota_is_a_quantity_or_empty(text: str, quota_bytes: int | None) -> None:
    assert parse_settings({**GOOD, "OCELLI_STORE_NAMESPACE_QUOTA": text}).namespace_quota_bytes == quota_bytes


def test_a_log_level_may_be_written_small() -> None:
    assert parse_settings({**GOOD, "OCELLI_LOG_LEVEL": "debug"}).log_level == "DEBUG"
