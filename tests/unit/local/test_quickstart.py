"""Settings and state folder of `make run`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ocelli_api.classifier import Classifier, parse_classifier
from ocelli_local.cluster import lock_state_folder
from ocelli_quickstart.client import Service, TutorialClient, TutorialError
from ocelli_quickstart.run import (
    RunError,
    RunSettings,
    claim_port,
    count_gpus,
    describe,
    is_rolled_out,
    load_credentials,
)
from ocelli_quickstart.samples import PHOTOGRAPHS, write_samples
from ocelli_quickstart.state import StateError, StateFolder
from ocelli_quickstart.summary import summarise
from ocelli_storage.archives import ImageKind, image_kind


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "²"])
def test_value_that_is_not_a_port_is_refused(port: str) -> None:
    with pytest.raises(RunError, match="PORT"):
        RunSettings.from_environment({"PORT": port})


@pytest.mark.parametrize(
    ("environment", "built_ins"),
    [
        ({}, ("default", "explicit", "food")),
        ({"BUILT_INS": ""}, ()),
        ({"BUILT_INS": "food, default food"}, ("food", "default")),
    ],
)
def test_built_in_classifiers_are_installed_unless_others_or_none_are_named(
    environment: dict[str, str], built_ins: tuple[str, ...]
) -> None:
    assert RunSettings.from_environment(environment).built_ins == built_ins


def test_the_node_offers_as_many_gpus_as_the_machine_has(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvme0"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 2


def test_an_unknown_built_in_classifier_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        RunError,
        match="BUILT_INS names 'pets', which is not a built-in classifier; name some of default, explicit, food, or none",
    ):
        RunSettings.from_environment({"BUILT_INS": "food pets"})


@pytest.mark.parametrize("user", ["apikey", "a:b", "a\nb"])
def test_user_name_that_the_gateway_does_not_allow_is_refused_by_its_variable(tmp_path: Path, user: str) -> None:
    with pytest.raises(RunError, match=f"^OCELLI_USER is {re.escape(repr(user))}; set a name"):
        load_credentials(tmp_path / "credentials.json", user, "x")


def test_password_that_the_gateway_does_not_allow_is_refused_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^OCELLI_PASSWORD is too long; set one of at most 1,024 bytes$"):
        load_credentials(tmp_path / "credentials.json", "a", "x" * 1025)


def test_invalid_setting_of_the_gateway_is_refused_before_anything_starts() -> None:
    with pytest.raises(
        RunError, match="OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS is 'x'; set it to a whole number from 1 to 10000"
    ):
        RunSettings.from_environment({"OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS": "x"})


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("OCELLI_GATEWAY_MAX_CONCURENT_UPLOADS", "did you mean OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS?"),
        ("OCELLI_QUOTA_EVERYTHING", "see docs/reference/gateway-settings.md"),
    ],
)
def test_misspelt_setting_of_the_gateway_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(RunError, match=re.escape(f"{name} is not a setting of the gateway; {remedy}")):
        RunSettings.from_environment({name: "3"})


@pytest.mark.parametrize(
    ("status", "rolled_out"),
    [
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "replicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1}, False),
        ({}, False),
    ],
    ids=["current", "not observed", "an old Pod answers", "the new Pod crashes", "just created"],
)
def test_gateway_is_ready_only_with_the_pod_of_its_settings(status: dict[str, int], rolled_out: bool) -> None:
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}
    assert is_rolled_out(deployment) == rolled_out


def test_drawn_password_is_kept_and_private(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.prepare()
    password = state.password(None)
    assert StateFolder(tmp_path / "state").password(None) == password
    assert (state.path / "password").stat().st_mode & 0o077 == 0


def test_folder_with_other_files_is_neither_used_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StateError, match="not Ocelli's"):
        StateFolder(tmp_path).prepare()
    with pytest.raises(StateError, match="not created by"):
        StateFolder(tmp_path).delete()
    assert (tmp_path / "thesis.txt").exists()


def test_folder_of_a_cluster_that_is_starting_is_not_deleted(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.prepare()
    state.cluster.mkdir()
    with lock_state_folder(state.cluster), pytest.raises(StateError, match=f"process {os.getpid()}"):
        state.delete()
    state.delete()
    assert not state.path.exists()


def test_unreachable_service_is_named() -> None:
    async def call() -> None:
        async with aiohttp.ClientSession() as session:
            service = Service(address="http://127.0.0.1:1", user="demo", password="x")
            await TutorialClient(service, session).call("GET", "/v3/classifiers/a_1")

    with pytest.raises(TutorialError, match=r"127\.0\.0\.1:1"):
        asyncio.run(call())


def test_the_same_credentials_are_kept_from_start_to_start(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    assert load_credentials(file, "demo", "secret") == load_credentials(file, "demo", "secret")


@pytest.mark.slow
def test_another_password_replaces_the_kept_one(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    load_credentials(file, "demo", "old")
    replaced = load_credentials(file, "demo", "new")
    assert (replaced.password_hash.matches("new"), replaced.password_hash.matches("old")) == (True, False)


def test_second_run_on_the_same_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.prepare()
    state.cluster.mkdir()
    with lock_state_folder(state.cluster), pytest.raises(StateError, match="set STATE_DIR"):
        state.refuse_second_run()


def test_printed_command_is_quoted_for_the_shell(tmp_path: Path) -> None:
    service = Service(address="http://127.0.0.1:8080", user="demo", password="a:\"$\u00fc b'")
    picture = tmp_path / "st a te" / "one.png"
    command = service.curl("POST", "/v3/classify", {"images_file": picture, "classifier_ids": "$ID"})
    script = f"ID=digits_1; printf '%s\\n' {command.removeprefix('curl ')}"
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[3:8] == ["demo:a:\"$\u00fc b'", "-F", f"images_file=@{picture}", "-F", "classifier_ids=digits_1"]


@pytest.mark.parametrize(("path", "named"), [(Path("/cache/kube ctl"), True), (None, False)])
def test_kubectl_of_the_cluster_is_named_if_none_is_installed(tmp_path: Path, path: Path | None, named: bool) -> None:
    service = Service(address="http://127.0.0.1:8080", user="demo", password="x")
    assert ("  alias kubectl='/cache/kube ctl'" in describe(service, StateFolder(tmp_path), path)) == named


def built_in(name: str, reason: str | None, **weights: str) -> Classifier:
    condition = {"type": "Stalled", "status": "True", "reason": reason, "message": "the missing file, and other details"}
    return parse_classifier(
        {
            "metadata": {"name": name, "namespace": "ocelli-system"},
            "spec": {"pretrained": {"weights": weights or {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}},
            "status": {"conditions": [condition, {**condition, "type": "Ready", "status": "False"}] if reason else []},
        }
    )


def test_built_in_classifiers_that_wait_for_weights_share_one_line() -> None:
    stalled = [built_in(name, reason) for name, reason in (("food", "TrainingFailed"), ("default", "SourceUnreadable"))]
    said = [text for text in summarise(stalled).values() if text]
    assert len(said) == 1
    assert said[0].startswith("default, food wait for their weights, see docs/pretrained.md; to use the weights that come with")
    assert "kubectl -n ocelli-system delete clf default food, then start again" in said[0]


def test_built_in_classifier_without_its_packaged_weights_is_reported_in_full() -> None:
    summaries = summarise([built_in("explicit", "TrainingFailed", packaged="OpenNSFW")])
    assert "the missing file, and other details" in summaries["ocelli-system/explicit"]


def test_built_in_classifiers_are_reported_after_all_were_tried() -> None:
    summaries = summarise([built_in("food", "TrainingFailed"), built_in("default", None)])
    assert [text for text in summaries.values() if text] == ["created"]


def test_faulty_weights_of_a_built_in_classifier_are_reported_in_full() -> None:
    assert "the missing file, and other details" in summarise([built_in("food", "InvalidData")])["ocelli-system/food"]


def learned(**figures: Any) -> str:
    """The line about a trained classifier."""
    ready = {"type": "Ready", "status": "True", "reason": "Served"}
    classifier = parse_classifier(
        {
            "metadata": {"name": "dogs", "namespace": "ocelli-demo"},
            "spec": {"classes": []},
            "status": {"servedRevision": "0123456789", "conditions": [ready], **figures},
        }
    )
    return summarise([classifier])["ocelli-demo/dogs"]


def test_accuracy_is_printed_with_its_interval() -> None:
    figures = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "0.967"}, "judgedImages": 100}
    assert learned(**figures) == "Served, revision 0123456789, accuracy 0.93 (0.87 to 0.97, 100 images)"


def test_accuracy_of_an_earlier_release_is_printed_without_an_interval() -> None:
    assert learned(accuracy="0.934") == "Served, revision 0123456789, accuracy 0.934"


def test_concurrent_starts_use_different_ports() -> None:
    with claim_port(None) as first, claim_port(None) as second:
        assert first != second


def test_reserved_port_is_refused() -> None:
    with claim_port(None) as port, pytest.raises(RunError, match="set PORT to another port"), claim_port(port):
        pass


def test_samples_of_an_earlier_version_get_photographs_and_test_set(tmp_path: Path) -> None:
    (tmp_path / "tests.zip").write_bytes(b"the last file of an earlier version")
    write_samples(tmp_path)
    assert {path.name for path in tmp_path.glob("*-test.zip")} == {"one-test.zip", "zero-test.zip"}
    assert all(image_kind((tmp_path / name).read_bytes()) is ImageKind.JPEG for name in PHOTOGRAPHS)


def test_tutorial_begins_with_a_photograph_for_the_built_in_classifiers(tmp_path: Path) -> None:
    service = Service(address="http://127.0.0.1:8080", user="demo", password="secret")
    commands = [line for line in describe(service, StateFolder(tmp_path), None).splitlines() if line.startswith("curl")]
    assert f"images_file=@{tmp_path}/samples/china.jpg" in commands[0]
    assert "classifier_ids=default,food,explicit" in commands[0]
