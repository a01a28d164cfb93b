"""Faults that a chart cannot detect before installation: the installation fails, and the Pod's message names the remedy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import NAMESPACE, SYSTEM_NAMESPACE, Cluster

CLAIM = "unwritable"


@pytest.fixture
def claim(new_cluster: Cluster) -> Iterator[None]:
    """A claim whose volume belongs to root."""
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": CLAIM}
    host_path = {"path": "/var/local/ocelli-unwritable", "type": "DirectoryOrCreate"}
    volume = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": host_path}
    metadata = {"name": CLAIM, "namespace": SYSTEM_NAMESPACE}
    items = [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": CLAIM}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": {**spec, "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]
    new_cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE)
    new_cluster.run("kubectl", "apply", "-f", "-", input_text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield
    new_cluster.remove()
    new_cluster.run("kubectl", "delete", "persistentvolume", CLAIM)


@pytest.mark.usefixtures("claim")
def test_an_unwritable_volume_fails_the_installation_with_a_remedy_in_the_stores_pod(new_cluster: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        new_cluster.install(f"store.embedded.existingClaim={CLAIM}", timeout="30s")
    pod = ("pods", "--namespace", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/name=ocelli-store")
    assert "the volume at /data cannot be used: Permission denied; mount a writable volume" in new_cluster.run(
        "kubectl", "describe", *pod
    )
