"""The environment of the inference server."""

from __future__ import annotations

import pytest

from ocelli_api.pod_environment import SettingsError
from ocelli_inference.settings import CPU_COUNT_LIMIT, parse_settings

ENVIRONMENT = {
    "OCELLI_STORE_URL": "file:///var/lib/ocelli",
    "OCELLI_CLASSIFIER": "team-a/dogs",
    "OCELLI_NAMESPACE": "team-a",
    "OCELLI_CLASSIFIER_ID": "dogs_19",
    "OCELLI_REVISION": "0123456789",
}


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is missing"):
        parse_settings({key: value for key, value in ENVIRONMENT.items() if key != name}, usable_cores=2)


def test_without_a_limit_the_usable_cores_count() -> None:
    assert parse_settings(ENVIRONMENT, usable_cores=6).cpu_count == 6


def test_the_cpu_limit_counts_where_it_is_lower_than_the_cores() -> None:
    assert parse_settings({**ENVIRONMENT, "OCELLI_CPU_LIMIT": "2"}, usable_cores=64).cpu_count == 2


def test_a_cpu_limit_above_the_cores_starts_no_more_threads_than_there_are_cores() -> None:
    assert parse_settings({**ENVIRONMENT, "OCELLI_CPU_LIMIT": "64"}, usable_cores=2).cpu_count == 2


def test_a_node_of_many_cores_is_not_taken_whole() -> None:
    assert parse_settings({**ENVIRONMENT, "OCELLI_CPU_LIMIT": "96"}, usable_cores=96).cpu_count == CPU_COUNT_LIMIT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OCELLI_CPU_LIMIT", "500m"),
        ("OCELLI_CPU_LIMIT", "0"),
        ("POD_IP", "localhost"),
        ("OCELLI_LOG_LEVEL", "LOUD"),
        ("OCELLI_ACCELERATOR", "TPU"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '{value}'; give"):
        parse_settings({**ENVIRONMENT, name: value}, usable_cores=2)


def test_every_address_is_bound_by_default() -> None:
    assert parse_settings(ENVIRONMENT, usable_cores=2).bind_address == "0.0.0.0"


def test_the_pod_s_address_is_bound() -> None:
    assert parse_settings({**ENVIRONMENT, "POD_IP": "fd00::7"}, usable_cores=2).bind_address == "fd00::7"
