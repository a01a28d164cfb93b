"""GPUs on a real scheduler: who asks for one gets a node that has it or hears why not, and nothing moves when nodes change."""

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

pytestmark = pytest.mark.cluster

RESOURCE = "example.com/gpu"
# Images are nothing to the process node; operator and API server take them seriously all the same.
SETTINGS = {
    "OCELLI_GPU_RESOURCE": RESOURCE,
    "OCELLI_TRAINER_GPU_IMAGE": "ocelli-trainer:latest-cuda",
    "OCELLI_INFERENCE_GPU_IMAGE": "ocelli-inference:latest-cuda",
}


class Gpus:
    """What the node offers, beside what it offers by itself."""

    def __init__(self, cluster: SyncClusterAccess) -> None:
        self._cluster = cluster
        (self._node,) = [item["metadata"]["name"] for item in cluster.list_objects("/api/v1/nodes")]

    def offer(self, count: int | None) -> None:
        offered = {RESOURCE: None if count is None else str(count)}
        status = {"status": {"capacity": offered, "allocatable": offered}}
        self._cluster.kubectl("patch", "node", self._node, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.fixture
def gpus(local_cluster: SyncClusterAccess) -> Iterator[Gpus]:
    """None at first, and none afterwards."""
    found = Gpus(local_cluster)
    found.offer(None)
    yield found
    found.offer(None)


def start(operator: OperatorProcess) -> OperatorProcess:
    operator.start()
    operator.wait_until_leading()
    return operator


def limits(manifest: dict[str, Any]) -> dict[str, str]:
    """Of the one container of a Job or a Deployment."""
    found: dict[str, str] = manifest["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits", {})
    return found


def test_auto_trains_where_there_is_a_gpu_and_serves_without_one(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    gpus.offer(1)
    start(build_operator(**SETTINGS))
    scene.apply(scene.build())
    scene.wait_until_ready()
    (job,) = scene.jobs()
    assert limits(job)[RESOURCE] == "1"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "ocelli-trainer:latest-cuda"
    (trainer,) = scene.pods("training")
    assert (trainer["metadata"]["labels"]["ocelli.dev/accelerator"], trainer["status"]["phase"]) == ("GPU", "Succeeded")
    (deployment,) = scene.deployments()
    assert RESOURCE not in limits(deployment)


def test_a_training_that_asks_for_a_gpu_waits_for_one_in_the_schedulers_words(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    start(build_operator(**SETTINGS))
    scene.apply(scene.build(training={"accelerator": "GPU"}))
    ready = scene.wait_for_condition("Ready", "Unschedulable")
    assert f"Insufficient {RESOURCE}" in ready["message"]
    assert ready["message"].endswith("or set spec.training.accelerator to CPU")
    assert scene.condition("Stalled") == {}
    gpus.offer(1)
    # The node has one by name only: a trainer that was promised a GPU does not go on without.
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed")
    assert "the accelerator is GPU, but PyTorch finds no GPU" in stalled["message"]
    scene.patch('{"spec": {"training": {"accelerator": "CPU"}}}')
    assert scene.wait_until_ready()["attempt"] == 2


def test_a_node_that_comes_or_goes_moves_nothing_and_counts_for_the_next_revision(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess]
) -> None:
    operator = start(build_operator(**SETTINGS))
    scene.sources.hold()
    scene.apply(scene.build(serving={"accelerator": "Auto"}))
    scene.wait_for_condition("Trained", "Training")
    (job,) = scene.jobs()
    gpus.offer(2)
    scene.sources.release()
    # The node has GPUs by name only: a server that holds one does not go on without, whoever chose it.
    scene.cluster.wait_for("it says so", lambda: "PyTorch finds no GPU" in scene.condition("Ready").get("message", ""))
    # Nothing was known of the node's GPUs when the Job was made, but when the Deployment was.
    assert [item["metadata"]["uid"] for item in scene.jobs()] == [job["metadata"]["uid"]]
    assert RESOURCE not in limits(job)
    (before,) = scene.deployments()
    assert limits(before)[RESOURCE] == "1"
    gpus.offer(None)
    passes = 'ocelli_reconciles_total{result="unchanged"}'
    seen = operator.metric(passes)
    # Somebody looks at the Classifier again, and a successor without any memory as well.
    scene.kubectl("annotate", "clf", "colours", "looked=again")
    scene.cluster.wait_for("it was looked at", lambda: operator.metric(passes) > seen)
    operator.stop()
    start(operator)
    scene.cluster.wait_for("it was looked at again", lambda: operator.metric(passes) > 0)
    (after,) = scene.deployments()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    scene.apply(scene.build(model={"seed": 1}, serving={"accelerator": "Auto"}))
    scene.wait_until_ready()
    scene.cluster.wait_for("one Deployment is left", lambda: len(scene.deployments()) == 1)
    assert RESOURCE not in limits(scene.deployments()[0])


def test_a_server_that_asks_for_a_gpu_hears_why_it_waits_while_the_old_one_serves(
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
    """An operator that has its rights in the test's namespace only, hence none on nodes."""
    scene.kubectl("create", "serviceaccount", OPERATOR)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.kubectl("create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR}", account)
    scene.kubectl("create", "rolebinding", "lease", f"--role={OPERATOR}", account)
    return scene.cluster.service_account_kubeconfig(scene.namespace, OPERATOR)


def test_an_operator_that_may_not_see_nodes_trains_without_a_gpu(
    scene: Scene, gpus: Gpus, build_operator: Callable[..., OperatorProcess], namespaced_kubeconfig: Path
) -> None:
    gpus.offer(1)
    watch = {"OCELLI_WATCH_SECONDS": "1-1", "OCELLI_STALE_WATCH_LIMIT_SECONDS": "5"}
    operator = start(build_operator(kubeconfig=namespaced_kubeconfig, **SETTINGS, **watch))
    scene.apply(scene.build())
    scene.wait_until_ready()
    assert RESOURCE not in limits(scene.jobs()[0])
    assert operator.log.read_text().count("watch is forbidden") == 1
    # It knows that it needs no nodes to live; GPUs can be had by asking for them.
    assert operator.health() == 200
    scene.patch('{"spec": {"model": {"seed": 1}, "training": {"accelerator": "GPU"}}}')
    scene.cluster.wait_for("a Job asks for a GPU", lambda: any(RESOURCE in limits(job) for job in scene.jobs()))
