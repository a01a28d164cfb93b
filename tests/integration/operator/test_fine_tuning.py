"""Fine-tuning in Pods that are evicted, on a real control plane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocelli_storage.layout import PROGRESS
from ocelli_training.tuning_checkpoint import POINTER
from tests.integration.operator.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("operator")]

EVICTIONS = 2
TUNING_SECONDS = 600.0
Place = tuple[int, int]
"""How many networks are finished, and how many steps of the next one are done."""


def find_places(scene: Scene, pod: str, event: str) -> list[Place]:
    """Where a trainer was when it logged an event."""
    # The Pod may have no container yet.
    lines = [json.loads(line) for line in scene.kubectl("logs", pod, check=False).splitlines() if line.startswith("{")]
    return [(line.get("networks", 0), line.get("steps", 0)) for line in lines if line["event"] == event]


def find_progress(scene: Scene) -> dict[str, Any] | None:
    """What the progress in the store says of the last step, which leaves a checkpoint if its Pod is evicted."""
    folder = scene.store_folder / "tenants" / scene.namespace
    stored = [json.loads((folder / path).read_text()) for path in scene.stored() if path.endswith(f"/{PROGRESS}")]
    return next((progress["fineTuning"] for progress in stored if "fineTuning" in progress), None)


def wait_for_trainer(scene: Scene, earlier: list[str]) -> str:
    """Wait until a Pod other than the earlier ones has done a step; returns its name."""
    before = find_progress(scene) if earlier else None

    def find() -> str | None:
        new = [name for name in scene.names(scene.pods("training")) if name not in earlier]
        if not new or find_progress(scene) in (None, before):
            return None
        return next((name for name in new if not earlier or find_places(scene, name, "tuning.resumed")), None)

    return scene.cluster.wait_for("a trainer tunes", find, timeout_seconds=TUNING_SECONDS)


def evict(scene: Scene, pod: str, folder: Path) -> Place:
    """Evict a Pod, as a drain of its node does; returns the place of the checkpoint that it leaves."""
    file = folder / f"{pod}.json"
    file.write_text(json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}))
    scene.kubectl("create", "--raw", f"/api/v1/namespaces/{scene.namespace}/pods/{pod}/eviction", "-f", str(file))
    scene.cluster.wait_for(
        f"{pod} is gone", lambda: pod not in scene.names(scene.pods("training")), timeout_seconds=TUNING_SECONDS
    )
    (pointer,) = [path for path in scene.stored() if path.endswith(f"/{POINTER}")]
    state = json.loads((scene.store_folder / "tenants" / scene.namespace / pointer).read_text())["state"]
    return len(state["bestEpochs"]), state.get("run", {}).get("updates", 0)


def test_a_training_goes_on_from_its_checkpoint_after_each_eviction(scene: Scene, tmp_path: Path) -> None:
    # Any failure would end the training: an eviction is none.
    recipe, training = {"strategy": "FineTune", "epochs": 2, "batchSize": 8}, {"backoffLimit": 0}
    scene.apply(scene.build(model=recipe, training=training))
    pods: list[str] = []
    saved: list[Place] = []
    resumed: list[Place] = []
    for number in range(EVICTIONS + 1):
        pods.append(wait_for_trainer(scene, pods))
        resumed += find_places(scene, pods[-1], "tuning.resumed")
        if number < EVICTIONS:
            saved.append(evict(scene, pods[-1], tmp_path))
    scene.cluster.wait_for("it is trained", lambda: "servedRevision" in scene.status(), timeout_seconds=TUNING_SECONDS)
    assert resumed == saved
    assert (0, 0) < saved[0] < saved[1]
    (job,) = scene.jobs()
    assert job["status"]["succeeded"] == 1
