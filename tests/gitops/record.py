"""Rewrites `objects/*.yaml`: Classifiers in every state, as the API server had them while an operator, trainers and
inference servers worked on a local cluster. `python -m tests.gitops.record`; takes a few minutes.

A watch keeps every version of every object, so that short states are recorded. The objects are written unchanged.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ocelli_api.classifier import Manifest
from ocelli_local.cluster_process import ClusterProcess
from tests.gitops.health_program import CHECKOUT
from tests.gitops.states import OBJECTS_FOLDER, STATES, build_health_test, find_condition
from tests.installed_backbone import install_backbone
from tests.integration.operator.conftest import OPERATOR, SYSTEM_NAMESPACE
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.sources import ExampleSources
from tests.networks import COLOURS, PLAIN_IMAGES, onnx_bytes
from tests.shipped_rights import NAMESPACE_FILE, load_own_roles, load_rights

NAMESPACE = "team-a"
HEALTH_TEST = CHECKOUT / "deploy/gitops/argocd/resource_customizations/ocelli.dev/Classifier/health_test.yaml"
STATE_SECONDS = 180.0
MANUAL = {"approval": "Manual"}

Predicate = Callable[[Manifest], bool]


class Watch:
    """Every version of every Classifier in the namespace, in the order of the API server's events."""

    def __init__(self, scene: Scene) -> None:
        self._versions: dict[str, list[Manifest]] = defaultdict(list)
        self._taken: dict[str, int] = defaultdict(int)
        arguments = ("--watch", "--output-watch-events", "--show-managed-fields", "-o", "json")
        self._process = scene.cluster.start_kubectl("-n", scene.namespace, "get", "clf", *arguments)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            classifier = json.loads(line)["object"]
            self._versions[classifier["metadata"]["name"]].append(classifier)

    def take(self, name: str, predicate: Predicate) -> Manifest:
        """Wait for the next version that matches."""
        deadline = time.monotonic() + STATE_SECONDS
        while time.monotonic() < deadline:
            versions = self._versions[name]
            while self._taken[name] < len(versions):
                version = versions[self._taken[name]]
                self._taken[name] += 1
                if predicate(version):
                    return version
            time.sleep(0.05)
        raise TimeoutError(
            f"Classifier {name} did not reach the state; its last version is {json.dumps(self._versions[name][-1:], indent=1)}"
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Recorder:
    """Writes versions of the namespace's Classifiers to files."""

    def __init__(self, scene: Scene, operator: Callable[..., OperatorProcess]) -> None:
        self.scene = scene
        self._build_operator = operator
        self._watch = Watch(scene)
        self._running: OperatorProcess | None = None
        self.recorded: set[str] = set()

    def record(self, state: str, name: str, predicate: Predicate) -> Manifest:
        classifier = self._watch.take(name, predicate)
        text = yaml.safe_dump(classifier, sort_keys=False, width=120, allow_unicode=True)
        (OBJECTS_FOLDER / f"{state}.yaml").write_text(text)
        self.recorded.add(state)
        print(f"recorded: {state}", flush=True)
        return classifier

    def start_operator(self, **settings: str) -> None:
        self._running = self._build_operator(**settings)
        self._running.start()
        self._running.wait_until_leading()

    def stop_operator(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def close(self) -> None:
        self.stop_operator()
        self._watch.close()


def seen(classifier: Manifest) -> bool:
    return bool(classifier["status"]["observedGeneration"] == classifier["metadata"]["generation"])


def unseen(classifier: Manifest) -> bool:
    return not seen(classifier)


def has(condition_type: str, reason: str, status: str | None = None) -> Predicate:
    """The operator has observed the current spec, and the condition has the reason."""

    def fits(classifier: Manifest) -> bool:
        condition = find_condition(classifier, condition_type)
        return seen(classifier) and condition.get("reason") == reason and status in (None, condition["status"])

    return fits


def no_node_for_servers(classifier: Manifest) -> bool:
    # The trainer waits for a node as well, if other Pods are scheduled first.
    return has("Ready", "Unschedulable")(classifier) and has("Trained", "ArtifactStored")(classifier)


def scaling(classifier: Manifest) -> bool:
    return has("Ready", "RollingOut")(classifier) and classifier["spec"]["serving"]["replicas"] == 2


def record_first_life(recorder: Recorder) -> None:
    """From an object that no operator has observed to a served one, and Classifiers that fail."""
    scene = recorder.scene
    scene.apply(scene.build())
    recorder.record("created", "colours", unseen)
    recorder.start_operator()
    recorder.record("adopted", "colours", has("Trained", "Queued"))
    recorder.record("training", "colours", has("Trained", "Training"))
    recorder.record("rolling-out", "colours", has("Ready", "RollingOut"))
    recorder.record("ready", "colours", has("Ready", "Served"))
    scene.apply(scene.build("large-training", training={"resources": {"requests": {"cpu": "9000"}}}))
    scene.apply(scene.build("few", second="few"))
    scene.apply(scene.build("missing", second="missing"))
    scene.apply(scene.build("short-training", training={"activeDeadlineSeconds": 1}))
    scene.apply(scene.build("no-gpu", training={"accelerator": "GPU"}))
    scene.apply(scene.build("no-node", serving={"nodeSelector": {"no": "such-node"}}))
    scene.apply(build_pretrained("no-weights", f"{scene.sources.address}/network.onnx"))
    scene.apply(build_pretrained("pretrained", "file:///network.onnx"))
    recorder.record("training-unschedulable", "large-training", has("Ready", "Unschedulable"))
    recorder.record("invalid-data", "few", has("Stalled", "InvalidData"))
    recorder.record("source-unreadable", "missing", has("Stalled", "SourceUnreadable"))
    recorder.record("training-failed", "short-training", has("Stalled", "TrainingFailed"))
    recorder.record("gpu-not-offered", "no-gpu", has("Stalled", "GPUNotOffered"))
    recorder.record("pretrained-without-weights", "no-weights", has("Stalled", "SourceUnreadable"))
    recorder.record("rollout-unschedulable", "no-node", no_node_for_servers)
    recorder.record("pretrained-ready", "pretrained", has("Ready", "Served"))
    scene.patch('{"spec": {"retrainNonce": 1}}', "few")
    recorder.record("tried-again", "few", has("Reconciling", "Training"))


def record_changes(recorder: Recorder) -> None:
    """Changes of a served Classifier."""
    scene = recorder.scene
    first = scene.status()["servedRevision"]
    scene.apply(scene.build(model={"seed": 1}))
    recorder.record("retraining", "colours", has("Ready", "Retraining"))
    recorder.record("retrained-rolling-out", "colours", has("Ready", "RollingOut"))
    recorder.record("retrained", "colours", has("Ready", "Served"))
    scene.patch(f'{{"spec": {{"pinnedRevision": "{first}"}}}}')
    recorder.record("pinned", "colours", has("Ready", "Served"))
    scene.patch('{"spec": {"pinnedRevision": "0123456789"}}')
    recorder.record("pinned-to-nothing", "colours", has("Stalled", "RevisionNotFound"))
    scene.patch('{"spec": {"pinnedRevision": null}}')
    scene.wait_until_ready()
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    recorder.record("scaling", "colours", scaling)
    recorder.record("scaled", "colours", has("Ready", "Served"))
    scene.kubectl("delete", "pods", "--wait=false", "-l", "ocelli.dev/classifier=colours,ocelli.dev/component=inference")
    recorder.record("server-lost", "colours", has("Available", "NoServerReady"))
    scene.wait_until_ready()
    scene.apply(scene.build(second="few"))
    recorder.record("retraining-failed", "colours", has("Stalled", "InvalidData"))


def record_gates(recorder: Recorder) -> None:
    """Revisions that do not serve because of `spec.promotion`, and an approval."""
    scene, gate = recorder.scene, {"maxAccuracyDrop": "0.05"}
    scene.apply(scene.build_tested("gated", promotion=gate))
    scene.wait_until_ready("gated")
    scene.apply(scene.build_tested("gated", swapped=True, promotion=gate))
    recorder.record("regressed", "gated", has("Stalled", "Regressed"))
    scene.patch('{"spec": {"promotion": {"minAccuracy": "0.9"}}}', "gated")
    recorder.record("below-minimum", "gated", has("Stalled", "BelowMinimumAccuracy"))
    renamed = scene.build_tested("gated", promotion=gate)
    for item in (*renamed["spec"]["classes"], *renamed["spec"]["evaluation"]["classes"]):
        item["name"] += " things"
    scene.apply(renamed)
    recorder.record("not-comparable", "gated", has("Stalled", "NotComparable"))
    scene.apply(scene.build_tested("gated", model={"seed": 1}, promotion=MANUAL))
    waiting = recorder.record("awaiting-approval", "gated", has("Ready", "AwaitingApproval"))
    revision = waiting["status"]["history"][0]["revision"]
    scene.patch(json.dumps({"spec": {"approvedRevision": revision}}), "gated")
    recorder.record("approved", "gated", has("Ready", "Served"))


def record_checks(recorder: Recorder) -> None:
    """Checks without a training."""
    scene = recorder.scene
    scene.apply(scene.build("unhurried", suspend=True))
    recorder.record("checking-data", "unhurried", has("Trained", "CheckingData"))
    recorder.record("suspended", "unhurried", has("Ready", "Suspended"))
    scene.apply(scene.build("careless", second="few", suspend=True))
    recorder.record("suspended-with-bad-data", "careless", has("Stalled", "InvalidData"))


def record_fine_tuning(recorder: Recorder) -> None:
    """A tuned network that does not improve on the linear heads."""
    scene, recipe = recorder.scene, {"strategy": "FineTune", "epochs": 1, "learningRate": 1e-6, "batchSize": 8}
    scene.apply(scene.build("tuned", model=recipe))
    recorder.record("fine-tuning", "tuned", lambda item: "fineTuning" in item.get("status", {}).get("progress", {}))
    recorder.record("not-improved", "tuned", has("Ready", "Served"))


def record_loss(recorder: Recorder) -> None:
    """A served artifact is removed from the store and restored."""
    scene = recorder.scene
    artifacts = scene.store_folder / "tenants" / NAMESPACE / "artifacts" / scene.status("pretrained")["classifierID"]
    artifacts.rename(scene.store_folder / "lost")
    recorder.record("artifact-lost", "pretrained", has("Ready", "ArtifactLost"))
    (scene.store_folder / "lost").rename(artifacts)
    scene.wait_until_ready("pretrained")


def record_ends(recorder: Recorder) -> None:
    """Classifiers that wait for a quota or an operator, are deleted, or never become available."""
    scene = recorder.scene
    scene.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    scene.cluster.wait_for(
        "the quota is counted", lambda: scene.kubectl("get", "quota", "none", "-o", "jsonpath={.status.hard}") or None
    )
    scene.apply(scene.build("no-room"))
    recorder.record(
        "training-over-quota", "no-room", lambda item: "exceeded quota" in find_condition(item, "Trained").get("message", "")
    )
    scene.kubectl("delete", "quota", "none")
    record_queued(recorder)
    recorder.stop_operator()
    scene.patch('{"spec": {"serving": {"replicas": 3}}}', "pretrained")
    recorder.record("edited-unseen", "pretrained", unseen)
    scene.apply(scene.build(model={"seed": 2}))
    recorder.record("corrected-unseen", "colours", unseen)
    scene.kubectl("delete", "clf", "--all", "--cascade=foreground")
    recorder.record("deleting", "colours", lambda item: "deletionTimestamp" in item["metadata"])
    recorder.start_operator(OCELLI_ROLLOUT_DEADLINE_SECONDS="6")
    scene.apply(scene.build("too-late", serving={"nodeSelector": {"no": "such-node"}}))
    recorder.record("rollout-failed", "too-late", has("Stalled", "RolloutFailed"))


def record_queued(recorder: Recorder) -> None:
    """A training Job for a queue, in a cluster where Kueue has not admitted it."""
    recorder.scene.apply(recorder.scene.build("queued", training={"queueName": "trainings"}))
    recorder.record("training-queued", "queued", lambda item: "of Kueue" in find_condition(item, "Trained").get("message", ""))


def build_pretrained(name: str, weights: str) -> Manifest:
    pretrained = {"weights": {"url": weights}, "labels": {"url": "file:///labels.txt"}, "images": PLAIN_IMAGES}
    spec = {"pretrained": pretrained, "training": {"backoffLimit": 0}}
    return {"apiVersion": "ocelli.dev/v1alpha1", "kind": "Classifier", "metadata": {"name": name}, "spec": spec}


def write_network(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "network.onnx").write_bytes(onnx_bytes())
    (folder / "labels.txt").write_text("\n".join(COLOURS))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ocelli-record-") as folder:
        record_all(Path(folder))
    # Files of states that no longer exist.
    for path in OBJECTS_FOLDER.glob("*.yaml"):
        if path.stem not in STATES:
            path.unlink()
    HEALTH_TEST.write_text(yaml.safe_dump(build_health_test(), sort_keys=False, width=10_000, allow_unicode=True))


def record_all(folder: Path) -> None:
    store_folder = folder / "store"
    store_folder.mkdir()
    write_network(folder / "files")
    backbone = str(install_backbone(store_folder))
    sources = ExampleSources()
    process = ClusterProcess(folder / "cluster", ["--not-durable"])
    cluster = process.start().open()
    recorder: Recorder | None = None
    try:
        kubeconfig = prepare_namespace(cluster)
        scene = Scene(cluster=cluster, namespace=NAMESPACE, sources=sources, store_folder=store_folder)

        def build_operator(**settings: str) -> OperatorProcess:
            environment: dict[str, Any] = {
                "OCELLI_STORE_URL": store_folder.as_uri(),
                "OCELLI_BACKBONES": backbone,
                "OCELLI_FILE_SOURCES_FOLDER": str(folder / "files"),
                # So that missing artifacts are noticed at once.
                "OCELLI_SWEEP_INTERVAL_SECONDS": "1",
                **settings,
            }
            log = Path(tempfile.gettempdir()) / "ocelli-record-operator.log"
            return OperatorProcess(kubeconfig=kubeconfig, namespace=NAMESPACE, log=log, environment=environment)

        recorder = Recorder(scene, build_operator)
        for part in (
            record_first_life,
            record_changes,
            record_gates,
            record_checks,
            record_fine_tuning,
            record_loss,
            record_ends,
        ):
            part(recorder)
        missing = sorted(STATES.keys() - recorder.recorded)
        if missing:
            sys.exit(f"not recorded: {', '.join(missing)}")
    finally:
        if recorder is not None:
            recorder.close()
        cluster.close()
        process.stop()
        sources.close()


def prepare_namespace(cluster: Any) -> Path:
    """The CRD, the operator's ServiceAccount with its rights, and the namespace; returns the operator's kubeconfig."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(CHECKOUT / "crds" / "classifier.yaml")
    cluster.apply(NAMESPACE_FILE)
    cluster.apply([*load_rights("operator"), *load_own_roles("operator", NAMESPACE)])
    kubeconfig: Path = cluster.service_account_kubeconfig(SYSTEM_NAMESPACE, OPERATOR)
    return kubeconfig


if __name__ == "__main__":
    main()
