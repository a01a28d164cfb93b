"""The environment of the inference server. What it shares with the trainer: tests/unit/api/test_pod_environment.py."""

from __future__ import annotations

import pytest

from ocelli_api.settings import SettingsError, load_settings
from ocelli_inference.settings import InferenceSettings

ENVIRONMENT = {
    "OCELLI_STORE_URL": "file:///var/lib/ocelli",
    "OCELLI_CLASSIFIER": "team-a/dogs",
    "OCELLI_NAMESPACE": "team-a",
    "OCELLI_CLASSIFIER_ID": "dogs_19",
    "OCELLI_REVISION": "0123456789",
}


def test_every_address_is_bound_by_default() -> None:
    assert load_settings(InferenceSettings, ENVIRONMENT).bind_address == "0.0.0.0"


def test_the_address_of_the_pod_is_bound() -> None:
    assert load_settings(InferenceSettings, {**ENVIRONMENT, "POD_IP": "fd00::7"}).bind_address == "fd00::7"


def test_a_name_instead_of_an_address_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"POD_IP is 'localhost' .*; set it to an IP address"):
        load_settings(InferenceSettings, {**ENVIRONMENT, "POD_IP": "localhost"})
