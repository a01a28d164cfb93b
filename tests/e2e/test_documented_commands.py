"""The commands of the pages for administrators, on an installation of their own, in the order in which one would need them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented_commands import CHECKOUT, bash_blocks
from tests.e2e.cluster import NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import connect
from tests.e2e.shell import Shell
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import Ocelli

TENANT = "team-a"
"""The namespace of the pages' examples."""


@pytest.fixture(scope="module")
def installation(new_cluster: Cluster, samples: Path) -> Iterator[Ocelli]:
    try:
        new_cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE)
        new_cluster.install("gateway.service.type=NodePort")
        yield connect(new_cluster.kubeconfig, new_cluster.address(), samples)
    finally:
        new_cluster.run("kubectl", "delete", "namespace", "--ignore-not-found", TENANT)
        new_cluster.remove()


@pytest.fixture
def shell(installation: Ocelli, new_cluster: Cluster, tmp_path: Path) -> Shell:
    """In a folder that looks like the checkout with its environment."""
    (tmp_path / "charts").symlink_to(CHECKOUT / "charts")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return Shell(kubeconfig=new_cluster.kubeconfig, folder=tmp_path)


def users(installation: Ocelli, secret: str = "ocelli-credentials") -> list[str]:
    document = json.loads(installation.kubectl("get", "secret", secret, f"--namespace={SYSTEM_NAMESPACE}", "-o", "json"))
    return sorted(document["data"])


def test_logs_of_operator_and_training_are_lines_of_json(installation: Ocelli, shell: Shell) -> None:
    with installation.client() as client:
        identity = create(client, installation)
        wait_for_status(client, identity)
        (block,) = bash_blocks("docs/operations.md", "Troubleshooting")
        operator, training = block.splitlines()
        shell.run(operator)
        in_namespace = training.replace("NAME", identity.replace("_", "-")).replace("logs", f"logs --namespace={NAMESPACE}", 1)
        events = [json.loads(line)["event"] for line in shell.run(in_namespace).stdout.splitlines()]
        client.delete(f"/v3/classifiers/{identity}")
    assert "training.started" in events


def test_the_gateways_runbook_asks_each_gateway(installation: Ocelli, shell: Shell) -> None:
    (block,) = bash_blocks("docs/runbooks.md", "OcelliGatewayErrors")
    assert "pod/ocelli-gateway" in shell.run(block).stdout


def test_the_runbook_of_network_policies_lists_none_here(installation: Ocelli, shell: Shell) -> None:
    (block,) = bash_blocks("docs/runbooks.md", "OcelliNetworkPoliciesBlocked")
    # grep ends with 1 where it finds nothing.
    assert shell.run(f"{block.rstrip()} || [ $? = 1 ]").stdout == ""


def test_the_upgrade_keeps_the_values(installation: Ocelli, shell: Shell) -> None:
    values = ("helm", "get", "values", "ocelli", f"--namespace={SYSTEM_NAMESPACE}", "--output=json")
    before = shell.run(" ".join(values)).stdout
    (block,) = bash_blocks("docs/operations.md", "Upgrading")
    shell.run(block)
    assert shell.run(" ".join(values)).stdout == before


def test_users_are_added_and_removed_one_by_one(installation: Ocelli, shell: Shell) -> None:
    add, remove, remove_the_first = bash_blocks("docs/tenants.md", "Credential sets")
    added = shell.run(add)
    assert "API key" in added.stderr
    assert len(users(installation)) == 2
    shell.run(remove)
    assert users(installation) == ["initial.json"]
    shell.run(add.partition("\n")[2])
    shell.run(remove_the_first)
    assert "initial.json" not in users(installation)


def test_namespaces_enforce_the_restricted_standard(installation: Ocelli, shell: Shell) -> None:
    (block,) = bash_blocks("docs/install.md", "Namespaces and rights")
    shell.run(block)
    labels = installation.kubectl("get", "namespace", TENANT, "-o", "jsonpath={.metadata.labels}")
    assert json.loads(labels)["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_own_secret_replaces_the_generated_key(installation: Ocelli, shell: Shell) -> None:
    (block,) = bash_blocks("docs/install.md", "The generated API key")
    shell.run(block)
    assert users(installation, "users")
    releases = installation.kubectl("get", "secrets", f"--namespace={SYSTEM_NAMESPACE}", "-l", "owner=helm", "-o", "name")
    assert len(releases.splitlines()) == 1


def test_stored_objects_are_deleted_by_hand(installation: Ocelli, shell: Shell) -> None:
    _, by_hand = bash_blocks("docs/install.md", "Uninstalling")
    store = ("exec", f"--namespace={SYSTEM_NAMESPACE}", "deployment/ocelli-store", "--", "sh", "-c")
    installation.kubectl(*store, "mkdir -p /data/objects/tenants")
    shell.run(by_hand)
    assert "tenants" not in installation.kubectl(*store, "ls /data/objects")
