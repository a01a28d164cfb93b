"""Checks without a training on a real control plane: what status says of the data, and that no Pod requests a GPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from ocelli_local import SyncClusterAccess
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.test_gpu import RESOURCE, SETTINGS, Gpus

pytestmark = pytest.mark.cluster

GPUS = {"accelerator": "GPU", "resources": {"limits": {RESOURCE: "2", "memory": "4Gi"}}}


class Pods:
    """Every version of every Pod in the namespace."""

    def __init__(self, scene: Scene) -> None:
        self.seen: list[Manifest] = []
        arguments = ("get", "pods", "--watch", "--output-watch-events", "-o", "json")
        self._process = scene.cluster.start_kubectl("-n", scene.namespace, *arguments)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append(json.loads(line)["object"])

    @property
    def with_gpus(self) -> list[str]:
        """The names of Pods that request one, in any container."""
        return [
            pod["metadata"]["name"]
            for pod in self.seen
            for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))
            for quantities in (container.get("resources") or {}).values()
            if any("gpu" in name for name in quantities or ())
        ]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def pods(scene: Scene) -> Iterator[Pods]:
    watch = Pods(scene)
    yield watch
    watch.close()


@pytest.fixture
def gpus(local_cluster: SyncClusterAccess) -> Iterator[Gpus]:
    """The node offers two GPUs during the test."""
    found = Gpus(local_cluster)
    found.offer(2)
    yield found
    found.offer(None)


@pytest.fixture
def gpu_operator(build_operator: Callable[..., OperatorProcess], gpus: Gpus) -> OperatorProcess:
    operator = build_operator(**SETTINGS)
    operator.start()
    operator.wait_until_leading()
    return operator


def source(scene: Scene, file: str) -> list[dict[str, str]]:
    return [{"url": f"{scene.sources.address}/{file}.zip"}]


def with_classes(scene: Scene, files: dict[str, str], **spec: Any) -> Manifest:
    """A Classifier with a class for each file."""
    manifest = scene.build(**spec)
    manifest["spec"]["classes"] = [{"name": name, "examples": source(scene, file)} for name, file in files.items()]
    return manifest


@pytest.mark.usefixtures("gpu_operator")
def test_a_suspended_classifier_says_everything_that_is_wrong_with_its_data_and_no_pod_requests_a_gpu(
    scene: Scene, pods: Pods
) -> None:
    files = {"good": "red", "little": "few", "gone": "missing", "lost": "missing-too", "login": "page", "copy": "red"}
    manifest = with_classes(scene, files, suspend=True, training=GPUS)
    manifest["spec"]["evaluation"] = {"classes": [{"name": "good", "examples": source(scene, "red")}]}
    scene.apply(manifest)
    stalled = scene.wait_for_condition("Stalled", "InvalidData")
    wanted = [
        'class "little" has 3 usable examples of 3 files; add at least 7',
        f'class "gone": {scene.sources.address}/missing.zip: the server answered 404',
        f'class "lost": {scene.sources.address}/missing-too.zip: the server answered 404',
        f'class "login": {scene.sources.address}/page.zip: it is a web page, not a zip',
        'class "good" has 0 usable examples of 12 files: all its images are also in class "copy"',
        'the test images of class "good" (12) are all examples or near duplicates of examples',
    ]
    assert [text for text in wanted if text not in stalled["message"]] == []
    assert scene.condition("DataValid")["status"] == "False"
    (page,) = [path for path in scene.stored() if path.endswith("check/report.html")]
    assert "What has to change before a training" in (scene.store_folder / "tenants" / scene.namespace / page).read_text()
    assert scene.names(scene.jobs()) == [f"colours-{scene.status()['failedRevision']}-1-check"]
    assert len({pod["metadata"]["name"] for pod in pods.seen}) == 1
    assert pods.with_gpus == []


@pytest.mark.usefixtures("gpu_operator")
def test_good_data_is_described_and_no_pod_requests_a_gpu(scene: Scene, pods: Pods) -> None:
    scene.apply(scene.build(suspend=True, training=GPUS))
    ready = scene.wait_for_condition("Ready", "Suspended")
    assert "set spec.suspend to false" in ready["message"]
    found = scene.condition("DataValid")
    assert found["status"] == "True"
    assert found["message"].startswith('every source was read: 24 different images ("red" 12, "blue" 12)')
    assert (scene.condition("Stalled"), scene.condition("Reconciling")) == ({}, {})
    assert (len({pod["metadata"]["name"] for pod in pods.seen}), pods.with_gpus) == (1, [])
    events = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    assert {"CheckStarted", "Checked", "Suspended"} <= {event["reason"] for event in events}


def test_nothing_is_written_while_it_is_suspended(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
    operator = build_operator()
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build(suspend=True))
    scene.wait_for_condition("Ready", "Suspended")
    unchanged = 'ocelli_reconciles_total{result="unchanged"}'
    before, version = operator.metric(unchanged), scene.get()["metadata"]["resourceVersion"]
    scene.kubectl("annotate", "pods", "-l", "ocelli.dev/classifier=colours", "looked=again")
    scene.cluster.wait_for("it was reconciled", lambda: operator.metric(unchanged) > before)
    operator.stop()
    operator.start()
    operator.wait_until_leading()
    scene.cluster.wait_for("it was reconciled again", lambda: operator.metric(unchanged) > 0)
    assert scene.get()["metadata"]["resourceVersion"] == version


@pytest.mark.usefixtures("operator")
def test_the_training_goes_on_with_what_was_checked(scene: Scene) -> None:
    scene.sources.requests.clear()
    scene.apply(scene.build(suspend=True))
    scene.wait_for_condition("Ready", "Suspended")
    assert sorted(scene.sources.requests) == ["/blue.zip", "/red.zip"]
    scene.patch('{"spec": {"suspend": false}}')
    status = scene.wait_until_ready()
    assert status["attempt"] == 1
    assert sorted(scene.sources.requests) == ["/blue.zip", "/red.zip"]
    assert [path for path in scene.stored() if path.startswith("trainings/") and "/image-data/" in path] == []


@pytest.mark.usefixtures("operator")
def test_a_training_in_progress_is_stopped_and_the_served_revision_serves_on(scene: Scene) -> None:
    scene.apply(scene.build())
    served = scene.wait_until_ready()["servedRevision"]
    scene.sources.hold()
    scene.apply(scene.build(model={"seed": 1}))
    scene.wait_for_condition("Trained", "Training")
    scene.patch('{"spec": {"suspend": true}}')
    scene.sources.release()
    scene.wait_for_condition("Ready", "Suspended")
    assert scene.status()["servedRevision"] == served
    assert scene.condition("Available")["status"] == "True"
    unfinished = [job for job in scene.jobs() if not (job["status"].get("succeeded") or job["status"].get("failed"))]
    assert unfinished == []
