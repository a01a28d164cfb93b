"""Backup, a new cluster, restore: the exact commands of docs/operations.md."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.documented_commands import bash_blocks
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import connect
from tests.e2e.shell import Shell
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import CHECKOUT, Ocelli


@dataclass(frozen=True, kw_only=True)
class Restored:
    """The answers of the classifiers before and after, and the new cluster's trainings."""

    before: list[Any]
    after: list[Any]
    trainings: str
    key: str
    """The API key in the new cluster's Secret."""


@pytest.fixture(scope="module")
def restored(ocelli: Ocelli, new_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    folder = tmp_path_factory.mktemp("backup")
    (folder / "charts").symlink_to(CHECKOUT / "charts")
    backup, restore = bash_blocks("docs/operations.md", "Backup and restore")
    with ocelli.client() as client:
        identities = [create(client, ocelli) for _ in range(2)]
        for identity in identities:
            wait_for_status(client, identity)
        before = [classify(ocelli, identity) for identity in identities]
        Shell(kubeconfig=Path(os.environ["KUBECONFIG"]), folder=folder).run(backup)
        for identity in identities:
            client.delete(f"/v3/classifiers/{identity}")
    try:
        Shell(kubeconfig=new_cluster.kubeconfig, folder=folder).run(restore)
        target = connect(new_cluster.kubeconfig, new_cluster.address(), ocelli.state_dir)
        # The old key opens the new installation.
        installation = dataclasses.replace(target, password=ocelli.password)
        with installation.client() as client:
            for identity in identities:
                wait_for_status(client, identity)
        yield Restored(
            before=before,
            after=[classify(installation, identity) for identity in identities],
            trainings=installation.kubectl("get", "jobs,pods", "-l", "ocelli.dev/component=training", "-o", "name"),
            key=target.password,
        )
    finally:
        new_cluster.remove()


def classify(ocelli: Ocelli, identity: str) -> Any:
    with ocelli.client() as client:
        answer = client.post(
            "/v3/classify",
            data={"classifier_ids": identity, "threshold": "0.0"},
            files={"images_file": (ocelli.samples / "test-one.png").read_bytes()},
        )
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)["images"][0]["classifiers"]


def test_every_classifier_answers_in_the_new_cluster_as_before(restored: Restored) -> None:
    assert restored.after == restored.before


def test_no_classifier_is_trained_in_the_new_cluster(restored: Restored) -> None:
    assert restored.trainings == ""


def test_the_api_key_is_that_of_the_restored_secret(restored: Restored, ocelli: Ocelli) -> None:
    assert restored.key == ocelli.password
