"""The embedded store as a process, asking a real API server whom tokens belong to."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_storage.embedded_store import EmbeddedStore
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

pytestmark = pytest.mark.cluster

CHECKOUT = Path(__file__).resolve().parents[3]
REVIEWER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "test-store"},
    "rules": [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}],
}
"""The chart's, and no more."""


@pytest.fixture
def store_url(local_cluster: SyncClusterAccess, namespace: str, tmp_path: Path) -> Iterator[str]:
    """A store whose administrator is the ServiceAccount `operator` of a namespace of the test's own."""
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        for name in ("store", "operator")
    ]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"test-store-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-store"},
        "subjects": [{"kind": "ServiceAccount", "name": "store", "namespace": namespace}],
    }
    local_cluster.apply([*accounts, REVIEWER, binding])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "KUBECONFIG": str(local_cluster.service_account_kubeconfig(namespace, "store")),
        "OCELLI_STORE_FOLDER": str(tmp_path / "volume"),
        "OCELLI_STORE_ADMINISTRATORS": f"system:serviceaccount:{namespace}:operator",
        "OCELLI_STORE_HOST": "127.0.0.1",
        "OCELLI_STORE_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "ocelli_store"], env={**os.environ, **environment}, cwd=CHECKOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        local_cluster.delete(binding)


def open_as(cluster: SyncClusterAccess, url: str, folder: Path, namespace: str, account: str, audience: str) -> ObjectStore:
    """The store with a token as a projected volume would have it."""
    done = cluster.kubectl("create", "token", account, f"--namespace={namespace}", f"--audience={audience}")
    file = folder / f"token-{namespace}-{account}"
    file.write_text(done.stdout)
    return EmbeddedStore(url, file)


def test_a_namespaces_token_opens_its_part_and_no_other(
    local_cluster: SyncClusterAccess, store_url: str, namespace: str, tmp_path: Path
) -> None:
    operator = open_as(local_cluster, store_url, tmp_path, namespace, "operator", "ocelli-store")
    tenant = open_as(local_cluster, store_url, tmp_path, "default", "default", "ocelli-store")
    asyncio.run(operator.put("tenants/team-b/x", b"abc"))
    asyncio.run(tenant.put("tenants/default/x", b"abc"))
    with pytest.raises(StoreUnavailableError, match="403 system:serviceaccount:default:default may not read"):
        asyncio.run(tenant.get("tenants/team-b/x"))


def test_a_token_for_reading_does_not_write(local_cluster: SyncClusterAccess, store_url: str, tmp_path: Path) -> None:
    reader = open_as(local_cluster, store_url, tmp_path, "default", "default", "ocelli-store-read")
    with pytest.raises(StoreUnavailableError, match="403 "):
        asyncio.run(reader.put("tenants/default/x", b"abc"))


def test_a_token_for_the_api_server_opens_nothing(local_cluster: SyncClusterAccess, store_url: str, tmp_path: Path) -> None:
    stranger = open_as(local_cluster, store_url, tmp_path, "default", "default", "https://kubernetes.default.svc")
    with pytest.raises(StoreUnavailableError, match=r"401 .*another audience"):
        asyncio.run(stranger.get("tenants/default/x"))
