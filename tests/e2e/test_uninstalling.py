"""Uninstalling by the commands of docs/install.md, with a running and with a dead operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented_commands import bash_blocks
from tests.e2e.cluster import NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import connect, create_failing
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import wait_for

IN_EVERY_NAMESPACE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
SHORT_LIVED = ("events", "events.events.k8s.io")
"""Kubernetes deletes them by itself."""


@pytest.fixture(scope="module", params=["working", "dead"])
def left(request: pytest.FixtureRequest, new_cluster: Cluster, samples: Path) -> Iterator[set[str]]:
    """The objects that remain after an installation with a served and a failed classifier was removed."""
    before = list_objects(new_cluster)
    try:
        new_cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE)
        new_cluster.install_and_test("gateway.service.type=NodePort")
        ocelli = connect(new_cluster.kubeconfig, new_cluster.address(), samples)
        with ocelli.client() as client:
            wait_for_status(client, create(client, ocelli))
            wait_for_status(client, create_failing(client, ocelli), "failed")
        if request.param == "dead":
            ocelli.kubectl("scale", "deployment/ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}", "--replicas=0")
            ocelli.kubectl(
                *("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=ocelli-operator"),
                f"--namespace={SYSTEM_NAMESPACE}",
            )
        new_cluster.run("bash", "-eux", "-c", bash_blocks("docs/install.md", "Uninstalling")[0])
        wait_for("the Pods are gone", lambda: "pod/" not in str(list_objects(new_cluster) - before), 60)
        yield list_objects(new_cluster) - before
    finally:
        new_cluster.remove()


def list_objects(cluster: Cluster) -> set[str]:
    """All objects of the namespaces and all cluster-scoped ones, except short-lived ones."""
    found: set[str] = set()
    for namespaced in ("true", "false"):
        kinds = cluster.run("kubectl", "api-resources", "--verbs=list", f"--namespaced={namespaced}", "-o", "name").split()
        asked = ",".join(kind for kind in kinds if kind not in SHORT_LIVED)
        for namespace in (SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE, "default") if namespaced == "true" else ("default",):
            listed = cluster.run("kubectl", "get", asked, "--namespace", namespace, "--ignore-not-found", "-o", "name")
            found |= {f"{namespace}: {name}" if namespaced == "true" else name for name in listed.split()}
    return found


def test_only_what_the_docs_say_is_kept(left: set[str]) -> None:
    namespaces = (SYSTEM_NAMESPACE, NAMESPACE)
    of_namespaces = {f"{namespace}: {name}" for namespace in namespaces for name in IN_EVERY_NAMESPACE}
    of_namespaces |= {f"namespace/{namespace}" for namespace in namespaces}
    kept = {name for name in left - of_namespaces if not name.startswith("persistentvolume/")}
    assert kept == {
        f"{SYSTEM_NAMESPACE}: persistentvolumeclaim/ocelli-store",
        "customresourcedefinition.apiextensions.k8s.io/classifiers.ocelli.dev",
        "apiservice.apiregistration.k8s.io/v1alpha1.ocelli.dev",
    }
