"""Git and cluster agree once the operator has settled: nothing is shown as different, and applying again undoes nothing.

The examples are applied as kubectl does by default, and as Argo CD does with server-side apply; then each again, by every tool.
Those that train on samples become ready (only two of those applied by Argo CD, to save time). Others, with sources on the
network, settle as far as they can: adopted, with a training Job that waits for a node, or stalled because no GPU is offered.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import API_VERSION, Manifest
from ocelli_local import SyncClusterAccess
from ocelli_quickstart.samples import write_samples
from tests.few_samples import write_few_samples
from tests.gitops.health_program import CHECKOUT
from tests.gitops.states import find_condition
from tests.integration.operator.conftest import (  # noqa: F401 (fixtures)
    backbone,
    operator_kubeconfig,
    store_folder,
)
from tests.integration.operator.operator_process import OperatorProcess
from tests.shipped_rights import load_own_roles

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EXAMPLES = sorted((CHECKOUT / "crds" / "examples").glob("*.yaml"))
CLIENT_SIDE = ()
ARGO_CD = ("--server-side", "--field-manager=argocd-controller", "--force-conflicts")
FLUX = ("--server-side", "--field-manager=kustomize-controller", "--force-conflicts")
WAYS: dict[str, tuple[str, ...]] = {"kubectl": CLIENT_SIDE, "argo-cd": ARGO_CD}
"""How the examples were applied: flags of kubectl."""
READY = {"kubectl": {"digits", "local-files", "one-class", "sized", "smallest"}, "argo-cd": {"digits", "sized"}}
"""By way: the examples that are trained and served."""
LEARNS, WAITS = "by-{way}", "by-{way}-waiting"
"""Names of namespaces."""
CASES = [(way, path) for way in WAYS for path in EXAMPLES]
CHILDREN = "jobs,deployments,services,horizontalpodautoscalers,poddisruptionbudgets,networkpolicies"
ID_LABEL = "ocelli.dev/classifier-id"
SETTLE_SECONDS = 400.0
NO_NODE = '{"requests": {"cpu": "9000"}}'
LITTLE = '{"requests": {"cpu": "50m", "memory": "128Mi"}}'
"""Two settings of `OCELLI_TRAINER_RESOURCES`."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A cluster with operators that have settled the examples."""

    cluster: SyncClusterAccess
    operators: dict[str, OperatorProcess]
    """One for the namespaces where trainers find a node, one for the others; by the namespaces' pattern."""

    def operator(self, namespace: str) -> OperatorProcess:
        return self.operators[WAITS if namespace.endswith("-waiting") else LEARNS]

    def jobs_started(self, namespace: str) -> float:
        return self.operator(namespace).metric("ocelli_training_jobs_started_total")

    def get(self, namespace: str, name: str) -> Manifest:
        found = self.cluster.get(API_VERSION, "Classifier", name, namespace=namespace)
        assert found is not None
        return found

    def is_settled(self, namespace: str, name: str) -> bool:
        classifier = self.get(namespace, name)
        if classifier["status"]["observedGeneration"] != classifier["metadata"]["generation"]:
            return False
        return find_condition(classifier, "Ready").get("reason") in ("Served", "Unschedulable", "GPUNotOffered")

    def wait_until_settled(self, namespace: str, name: str) -> None:
        try:
            self.cluster.wait_for(
                f"{namespace}/{name} is settled", lambda: self.is_settled(namespace, name), timeout_seconds=SETTLE_SECONDS
            )
        except TimeoutError as error:
            error.add_note(json.dumps(self.get(namespace, name)["status"], indent=1))
            raise

    def describe(self, namespace: str, name: str) -> dict[str, Any]:
        """Everything that the operator wrote for a Classifier: its id, its status and its children."""
        classifier = self.get(namespace, name)
        selector = f"ocelli.dev/classifier={name}"
        found = self.cluster.kubectl("-n", namespace, "get", CHILDREN, "-l", selector, "-o", "json").stdout
        children = [
            (item["kind"], item["metadata"]["name"], item["metadata"]["uid"], item["metadata"].get("generation"))
            for item in json.loads(found)["items"]
        ]
        metadata, status = classifier["metadata"], dict(classifier["status"])
        return {
            "id": metadata["labels"][ID_LABEL],
            "uid": metadata["uid"],
            "generation": metadata["generation"],
            # The scheduler's message depends on other objects in the cluster.
            "conditions": [(item["type"], item["status"], item["reason"]) for item in status.pop("conditions")],
            "status": status,
            "children": sorted(children),
        }

    def diff(self, namespace: str, manifest: Manifest, way: tuple[str, ...]) -> str:
        """The output of `kubectl diff`; its exit code shows errors."""
        done = self.cluster.kubectl("-n", namespace, "diff", *way, "-f", "-", input_text=json.dumps(manifest), check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def apply(self, namespace: str, manifest: Manifest, way: tuple[str, ...]) -> None:
        """Apply again; if that changes the object, return when the operator has observed it."""
        name = manifest["metadata"]["name"]
        passes = 'ocelli_reconciles_total{result="unchanged"}'
        operator = self.operator(namespace)
        before, looked = self.get(namespace, name), operator.metric(passes)
        self.cluster.kubectl("-n", namespace, "apply", *way, "-f", "-", input_text=json.dumps(manifest))
        if self.get(namespace, name)["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            self.cluster.wait_for("the operator looked at it", lambda: operator.metric(passes) > looked)


@pytest.fixture(scope="module")
def installation(
    local_cluster: SyncClusterAccess,
    operator_kubeconfig: Path,  # noqa: F811
    store_folder: Path,  # noqa: F811
    backbone: str,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("sync")
    write_samples(folder / "whole-samples")
    write_few_samples(folder / "whole-samples", folder / "samples")
    operators = {}
    for pattern, trainer_resources in ((LEARNS, LITTLE), (WAITS, NO_NODE)):
        namespaces = [pattern.format(way=way) for way in WAYS]
        for namespace in namespaces:
            local_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        # The operator's Lease is in the first one.
        local_cluster.apply(load_own_roles("operator", namespaces[0]))
        operators[pattern] = OperatorProcess(
            kubeconfig=operator_kubeconfig,
            namespace=namespaces[0],
            log=folder / "operator.log",
            environment={
                "OCELLI_NAMESPACES": ",".join(namespaces),
                "OCELLI_STORE_URL": store_folder.as_uri(),
                "OCELLI_BACKBONES": backbone,
                "OCELLI_FILE_SOURCES_FOLDER": str(folder / "samples"),
                "OCELLI_TRAINER_RESOURCES": trainer_resources,
                "OCELLI_INFERENCE_RESOURCES": LITTLE,
            },
        )
    installation = Installation(cluster=local_cluster, operators=operators)
    for operator in operators.values():
        operator.start()
    try:
        for operator in operators.values():
            operator.wait_until_leading()
        for way, path in CASES:
            namespace = find_namespace(way, path)
            local_cluster.kubectl("-n", namespace, "apply", *WAYS[way], "-f", "-", input_text=json.dumps(load_example(path)))
        for way, path in CASES:
            installation.wait_until_settled(find_namespace(way, path), load_example(path)["metadata"]["name"])
        yield installation
    finally:
        for operator in operators.values():
            operator.stop()
        # Their servers would occupy the node during later tests. None are created in a namespace that is being deleted.
        namespaces = [pattern.format(way=way) for pattern in operators for way in WAYS]
        local_cluster.kubectl("delete", "namespace", *namespaces, "--wait=false")
        for namespace in namespaces:
            local_cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")


def find_namespace(way: str, path: Path) -> str:
    """The namespace of an applied example."""
    return (LEARNS if path.stem in READY[way] else WAITS).format(way=way)


def load_example(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


def tracked_by_argo_cd(manifest: Manifest) -> Manifest:
    """With the annotation that Argo CD adds."""
    tracked = copy.deepcopy(manifest)
    annotations = tracked["metadata"].setdefault("annotations", {})
    annotations["argocd.argoproj.io/tracking-id"] = f"dogs:ocelli.dev/Classifier:team-a/{manifest['metadata']['name']}"
    return tracked


def tracked_by_flux(manifest: Manifest) -> Manifest:
    """With the labels that Flux adds."""
    tracked = copy.deepcopy(manifest)
    labels = tracked["metadata"].setdefault("labels", {})
    labels |= {"kustomize.toolkit.fluxcd.io/name": "dogs", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    return tracked


every_case = pytest.mark.parametrize(("way", "path"), CASES, ids=[f"{way} {path.stem}" for way, path in CASES])


@every_case
def test_a_settled_example_shows_no_difference_from_its_manifest(installation: Installation, way: str, path: Path) -> None:
    assert installation.diff(find_namespace(way, path), load_example(path), WAYS[way]) == ""


@every_case
def test_applying_an_example_again_changes_nothing_of_the_operator(installation: Installation, way: str, path: Path) -> None:
    manifest, namespace = load_example(path), find_namespace(way, path)
    name = manifest["metadata"]["name"]
    before, started = installation.describe(namespace, name), installation.jobs_started(namespace)
    for again, flags in (
        (manifest, WAYS[way]),
        (tracked_by_argo_cd(manifest), ARGO_CD),
        (tracked_by_flux(manifest), FLUX),
    ):
        installation.apply(namespace, again, flags)
        assert installation.diff(namespace, again, flags) == ""
        assert installation.describe(namespace, name) == before
    assert installation.jobs_started(namespace) == started


@pytest.mark.parametrize("way", WAYS)
def test_the_operator_and_the_applying_user_share_no_field(installation: Installation, way: str) -> None:
    """So server-side apply has no conflicts, and removes nothing that a manifest no longer names."""
    entries = installation.get(LEARNS.format(way=way), "digits")["metadata"]["managedFields"]
    ours = [entry for entry in entries if entry["manager"] == "ocelli-operator"]
    assert [entry["fieldsV1"] for entry in ours if "subresource" not in entry] == [
        {"f:metadata": {"f:labels": {f"f:{ID_LABEL}": {}}}}
    ]
    assert [set(entry["fieldsV1"]) for entry in ours if entry.get("subresource") == "status"] == [{"f:status"}]


def test_a_manifest_may_set_the_id(installation: Installation) -> None:
    namespace = WAITS.format(way="argo-cd")
    manifest = load_example(CHECKOUT / "crds" / "examples" / "pretrained-own.yaml")
    manifest["metadata"] |= {"name": "named", "labels": {ID_LABEL: "birds_7"}}
    installation.cluster.kubectl("-n", namespace, "apply", *ARGO_CD, "-f", "-", input_text=json.dumps(manifest))
    installation.wait_until_settled(namespace, "named")
    assert installation.get(namespace, "named")["status"]["classifierID"] == "birds_7"
    assert installation.diff(namespace, manifest, ARGO_CD) == ""


def test_a_replaced_object_gets_its_id_back_and_is_not_trained_again(installation: Installation) -> None:
    """Argo CD does this with the option `Replace=true`: fields that the manifest does not name are removed."""
    namespace = LEARNS.format(way="kubectl")
    manifest = load_example(CHECKOUT / "crds" / "examples" / "smallest.yaml")
    before = installation.describe(namespace, "smallest")
    installation.cluster.kubectl("-n", namespace, "replace", "-f", "-", input_text=json.dumps(manifest))
    installation.cluster.wait_for(
        "the label is back",
        lambda: ID_LABEL in installation.get(namespace, "smallest")["metadata"].get("labels", {}),
    )
    assert installation.describe(namespace, "smallest") == before
