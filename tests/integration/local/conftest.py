"""Fixtures of the local cluster's own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.manifest import Manifest
from tests.integration.local.pods import PodHandle, build_pod


@pytest.fixture
def run_pod(local_cluster: SyncClusterAccess, namespace: str) -> Callable[..., PodHandle]:
    """Apply a Pod of these containers in the test's namespace; keyword arguments are fields of its spec."""

    def run(*containers: Manifest, name: str = "pod", **fields: Any) -> PodHandle:
        local_cluster.apply(build_pod(*containers, name=name, **fields), namespace=namespace)
        return PodHandle(local_cluster, namespace, name)

    return run
