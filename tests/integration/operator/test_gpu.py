"""GPUs with a real scheduler: a Pod that requests one gets a node with it or a reason, and running Pods never move."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from tests.integration.operator.conftest import OPERATOR
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.shipped_rights import OPERATOR_CLUSTER_ROLE, OPERATOR_LEASE_ROLE

pytestmark = pytest.mark.cluster

RESOURCE = "example.com/gpu"
# The process node ignores images; the operator and the API server do not.
SETTINGS = {
    "OCELLI_GPU_RESOURCE": RESOURCE,
    "OCELLI_TRAINER_GPU_IMAGE": "ocelli-trainer:latest-cuda",
    "OCELLI_INFERENCE_GPU_IMAGE": "ocelli-inference:latest-cuda",
}


class Gpus:
    """Additional resources that the node offers."""

    def __init__(self, cluster: SyncClusterAccess) -> None:
        self._cluster = cluster
        (self._node,) = [item["metadata"]["name"] for item in cluster.list_objects("/api/v1/nodes")]

    def offer(self, count: int | None) -> None:
        offered = {RESOURCE: None if count is None else str(count)}
        status = {"status": {"capacity": offered, "allocatable": offered}}
        self._cluster.kubectl("patch", "node", self._node, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.fixture
def gpus(local_cluster: SyncClusterAccess) -> Iterator[Gpus]:
    """The node offers no GPUs before and after the test."""
    found = Gpus(local_cluster)
    found.offer(None)
    yield found
    found.offer(None)


def start(operator: OperatorProcess) -> OperatorProcess:
    operator.start()
    operator.wait_until_leading()
    return operator


def limits(manifest: dict[str, Any]) -> dict[str, str]:
    """The limits of the only container of a Job or Deployment."""
    found: dict[str, str] = manifest["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits", {})
    return found


def test_auto_trains_on_a_gpu_and_serves_without_one(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    gpus.offer(1)
    start(build_operator(**SETTINGS))
    scene.apply(scene.build())
    scene.wait_until_ready()
    job, check = sorted(scene.jobs(), key=lambda item: str(item["metadata"]["name"]))
    assert check["metadata"]["name"] == f"{job['metadata']['name']}-check"
    assert (limits(check).get(RESOURCE), limits(job)[RESOURCE]) == (None, "1")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "ocelli-trainer:latest-cuda"
    (trainer,) = [pod for pod in scene.pods("training") if "ocelli.dev/step" not in pod["metadata"]["labels"]]
    assert (trainer["metadata"]["labels"]["ocelli.dev/accelerator"], trainer["status"]["phase"]) == ("GPU", "Succeeded")
    (deployment,) = scene.deployments()
    assert RESOURCE not in limits(deployment)


def test_a_training_that_requests_a_gpu_waits_with_the_schedulers_message(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    start(build_operator(**SETTINGS))
    scene.apply(scene.build(training={"accelerator": "GPU"}))
    ready = scene.wait_for_condition("Ready", "Unschedulable")
    assert f"Insufficient {RESOURCE}" in ready["message"]
    assert ready["message"].endswith("or set spec.training.accelerator to CPU")
    assert scene.condition("Stalled") == {}
    gpus.offer(1)
    # The GPU is not real: a trainer that was assigned a GPU fails without it.
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed")
    assert "the accelerator is GPU, but PyTorch finds no GPU" in stalled["message"]
    scene.patch('{"spec": {"training": {"accelerator": "CPU"}}}')
    assert scene.wait_until_ready()["attempt"] == 2


def test_a_node_that_appears_or_disappears_only_affects_the_next_revision(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    operator = start(build_operator(**SETTINGS))
    scene.sources.hold()
    scene.apply(scene.build(serving={"accelerator": "Auto"}))
    scene.wait_for_condition("Trained", "Training")
    (job,) = scene.jobs()
    gpus.offer(2)
    scene.sources.release()
    # The GPUs are not real: a server that was assigned one fails without it.
    scene.cluster.wait_for("it says so", lambda: "PyTorch finds no GPU" in scene.condition("Ready").get("message", ""))
    # The node's GPUs were unknown when the Job was created, and known when the Deployment was.
    assert [item["metadata"]["uid"] for item in scene.jobs()] == [job["metadata"]["uid"]]
    assert RESOURCE not in limits(job)
    (before,) = scene.deployments()
    assert limits(before)[RESOURCE] == "1"
    gpus.offer(None)
    passes = 'ocelli_reconciles_total{result="unchanged"}'
    seen = operator.metric(passes)
    # Another reconcile, and one by a new process without memory.
    scene.kubectl("annotate", "clf", "colours", "looked=again")
    scene.cluster.wait_for("it was reconciled", lambda: operator.metric(passes) > seen)
    operator.stop()
    start(operator)
    scene.cluster.wait_for("it was reconciled again", lambda: operator.metric(passes) > 0)
    (after,) = scene.deployments()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    scene.apply(scene.build(model={"seed": 1}, serving={"accelerator": "Auto"}))
    scene.wait_until_ready()
    scene.cluster.wait_for("one Deployment is left", lambda: len(scene.deployments()) == 1)
    assert RESOURCE not in limits(scene.deployments()[0])


def test_a_server_that_requests_a_gpu_waits_with_a_reason_while_the_old_one_serves(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    start(build_operator(**SETTINGS))
    scene.apply(scene.build())
    first = scene.wait_until_ready()
    scene.patch('{"spec": {"serving": {"accelerator": "GPU"}}}')
    ready = scene.wait_for_condition("Ready", "Unschedulable")
    assert f"Insufficient {RESOURCE}" in ready["message"]
    assert ready["message"].endswith("or set spec.serving.accelerator to CPU")
    assert scene.condition("Available")["status"] == "True"
    scene.patch('{"spec": {"serving": {"accelerator": "CPU"}}}')
    assert scene.wait_until_ready()["attempt"] == first["attempt"]


def test_a_gpu_that_the_installation_does_not_offer_names_its_setting(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    gpus.offer(1)
    start(build_operator(OCELLI_GPU_RESOURCE=RESOURCE))
    scene.apply(scene.build(training={"accelerator": "GPU"}))
    stalled = scene.wait_for_condition("Stalled", "GPUNotOffered")
    assert "OCELLI_TRAINER_GPU_IMAGE" in stalled["message"]
    assert scene.jobs() == []
    scene.patch('{"spec": {"training": {"accelerator": "Auto"}}}')
    scene.wait_until_ready()
    assert RESOURCE not in limits(scene.jobs()[0])


@pytest.fixture
def namespaced_kubeconfig(scene: Scene, operator_kubeconfig: Path) -> Path:
    """An operator with rights in the test's namespace only, so it has no right to list nodes."""
    scene.kubectl("create", "serviceaccount", OPERATOR)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.kubectl("create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR_CLUSTER_ROLE}", account)
    scene.kubectl("create", "rolebinding", "lease", f"--role={OPERATOR_LEASE_ROLE}", account)
    return scene.cluster.service_account_kubeconfig(scene.namespace, OPERATOR)


def test_an_operator_without_the_right_to_list_nodes_trains_without_a_gpu(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess], namespaced_kubeconfig: Path
) -> None:
    gpus.offer(1)
    watch = {"OCELLI_WATCH_SECONDS": "1-1", "OCELLI_STALE_WATCH_LIMIT_SECONDS": "5"}
    operator = start(build_operator(kubeconfig=namespaced_kubeconfig, **SETTINGS, **watch))
    scene.apply(scene.build())
    scene.wait_until_ready()
    assert RESOURCE not in limits(scene.jobs()[0])
    assert operator.log.read_text().count("watch is forbidden") == 1
    # Liveness does not need nodes, and an explicit GPU request still works.
    assert operator.health() == 200
    scene.patch('{"spec": {"model": {"seed": 1}, "training": {"accelerator": "GPU"}}}')
    scene.cluster.wait_for("a Job requests a GPU", lambda: any(RESOURCE in limits(job) for job in scene.jobs()))
