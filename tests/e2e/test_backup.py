"""Backup and restore as docs/operations.md has it: all is taken away, and what answered before answers again, untrained."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NAMESPACE, SYSTEM_NAMESPACE
from tests.product.instance import Ocelli, wait_for
from tests.product.test_rollout import create, wait_until_ready

OPERATOR = ("deployment/ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}")
STORE = ("deployment/ocelli-store", f"--namespace={SYSTEM_NAMESPACE}")
PACK = "import sys, tarfile; tarfile.open(fileobj=sys.stdout.buffer, mode='w|').add('/data/objects')"
UNPACK = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/')"


@pytest.fixture(scope="module")
def restored(ocelli: Ocelli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a classifier answered before and after, and the Jobs that there are after."""
    archive: Path = tmp_path_factory.mktemp("backup") / "store.tar"
    with ocelli.client() as client:
        identity = create(client, ocelli)
        wait_until_ready(client, identity)
        before = classify(ocelli, identity)
        classifiers = backup_classifiers(ocelli)
        with archive.open("wb") as file:
            subprocess.run(build_exec(ocelli, PACK), stdout=file, check=True, timeout=120)
        try:
            destroy(ocelli)
            with archive.open("rb") as file:
                subprocess.run(build_exec(ocelli, UNPACK), stdin=file, check=True, timeout=120)
            ocelli.kubectl("create", "-f", "-", input_text=classifiers)
        finally:
            ocelli.kubectl("scale", *OPERATOR, "--replicas=1")
        wait_until_ready(client, identity)
        yield {
            "before": before,
            "after": classify(ocelli, identity),
            "jobs": ocelli.kubectl("get", "jobs", "-o", "name").split(),
        }
        client.delete(f"/v3/classifiers/{identity}")


def build_exec(ocelli: Ocelli, program: str) -> tuple[str, ...]:
    """A program of Python in the store's Pod, with standard input and output."""
    return (*ocelli.kubectl_command, "exec", "--stdin", *STORE, "--", "python", "-c", program)


def backup_classifiers(ocelli: Ocelli) -> str:
    """What the docs do with jq."""
    listed = json.loads(ocelli.kubectl("get", "classifiers", "-o", "json"))
    for item in listed["items"]:
        del item["status"]
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            item["metadata"].pop(field, None)
    return json.dumps(listed)


def destroy(ocelli: Ocelli) -> None:
    """The operator stops, all Classifiers and their children go, and with them every stored byte: as in a new cluster."""
    ocelli.kubectl("scale", *OPERATOR, "--replicas=0")
    ocelli.kubectl(
        "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}"
    )
    ocelli.kubectl("delete", "classifiers", "--all")
    wait_for("all children are gone", lambda: not ocelli.kubectl("get", "deployments,jobs", "-o", "name"))
    ocelli.kubectl("exec", *STORE, "--", "sh", "-c", f"rm -r /data/objects/tenants/{NAMESPACE} /data/objects/backbones")


def classify(ocelli: Ocelli, identity: str) -> Any:
    with ocelli.client() as client:
        answer = client.post(
            "/v3/classify",
            data={"classifier_ids": identity, "threshold": "0.0"},
            files={"images_file": (ocelli.samples / "test-one.png").read_bytes()},
        )
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)["images"][0]["classifiers"]


def test_a_restored_classifier_answers_as_before(restored: dict[str, Any]) -> None:
    assert restored["after"] == restored["before"]


def test_a_restored_classifier_is_not_trained_again(restored: dict[str, Any]) -> None:
    assert restored["jobs"] == []
