"""The variables that trainer and inference server both read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_api.classifier import Accelerator
from ocelli_api.pod_environment import SettingsError, log_level, parse_accelerator, require, termination_message_path
from ocelli_api.pods import Environment


@pytest.mark.parametrize("environment", [{}, {Environment.REVISION: ""}])
def test_a_variable_that_is_missing_or_empty_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="OCELLI_REVISION is missing; set it on the container"):
        require(environment, Environment.REVISION)


def test_a_gpu_is_used_if_there_is_one_by_default() -> None:
    assert parse_accelerator({}) is Accelerator.AUTO
    assert parse_accelerator({Environment.ACCELERATOR: "CPU"}) is Accelerator.CPU


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(SettingsError, match="OCELLI_ACCELERATOR is 'TPU'; give one of Auto, GPU, CPU"):
        parse_accelerator({Environment.ACCELERATOR: "TPU"})


def test_a_log_level_may_be_lower_case() -> None:
    assert log_level({}) == "INFO"
    assert log_level({Environment.LOG_LEVEL: "debug"}) == "DEBUG"


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(SettingsError, match="OCELLI_LOG_LEVEL is 'LOUD'; give one of DEBUG, INFO, WARNING, ERROR"):
        log_level({Environment.LOG_LEVEL: "LOUD"})


def test_the_termination_message_goes_to_kubernetes_default_file() -> None:
    assert termination_message_path({}) == Path("/dev/termination-log")
    assert termination_message_path({Environment.TERMINATION_MESSAGE_PATH: "/tmp/x"}) == Path("/tmp/x")
