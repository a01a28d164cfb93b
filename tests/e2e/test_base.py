"""Without Helm: `kubectl apply -k deploy/base`, and a user as its `kustomization.yaml` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented_commands import bash_blocks
from tests.e2e.cluster import COMPONENTS, NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import CHECKOUT, Ocelli

USER = ("anna", "secret-of-anna")


@pytest.fixture(scope="module")
def plain(new_cluster: Cluster, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocelli]:
    """The base with the images of this run, and its gateway at a port of the node."""
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "kustomization.yaml").write_text(json.dumps(build_overlay(new_cluster, folder)))
    try:
        new_cluster.create_namespaces(NAMESPACE)
        new_cluster.run("kubectl", "apply", "--server-side", "-k", str(folder))
        add = (sys.executable, "-m", "ocelli_gateway.credentials", "add", "--user", USER[0], "--namespace", NAMESPACE)
        words = subprocess.run(
            (*add, "--owner", USER[0], "--password-stdin"), input=f"{USER[1]}\n", capture_output=True, text=True, check=True
        )
        new_cluster.run("kubectl", "apply", "--server-side", "--field-manager=anna", "-f", "-", input_text=words.stdout)
        deployments = [f"deployment/ocelli-{name}" for name in ("store", "operator", "gateway")]
        for deployment in deployments:
            new_cluster.run("kubectl", "rollout", "status", deployment, f"--namespace={SYSTEM_NAMESPACE}", "--timeout=180s")
        kubectl = ("kubectl", f"--kubeconfig={new_cluster.kubeconfig}", f"--namespace={NAMESPACE}")
        address = new_cluster.address()
        yield Ocelli(address=address, user=USER[0], password=USER[1], state_dir=samples, kubectl_command=kubectl)
    finally:
        new_cluster.run("kubectl", "delete", "--ignore-not-found", "-k", str(folder))
        new_cluster.remove()


def build_overlay(cluster: Cluster, folder: Path) -> dict[str, object]:
    service = {"op": "replace", "path": "/spec/type", "value": "NodePort"}
    variables = [
        {"name": f"OCELLI_{name.upper()}_IMAGE", "value": f"{cluster.prefix}{name}:{cluster.tag}"}
        for name in ("trainer", "inference")
    ]
    operator = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ocelli-operator", "namespace": SYSTEM_NAMESPACE},
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "env": variables}]}}},
    }
    names = [{"name": f"ocelli-{name}", "newName": f"{cluster.prefix}{name}", "newTag": cluster.tag} for name in COMPONENTS]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(CHECKOUT / "deploy" / "base", folder.resolve())],
        "images": names,
        "patches": [
            {"target": {"kind": "Service", "name": "ocelli-gateway"}, "patch": json.dumps([service])},
            {"patch": json.dumps(operator)},
        ],
    }


def test_the_plain_base_trains_and_serves(plain: Ocelli) -> None:
    with plain.client() as client:
        identity = create(client, plain)
        assert len(wait_for_status(client, identity)["classes"]) == 2


def test_the_pages_command_keeps_namespace_claim_and_classifiers(plain: Ocelli, new_cluster: Cluster) -> None:
    with plain.client() as client:
        identity = create(client, plain)
        wait_for_status(client, identity)
    (block,) = bash_blocks("docs/install.md", "Without Helm")
    new_cluster.run("bash", "-eux", "-o", "pipefail", "-c", block)
    system = f"--namespace={SYSTEM_NAMESPACE}"
    assert plain.kubectl("get", "deployments", system, "-o", "name") == ""
    assert plain.kubectl("get", "persistentvolumeclaim/ocelli-store", system)
    assert identity.replace("_", "-") in plain.kubectl("get", "classifiers", "-o", "name")
