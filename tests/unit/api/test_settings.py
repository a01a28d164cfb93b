"""The table of settings that every program has: types, defaults and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocelli_api.settings import (
    FOLDER,
    LOG_LEVEL,
    NAMES,
    NETWORKS,
    PORT,
    PROXY,
    QUANTITY,
    SWITCH,
    TEMPORARY_FOLDER,
    SettingsError,
    SettingType,
    checked,
    group,
    list_settings,
    load_settings,
    number,
    one_of,
    optional,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    workers: int = setting("WORKERS", number(int, 1), "8")
    share: float = setting("SHARE", number(float, 0.1, 100), "50")


@dataclass(frozen=True, kw_only=True)
class Program:
    folder: Path = setting("FOLDER", FOLDER)
    limits: Limits = group(Limits)
    log_level: str = setting("LOG_LEVEL", LOG_LEVEL, "INFO")


def refusal(environment: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(Program, environment)
    return str(caught.value)


def test_a_program_has_the_defaults_of_its_settings() -> None:
    expected = Program(folder=Path("/data"), limits=Limits(workers=8, share=50), log_level="INFO")
    assert load_settings(Program, {"FOLDER": "/data"}) == expected == Program(folder=Path("/data"), limits=Limits())


def test_an_empty_variable_has_its_default() -> None:
    assert load_settings(Program, {"FOLDER": "/data", "WORKERS": ""}).limits.workers == 8


def test_a_missing_setting_is_named_with_what_it_should_be() -> None:
    assert refusal({}) == refusal({"FOLDER": ""}) == "FOLDER is not set; set it to a folder"


def test_all_wrong_settings_are_named_at_once() -> None:
    assert refusal({"WORKERS": "many", "SHARE": "nan", "LOG_LEVEL": "LOUD"}) == (
        "FOLDER is not set; set it to a folder. WORKERS is 'many'; set it to a whole number of at least 1. "
        "SHARE is 'nan'; set it to a number from 0.1 to 100. "
        "LOG_LEVEL is 'LOUD'; set it to one of DEBUG, INFO, WARNING, ERROR"
    )


def test_settings_are_listed_in_the_order_of_their_fields() -> None:
    assert [item.name for item in list_settings(Program)] == ["FOLDER", "WORKERS", "SHARE", "LOG_LEVEL"]


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (number(int, 1, 100), "100", 100),
        (number(float, 0, 1), "0.25", 0.25),
        (PORT, "65535", 65535),
        (SWITCH, "false", False),
        (LOG_LEVEL, "debug", "DEBUG"),
        (NAMES, "a, b,", ("a", "b")),
        (NETWORKS, "10.1.0.0/16, fd00::/8", "10.1.0.0/16, fd00::/8"),
        (QUANTITY, "5Gi", "5Gi"),
        (optional(FOLDER), "", None),
        (optional(FOLDER), "/data", Path("/data")),
        (TEMPORARY_FOLDER, "/scratch", Path("/scratch")),
        (one_of({"one": 1, "two": 2}), "two", 2),
    ],
)
def test_a_text_is_typed(type_: SettingType[object], text: str, value: object) -> None:
    assert type_.parse(text) == value


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (number(int, 1, 100), "101"),
        (number(int, 1), "0"),
        (number(int, 1), "1.5"),
        (number(int, 1), "²"),
        (number(float, 0, 1), "inf"),
        (PORT, "0"),
        (PORT, "65536"),
        (SWITCH, "yes"),
        (LOG_LEVEL, "loud"),
        (NETWORKS, "10.1.0.1/16"),
        (QUANTITY, "0"),
        (QUANTITY, "5 GB"),
        (checked("", str, str.isupper), "small"),
    ],
)
def test_a_wrong_text_is_refused(type_: SettingType[object], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        type_.parse(text)


def test_a_message_says_which_part_of_a_value_is_wrong() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Networks:
        allowed: str = setting("NETWORKS", NETWORKS, "")

    with pytest.raises(
        SettingsError, match=r"^NETWORKS is '10.1.0.1/16' \(10.1.0.1/16 has host bits set\); set it to networks"
    ):
        load_settings(Networks, {"NETWORKS": "10.1.0.1/16"})


def test_a_message_does_not_repeat_a_password() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Sources:
        proxy: str = setting("PROXY", PROXY, "")

    with pytest.raises(SettingsError, match=r"^PROXY is 'https://\*\*\*@proxy.example.com:3128' \("):
        load_settings(Sources, {"PROXY": "https://ana:secret@proxy.example.com:3128"})
