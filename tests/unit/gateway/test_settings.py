"""Settings of the gateway."""

from __future__ import annotations

import pytest

from ocelli_gateway.settings import GatewaySettings, SettingsError, environment_variables

REQUIRED = {"OCELLI_STORE_URL": "file:///tmp/store", "OCELLI_CREDENTIALS_FOLDER": "/credentials"}


def test_only_store_and_credentials_are_required() -> None:
    settings = GatewaySettings.from_environment(REQUIRED)
    assert (settings.store_url, settings.port, settings.replica_delay_seconds) == ("file:///tmp/store", 8080, 1.0)


@pytest.mark.parametrize("variable", REQUIRED)
def test_missing_setting_is_named(variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        GatewaySettings.from_environment({key: value for key, value in REQUIRED.items() if key != variable})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OCELLI_GATEWAY_PORT", "http"),
        ("OCELLI_GATEWAY_PORT", "-1"),
        ("OCELLI_GATEWAY_PORT", "65536"),
        ("OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS", "0"),
        ("OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS", "nan"),
        ("OCELLI_GATEWAY_REPLICA_DELAY_SECONDS", "-0.5"),
        ("OCELLI_LOG_LEVEL", "LOUD"),
    ],
)
def test_wrong_value_is_refused_with_the_variables_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        GatewaySettings.from_environment({**REQUIRED, variable: value})


def test_a_log_level_may_be_written_small() -> None:
    assert GatewaySettings.from_environment({**REQUIRED, "OCELLI_LOG_LEVEL": "debug"}).log_level == "DEBUG"


def test_an_uplink_of_128_kilobits_is_faster_than_the_least_rate_of_a_body() -> None:
    assert GatewaySettings.from_environment(REQUIRED).body_kilobytes_per_second * 1024 * 8 < 128_000


def test_no_replica_delay_is_allowed() -> None:
    settings = GatewaySettings.from_environment({**REQUIRED, "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS": "0"})
    assert settings.replica_delay_seconds == 0


def test_every_setting_has_a_description() -> None:
    assert all(
        variable.startswith(("OCELLI_", "POD_")) and len(meaning) > 20 for variable, meaning in environment_variables().items()
    )
