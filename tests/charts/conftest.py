"""Helm and kubeconform, built before the first test; a cluster to install into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from tests.charts.releases import HELM, Release, parse, render_resources
from tests.charts.schemas import KUBECONFORM
from tests.go_programs import build_before_tests, find_or_skip


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session, {"helm": HELM, "kubeconform": KUBECONFORM})


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_or_skip(HELM)


@pytest.fixture(scope="session")
def kubeconform() -> Path:
    return find_or_skip(KUBECONFORM)


@pytest.fixture(scope="module")
def prepared(helm: Path, local_cluster: SyncClusterAccess) -> SyncClusterAccess:
    """A cluster with the resources of Ocelli and a StorageClass."""
    local_cluster.apply(parse(render_resources(helm)))
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "charts-test"}}
    local_cluster.apply({**storage, "provisioner": "example.com/none"})
    return local_cluster


@pytest.fixture
def release(helm: Path, prepared: SyncClusterAccess, namespace: str) -> Iterator[Release]:
    release = Release(helm, prepared, namespace)
    yield release
    # Objects outside the namespace have the release's name, and would conflict with the next release.
    release.call("uninstall", "ocelli", "--ignore-not-found")
