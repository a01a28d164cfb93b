"""Settings of the gateway."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ocelli_api.settings import SettingsError, load_settings
from ocelli_gateway.settings import GatewaySettings

REQUIRED = {"OCELLI_STORE_URL": "file:///tmp/store", "OCELLI_CREDENTIALS_FOLDER": "/credentials"}


def parse(environment: Mapping[str, str]) -> GatewaySettings:
    return load_settings(GatewaySettings, environment)


def test_only_store_and_credentials_are_required() -> None:
    settings = parse(REQUIRED)
    assert (settings.store_url, settings.port, settings.replica_delay_seconds) == ("file:///tmp/store", 8080, 1.0)


@pytest.mark.parametrize("variable", REQUIRED)
def test_missing_setting_is_named(variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        parse({key: value for key, value in REQUIRED.items() if key != variable})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS", "0"),
        ("OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS", "nan"),
        ("OCELLI_GATEWAY_REPLICA_DELAY_SECONDS", "-0.5"),
        ("OCELLI_GATEWAY_TRUSTED_PROXIES", "10.1.0.1/16"),
    ],
)
def test_wrong_value_is_refused_with_the_variables_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        parse({**REQUIRED, variable: value})


def test_an_uplink_of_128_kilobits_is_faster_than_the_minimum_rate_of_a_body() -> None:
    assert parse(REQUIRED).body_kilobytes_per_second * 1024 * 8 < 128_000


def test_no_replica_delay_is_allowed() -> None:
    settings = parse({**REQUIRED, "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS": "0"})
    assert settings.replica_delay_seconds == 0
