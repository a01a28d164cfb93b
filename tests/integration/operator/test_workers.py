"""Two Pods that train a network together on the local cluster, over gloo."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TRAINED_SECONDS = 400.0
LOSS_BOUND = 0.001
"""Between the losses of one worker and of two: the order of sums of 32-bit floats differs."""
RECIPE = {"strategy": "FineTune", "epochs": 1, "batchSize": 8}


def build(scene: Scene, name: str, workers: int, **recipe: Any) -> Manifest:
    """A red image is in the other class, so that not every loss is zero."""
    # The node has two cores, and an inference server may run already.
    requests = {"requests": {"cpu": "100m", "memory": "512Mi"}}
    training = {"workers": workers, "accelerator": "CPU", "resources": requests}
    return scene.build(name, second="mixed", model={**RECIPE, **recipe}, training=training)


def wait_until_trained(scene: Scene, name: str) -> dict[str, Any]:
    """The report of the training."""

    def trained() -> bool:
        return scene.condition("Trained", name).get("status") == "True"

    try:
        scene.cluster.wait_for(f"{name} is trained", trained, timeout_seconds=TRAINED_SECONDS)
    except TimeoutError as error:
        error.add_note(scene.kubectl("describe", "clf", name))
        raise
    status = scene.status(name)
    folder = scene.store_folder / "tenants" / scene.namespace / "artifacts" / status["classifierID"]
    report: dict[str, Any] = json.loads((folder / status["history"][0]["revision"] / "report.json").read_text())
    return report


def jobs_of(scene: Scene, name: str) -> list[Manifest]:
    return [job for job in scene.jobs() if job["metadata"]["labels"]["ocelli.dev/classifier"] == name]


def pods_of(scene: Scene, name: str) -> dict[int, list[Manifest]]:
    """The Pods of each worker."""
    found: dict[int, list[Manifest]] = {}
    for pod in scene.pods("training"):
        if pod["metadata"]["labels"]["ocelli.dev/classifier"] == name:
            worker = int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
            found.setdefault(worker, []).append(pod)
    return found


def find_process(address: str) -> int:
    """The trainer whose Pod has that IP address."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"POD_IP={address}".encode() in environment and arguments[1:3] == [b"-m", b"ocelli_training"]:
            return int(folder.name)
    raise AssertionError(f"no trainer has the address {address}")


def test_two_workers_give_the_accuracy_of_one(scene: Scene, operator: OperatorProcess) -> None:
    assert operator.process is not None
    scene.apply(build(scene, "one", 1))
    one = wait_until_trained(scene, "one")
    scene.apply(build(scene, "two", 2))
    two = wait_until_trained(scene, "two")
    (job,) = jobs_of(scene, "two")
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 2, 2)
    pods = pods_of(scene, "two")
    assert {worker: [pod["status"]["phase"] for pod in found] for worker, found in pods.items()} == {
        0: ["Succeeded"],
        1: ["Succeeded"],
    }
    assert two["evaluation"]["accuracy"] == one["evaluation"]["accuracy"]
    tuned, alone = two["recipe"]["fineTuning"], one["recipe"]["fineTuning"]
    assert tuned["bestEpochs"] == alone["bestEpochs"]
    assert alone["linearLoss"] > 0.01
    for loss in ("linearLoss", "tunedLoss"):
        assert tuned[loss] == pytest.approx(alone[loss], abs=LOSS_BOUND)


@pytest.mark.skipif("OCELLI_LONG_TESTS" not in os.environ, reason="takes minutes; `make test-long` runs it")
def test_a_worker_that_dies_ends_all_and_they_resume(scene: Scene, operator: OperatorProcess) -> None:
    assert operator.process is not None
    scene.apply(build(scene, "two", 2, epochs=2, batchSize=2))
    checkpoint = "a checkpoint of a finished network"

    def saved() -> list[str]:
        return [path for path in scene.stored() if path.endswith("/checkpoint.json")]

    scene.cluster.wait_for(checkpoint, saved, timeout_seconds=TRAINED_SECONDS)
    before = pods_of(scene, "two")
    (victim,) = before[1]
    # Not SIGKILL: that counts as out of memory, which is not tried again.
    os.kill(find_process(victim["status"]["podIP"]), signal.SIGSEGV)
    wait_until_trained(scene, "two")
    after = pods_of(scene, "two")
    ended = {pod["metadata"]["name"]: pod for found in after.values() for pod in found}
    codes = [
        ended[pods[0]["metadata"]["name"]]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        for _, pods in sorted(before.items())
    ]
    assert codes == [66, 128 + signal.SIGSEGV]
    assert {worker: len(found) for worker, found in after.items()} == {0: 2, 1: 2}
    assert scene.status("two")["attempt"] == 1
    first = max(after[0], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))["metadata"]["name"]
    log = [json.loads(line) for line in scene.kubectl("logs", first).splitlines() if line.startswith("{")]
    (resumed,) = [line for line in log if line["event"] == "tuning.resumed"]
    assert (resumed["networks"], resumed["steps"]) != (0, 0)
    message = ended[before[0][0]["metadata"]["name"]]["status"]["containerStatuses"][0]["state"]["terminated"]["message"]
    assert "worker 1 (of 0 to 1) has closed its connections, and does not respond" in message

    def completed() -> bool:
        (job,) = jobs_of(scene, "two")
        return any(condition["type"] == "Complete" for condition in job["status"].get("conditions", ()))

    scene.cluster.wait_for("the Job is complete", completed)
