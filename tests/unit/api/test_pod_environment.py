"""What trainer and inference server both read from their Pod's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocelli_api.classifier import Accelerator
from ocelli_api.pod_environment import THREADS_LIMIT, PodSettings, TerminationMessageSettings
from ocelli_api.pods import Environment
from ocelli_api.settings import SettingsError, load_settings

COMPLETE = {
    Environment.STORE_URL: "file:///store",
    Environment.CLASSIFIER: "team-a/dogs",
    Environment.NAMESPACE: "team-a",
    Environment.CLASSIFIER_ID: "dogs_1",
    Environment.REVISION: "0123456789",
}


def parse(**changes: str) -> PodSettings:
    return load_settings(PodSettings, {**COMPLETE, **{Environment[name]: value for name, value in changes.items()}})


@pytest.mark.parametrize("name", list(COMPLETE))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        load_settings(PodSettings, {key: value for key, value in COMPLETE.items() if key != name})


def test_a_gpu_is_used_if_there_is_one_by_default() -> None:
    assert parse().accelerator is Accelerator.AUTO
    assert parse(ACCELERATOR="CPU").accelerator is Accelerator.CPU


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(SettingsError, match="OCELLI_ACCELERATOR is 'TPU'; set it to one of Auto, GPU, CPU"):
        parse(ACCELERATOR="TPU")


@pytest.mark.parametrize(
    ("limit", "cores", "cpu_count"),
    [("", 6, 6), ("2", 64, 2), ("64", 2, 2), ("96", 96, THREADS_LIMIT), ("", 64, THREADS_LIMIT)],
)
def test_threads_follow_the_cpu_limit_and_the_usable_cores(
    monkeypatch: pytest.MonkeyPatch, limit: str, cores: int, cpu_count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert parse(CPU_LIMIT=limit).cpu_count == cpu_count


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "500m", "²"])
def test_a_cpu_limit_that_is_not_a_count_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"OCELLI_CPU_LIMIT is '{text}'; set it to a whole number of cores, at least 1"):
        parse(CPU_LIMIT=text)


def test_the_termination_message_goes_where_kubernetes_looks_for_it() -> None:
    assert load_settings(TerminationMessageSettings, {}).termination_message_path == Path("/dev/termination-log")
    environment = {Environment.TERMINATION_MESSAGE_PATH: "/tmp/x"}
    assert load_settings(TerminationMessageSettings, environment).termination_message_path == Path("/tmp/x")
