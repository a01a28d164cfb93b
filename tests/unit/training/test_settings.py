"""The environment of the trainer. What it shares with the inference server: tests/unit/api/test_pod_environment.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_api.network_addresses import NetworkRules
from ocelli_api.pods import Environment
from ocelli_api.settings import SettingsError, load_settings
from ocelli_storage.layout import ClassifierLocation
from ocelli_training.settings import InstalledBackbone, TrainerSettings

COMPLETE = {
    Environment.STORE_URL: "file:///store",
    Environment.CLASSIFIER: "team-a/dogs",
    Environment.NAMESPACE: "team-a",
    Environment.CLASSIFIER_ID: "dogs_1",
    Environment.REVISION: "0123456789",
    Environment.ATTEMPT: "3",
}


def parse(**changes: str) -> TrainerSettings:
    return load_settings(TrainerSettings, {**COMPLETE, **{Environment[name]: value for name, value in changes.items()}})


def test_optional_variables_have_defaults() -> None:
    settings = parse()
    assert (settings.backbones, settings.file_sources_folder, settings.networks) == ((), None, NetworkRules())


def test_without_an_indexed_job_there_is_one_worker() -> None:
    assert (parse().workers, parse().worker, parse().subject) == (1, 0, "team-a/dogs")


def test_messages_of_another_worker_name_it() -> None:
    settings = parse(WORKERS="4", WORKER="3", BIND_ADDRESS="10.0.0.7")
    assert (settings.subject, settings.worker_address) == ("team-a/dogs, worker 3", "10.0.0.7")


def test_the_address_of_a_worker_is_an_ip_address() -> None:
    with pytest.raises(SettingsError, match=r"POD_IP.*an IP address"):
        parse(BIND_ADDRESS="worker-0.dogs")


def test_the_store_is_used_where_the_classifier_belongs() -> None:
    assert parse().location == ClassifierLocation(namespace="team-a", classifier_id="dogs_1")


def test_backbones_keep_their_order_in_the_list() -> None:
    assert parse(BACKBONES="resnet50=ab, EfficientNetLite0=cd,").backbones == (
        InstalledBackbone(name="resnet50", digest="ab"),
        InstalledBackbone(name="EfficientNetLite0", digest="cd"),
    )


@pytest.mark.parametrize("text", ["resnet50", "=ab", "resnet50="])
def test_a_backbone_without_name_or_digest_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=rf"OCELLI_BACKBONES is .* \('{text}' is not of the form NAME=DIGEST\)"):
        parse(BACKBONES=f"EfficientNetLite0=cd,{text}")


@pytest.mark.parametrize("text", ["first", ""])
def test_an_attempt_that_is_not_a_count_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="OCELLI_ATTEMPT"):
        parse(ATTEMPT=text)


def test_the_folder_of_file_sources_is_a_path() -> None:
    assert parse(FILE_SOURCES_FOLDER="/examples").file_sources_folder == Path("/examples")
