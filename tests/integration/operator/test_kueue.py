"""Trainings in queues of Kueue: its own custom resources, controllers and scheduler, built from its Go module, on the local
cluster. Only its webhooks are missing, so that a Job's label and `suspend` are what the operator made them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from ocelli_local import SyncClusterAccess
from tests.go_programs import call_go, find_or_skip
from tests.integration.operator.conftest import KUEUE, OPERATOR, SYSTEM_NAMESPACE
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

API_VERSION = "kueue.x-k8s.io/v1beta2"
QUEUE = "trainings"
QUEUED = {"queueName": QUEUE}
READERS = "ocelli-kueue"


def make_object(kind: str, name: str, **fields: Any) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, **fields}


def make_reader_rights() -> list[Manifest]:
    """What `kueue.enabled` of the chart grants."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": READERS}
    rule = {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]}
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": READERS},
            "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM_NAMESPACE}],
        },
    ]


class Kueue:
    """Kueue with one queue of the test's namespace."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cluster_queue = scene.namespace

    def set_up(self, *, cpus: int) -> None:
        """A quota of so many CPUs, on nodes that the flavor selects."""
        quotas = {"cpu": cpus, "memory": "64Gi"}
        resources = [{"name": name, "nominalQuota": quota} for name, quota in quotas.items()]
        flavor = {"name": self._cluster_queue, "resources": resources}
        group = {"coveredResources": list(quotas), "flavors": [flavor]}
        spec = {"namespaceSelector": {}, "resourceGroups": [group]}
        self._scene.cluster.apply(
            [
                make_object("ResourceFlavor", self._cluster_queue, spec={"nodeLabels": {"kubernetes.io/os": "linux"}}),
                make_object("ClusterQueue", self._cluster_queue, spec=spec),
            ]
        )

    def add_queue(self) -> None:
        self._scene.apply(make_object("LocalQueue", QUEUE, spec={"clusterQueue": self._cluster_queue}))

    def activate(self, active: bool) -> None:
        (name,) = self._scene.kubectl("get", "workloads", "-o", "name").split()
        self._scene.kubectl("patch", name, "--type=merge", "-p", f'{{"spec": {{"active": {str(active).lower()}}}}}')


@pytest.fixture(scope="module")
def kueue_installed(local_cluster: SyncClusterAccess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    program = find_or_skip(KUEUE)
    folder = call_go(os.environ, KUEUE.module_folder, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue").strip()
    resources = f"{folder}/config/components/crd/bases"
    local_cluster.kubectl("apply", "--server-side", "-f", resources)
    local_cluster.kubectl("wait", "--for=condition=Established", "-f", resources)
    local_cluster.apply(make_reader_rights())
    environment = {**os.environ, "KUBECONFIG": str(local_cluster.kubeconfig)}
    with (tmp_path_factory.mktemp("kueue") / "kueue.log").open("wb") as log:
        process = subprocess.Popen([program], env=environment, stdout=log, stderr=log)
    yield
    process.terminate()
    process.wait()
    local_cluster.kubectl("delete", "clusterrolebinding,clusterrole", READERS)
    for kind in ("workloads", "localqueues", "clusterqueues", "resourceflavors"):
        # Their finalizers are removed by the controller, which has ended.
        for item in local_cluster.list_objects(f"/apis/{API_VERSION}/{kind}"):
            place = ("-n", item["metadata"]["namespace"]) if "namespace" in item["metadata"] else ()
            patch = '{"metadata": {"finalizers": null}}'
            name = f"{kind}.kueue.x-k8s.io/{item['metadata']['name']}"
            local_cluster.kubectl(*place, "patch", name, "--type=merge", "-p", patch, check=False)
    local_cluster.kubectl("delete", "--wait=false", "-f", resources)


@pytest.fixture
def kueue(kueue_installed: None, scene: Scene) -> Kueue:
    return Kueue(scene)


@pytest.fixture
def running(build_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    operator = build_operator()
    operator.start()
    operator.wait_until_leading()
    return operator


def wait_for_message(scene: Scene, words: str) -> dict[str, Any]:
    scene.cluster.wait_for(f"`Trained` says {words}", lambda: words in scene.condition("Trained").get("message", ""))
    return scene.condition("Trained")


@pytest.mark.usefixtures("running")
def test_a_training_waits_with_kueues_message_and_runs_once_admitted(scene: Scene, kueue: Kueue) -> None:
    kueue.set_up(cpus=0)
    kueue.add_queue()
    scene.apply(scene.build(training=QUEUED))
    trained = wait_for_message(scene, "insufficient quota for cpu")
    assert trained["reason"] == "Queued"
    assert f'waits in queue "{QUEUE}" of Kueue' in trained["message"]
    assert scene.condition("Stalled") == {}
    assert not scene.pods("training")
    (job,) = scene.jobs()
    kueue.set_up(cpus=4)
    status = scene.wait_until_ready()
    assert status["attempt"] == 1
    (after,) = scene.jobs()
    # Kueue changed the Job, and the operator left it alone.
    assert after["metadata"]["uid"] == job["metadata"]["uid"]
    assert after["spec"]["suspend"] is False
    assert after["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}


@pytest.mark.usefixtures("running")
def test_a_queue_that_does_not_exist_is_named_with_the_remedy(scene: Scene, kueue: Kueue) -> None:
    kueue.set_up(cpus=4)
    scene.apply(scene.build(training=QUEUED))
    trained = wait_for_message(scene, f"LocalQueue {QUEUE} doesn't exist")
    assert trained["message"].endswith("correct spec.training.queueName, or have the queue set up")
    kueue.add_queue()
    scene.wait_until_ready()


@pytest.mark.usefixtures("running")
def test_a_training_that_kueue_stops_is_queued_again_and_never_fails(scene: Scene, kueue: Kueue) -> None:
    kueue.set_up(cpus=4)
    kueue.add_queue()
    scene.sources.hold()
    scene.apply(scene.build(training={**QUEUED, "backoffLimit": 0}))
    scene.wait_for_condition("Trained", "Training")
    kueue.activate(False)
    trained = wait_for_message(scene, "set spec.active of Workload")
    assert trained["reason"] == "Queued"
    assert scene.condition("Stalled") == {}
    scene.sources.release()
    kueue.activate(True)
    assert scene.wait_until_ready()["attempt"] == 1
