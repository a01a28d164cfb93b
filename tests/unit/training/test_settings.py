"""The environment of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_api.classifier import Accelerator
from ocelli_api.pod_environment import SettingsError
from ocelli_api.pods import Environment
from ocelli_training.settings import THREADS_LIMIT, InstalledBackbone, Settings, parse_settings

COMPLETE = {
    Environment.STORE_URL: "file:///store",
    Environment.CLASSIFIER: "team-a/dogs",
    Environment.NAMESPACE: "team-a",
    Environment.CLASSIFIER_ID: "dogs_1",
    Environment.REVISION: "0123456789",
    Environment.ATTEMPT: "3",
}


def parse(**changes: str) -> Settings:
    return parse_settings({**COMPLETE, **{Environment[name]: value for name, value in changes.items()}}, usable_cores=4)


@pytest.mark.parametrize("name", list(COMPLETE))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is missing"):
        parse_settings({key: value for key, value in COMPLETE.items() if key != name}, usable_cores=4)


def test_optional_variables_have_defaults() -> None:
    settings = parse()
    assert (settings.backbones, settings.file_sources_folder, settings.cpu_count, settings.log_level) == ((), None, 4, "INFO")


def test_backbones_come_in_the_order_listed() -> None:
    assert parse(BACKBONES="resnet50=ab, EfficientNetLite0=cd,").backbones == (
        InstalledBackbone(name="resnet50", digest="ab"),
        InstalledBackbone(name="EfficientNetLite0", digest="cd"),
    )


@pytest.mark.parametrize("text", ["resnet50", "=ab", "resnet50="])
def test_a_backbone_without_name_or_digest_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="OCELLI_BACKBONES"):
        parse(BACKBONES=text)


@pytest.mark.parametrize(("text", "cores"), [("1", 1), ("64", 4), ("", 4)])
def test_no_more_cores_are_used_than_allowed_and_usable(text: str, cores: int) -> None:
    assert parse(CPU_LIMIT=text).cpu_count == cores


@pytest.mark.parametrize("text", ["", "16", "64", "1000"])
def test_at_most_16_of_64_cores_are_used(text: str) -> None:
    settings = parse_settings({**COMPLETE, Environment.CPU_LIMIT: text}, usable_cores=64)

    assert settings.cpu_count == THREADS_LIMIT == 16


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "²"])
def test_a_cpu_limit_that_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="OCELLI_CPU_LIMIT"):
        parse(CPU_LIMIT=text)


def test_an_attempt_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="OCELLI_ATTEMPT"):
        parse(ATTEMPT="first")


def test_an_unknown_accelerator_is_refused() -> None:
    assert parse(ACCELERATOR="CPU").accelerator is Accelerator.CPU
    with pytest.raises(SettingsError, match="OCELLI_ACCELERATOR is 'TPU'; give one of Auto, GPU, CPU"):
        parse(ACCELERATOR="TPU")


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(SettingsError, match="OCELLI_LOG_LEVEL"):
        parse(LOG_LEVEL="LOUD")


def test_the_folder_of_file_sources_is_a_path() -> None:
    assert parse(FILE_SOURCES_FOLDER="/examples").file_sources_folder == Path("/examples")
