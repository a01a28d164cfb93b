"""Uninstalling by the commands of docs/install.md, while the operator works and after it died."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import connect, create_in_vain, wait_until_failed
from tests.product.instance import CHECKOUT, wait_for
from tests.product.test_rollout import create, wait_until_ready

OF_EVERY_NAMESPACE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
PASSING = ("events", "events.events.k8s.io")
"""Kubernetes forgets them by itself."""


@pytest.fixture(scope="module", params=["working", "dead"])
def left(request: pytest.FixtureRequest, new_cluster: Cluster, samples: Path) -> Iterator[set[str]]:
    """What is there after an installation with a served and a failed classifier was taken away."""
    before = list_objects(new_cluster)
    try:
        new_cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE)
        new_cluster.install_and_test("gateway.service.type=NodePort")
        ocelli = connect(new_cluster.kubeconfig, new_cluster.address(), samples)
        with ocelli.client() as client:
            wait_until_ready(client, create(client, ocelli))
            wait_until_failed(client, create_in_vain(client, ocelli))
        if request.param == "dead":
            ocelli.kubectl("scale", "deployment/ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}", "--replicas=0")
            ocelli.kubectl(
                *("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=ocelli-operator"),
                f"--namespace={SYSTEM_NAMESPACE}",
            )
        new_cluster.run("bash", "-eux", "-c", read_commands())
        wait_for("the Pods are gone", lambda: "pod/" not in str(list_objects(new_cluster) - before), 60)
        yield list_objects(new_cluster) - before
    finally:
        new_cluster.remove()


def read_commands() -> str:
    """The script of the section on uninstalling."""
    section = (CHECKOUT / "docs" / "install.md").read_text().split("\n## Uninstalling\n")[1]
    script = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert script is not None
    return script.group(1)


def list_objects(cluster: Cluster) -> set[str]:
    """Every object of the namespaces, and of none, but those that Kubernetes makes for itself."""
    found: set[str] = set()
    for namespaced in ("true", "false"):
        kinds = cluster.run("kubectl", "api-resources", "--verbs=list", f"--namespaced={namespaced}", "-o", "name").split()
        asked = ",".join(kind for kind in kinds if kind not in PASSING)
        for namespace in (SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE, "default") if namespaced == "true" else ("default",):
            listed = cluster.run("kubectl", "get", asked, "--namespace", namespace, "--ignore-not-found", "-o", "name")
            found |= {f"{namespace}: {name}" if namespaced == "true" else name for name in listed.split()}
    return found


def test_only_what_the_docs_say_is_kept(left: set[str]) -> None:
    namespaces = (SYSTEM_NAMESPACE, NAMESPACE)
    of_namespaces = {f"{namespace}: {name}" for namespace in namespaces for name in OF_EVERY_NAMESPACE}
    of_namespaces |= {f"namespace/{namespace}" for namespace in namespaces}
    kept = {name for name in left - of_namespaces if not name.startswith("persistentvolume/")}
    assert kept == {
        f"{SYSTEM_NAMESPACE}: persistentvolumeclaim/ocelli-store",
        "customresourcedefinition.apiextensions.k8s.io/classifiers.ocelli.dev",
        "apiservice.apiregistration.k8s.io/v1alpha1.ocelli.dev",
    }
