"""Faults around the operator never delete data that is needed, and never affect other tenants."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Manifest
from tests.integration.operator.conftest import CHECKOUT, OPERATOR
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.shipped_rights import OPERATOR_CLUSTER_ROLE, OPERATOR_LEASE_ROLE

NO_NODE = {"resources": {"requests": {"cpu": "9000"}}}
"""A training that never starts; these tests do not need it."""
QUICK_WATCHES = {"OCELLI_WATCH_SECONDS": "1-1", "OCELLI_STALE_WATCH_LIMIT_SECONDS": "5"}


def adopt(scene: Scene, name: str = "colours") -> Path:
    """Create a Classifier with an upload. Returns the path of the upload."""
    scene.apply(scene.build(name, training=NO_NODE))
    return store_upload(scene, name)


def store_upload(scene: Scene, name: str) -> Path:
    scene.cluster.wait_for(f"{name} has an id", lambda: scene.status(name).get("classifierID"))
    path = scene.store_folder / "tenants" / scene.namespace / "uploads" / scene.status(name)["classifierID"] / "a.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"zip")
    return path


def events(scene: Scene, reason: str) -> list[Manifest]:
    text = scene.kubectl("get", "events.events.k8s.io", "-o", "json")
    return [item for item in json.loads(text)["items"] if item["reason"] == reason]


@pytest.fixture
def later_crd(scene: Scene) -> Iterator[None]:
    """A CRD of a later release, in which `dataRetention` has another value."""
    (crd,) = yaml.safe_load_all((CHECKOUT / "crds" / "classifier.yaml").read_text())
    later = copy.deepcopy(crd)
    schema = later["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    schema["dataRetention"]["enum"].append("Archive")
    scene.cluster.apply(later)
    yield
    scene.kubectl("delete", "clf", "--all", "--wait")
    scene.cluster.apply(crd)


@pytest.mark.usefixtures("later_crd")
def test_an_older_operator_leaves_unreadable_objects_unchanged_and_continues_with_others(
    scene: Scene, operator: OperatorProcess
) -> None:
    kept, other = adopt(scene), adopt(scene, "other")
    patch = '{"spec": {"dataRetention": "Archive"}}'
    scene.cluster.wait_for(
        "the API server accepts the new value",
        lambda: "Archive" in scene.kubectl("patch", "clf", "colours", "--type=merge", "-p", patch, "-o", "yaml", check=False),
    )
    scene.cluster.wait_for("an Event reports it", lambda: events(scene, "Unreadable"))
    assert operator.metric('ocelli_unreadable_objects{resource="classifiers"}') == 1.0
    scene.kubectl("delete", "clf", "other", "--wait")
    scene.cluster.wait_for("the data of the deleted one is deleted", lambda: not other.exists())
    operator.stop()
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build("third", training=NO_NODE))
    scene.cluster.wait_for("another one has an id", lambda: scene.status("third").get("classifierID"))
    assert kept.exists()


def test_classifiers_that_disappear_with_the_crd_leave_their_data(scene: Scene, operator: OperatorProcess) -> None:
    kept = [adopt(scene, name) for name in ("colours", "other")]
    crd = CHECKOUT / "crds" / "classifier.yaml"
    try:
        scene.kubectl("delete", "crd", "classifiers.ocelli.dev", "--wait")
        (event,) = scene.cluster.wait_for("an Event reports it", lambda: events(scene, "CRDMissing"))
        assert "their stored data is kept; install the CRD again" in event["note"]
        assert operator.metric("ocelli_crd_missing") == 1.0
    finally:
        scene.cluster.apply(crd)
    scene.cluster.wait_for("the operator has noticed", lambda: "stored data is kept" in operator.log.read_text())
    assert [path.exists() for path in kept] == [True, True]


def test_a_store_of_another_installation_is_not_swept_until_it_is_adopted(
    scene: Scene, build_operator: Callable[..., OperatorProcess]
) -> None:
    owner = scene.store_folder / "installation" / "owner.json"
    owner.parent.mkdir()
    owner.write_text('{"installation": "gone-for-good"}')
    operator = build_operator()
    operator.start()
    operator.wait_until_leading()
    (event,) = scene.cluster.wait_for("an Event reports it", lambda: events(scene, "SweepStopped"))
    assert (event["regarding"]["kind"], event["regarding"]["name"]) == ("Lease", OPERATOR)
    assert "set OCELLI_ADOPT_STORE (in the chart: store.adopt) to gone-for-good" in event["note"]
    assert operator.metric('ocelli_sweep_stopped{reason="OtherInstallation",tenant_namespace=""}') == 1.0
    operator.stop()
    operator.environment["OCELLI_ADOPT_STORE"] = "gone-for-good"
    operator.start()
    lease = scene.kubectl("get", "lease", OPERATOR, "-o", "jsonpath={.metadata.uid}")
    scene.cluster.wait_for("it is adopted", lambda: json.loads(owner.read_text())["installation"] == lease)


def test_deletions_in_a_store_of_another_installation_wait_until_it_is_adopted(
    scene: Scene, build_operator: Callable[..., OperatorProcess]
) -> None:
    installation = scene.store_folder / "installation"
    installation.mkdir()
    (installation / "owner.json").write_text('{"installation": "gone-for-good"}')
    operator = build_operator()
    operator.start()
    operator.wait_until_leading()
    left = adopt(scene)
    scene.kubectl("delete", "clf", "colours", "--wait")
    (event,) = scene.cluster.wait_for("an Event reports it", lambda: events(scene, "DeletionPostponed"))
    assert "set OCELLI_ADOPT_STORE (in the chart: store.adopt) to gone-for-good" in event["note"]
    scene.cluster.wait_for(
        "it is recorded", lambda: any("colours" in path.read_text() for path in installation.glob("deletions/*"))
    )
    assert left.exists()
    operator.stop()
    operator.environment["OCELLI_ADOPT_STORE"] = "gone-for-good"
    operator.start()
    scene.cluster.wait_for("the data is deleted", lambda: not left.exists())
    assert len(events(scene, "DeletionPostponed")) == 1


def store_artifact(scene: Scene, name: str = "colours") -> Path:
    """Create a Classifier with an artifact that the operator has not seen yet. Returns its path."""
    scene.apply(scene.build(name, training=NO_NODE))
    scene.cluster.wait_for(f"{name} is being trained", lambda: scene.status(name).get("trainingRevision"))
    status = scene.status(name)
    folder = scene.store_folder / "tenants" / scene.namespace / "artifacts" / status["classifierID"]
    path = folder / status["trainingRevision"] / "artifact.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"metrics": {"accuracy": 0.9}, "backbone": {"name": "EfficientNetLite0"}}')
    return path


def restore(scene: Scene, name: str, classifier_id: str) -> None:
    """Create a Classifier as from a backup, with its id in its label."""
    manifest = scene.build(name, training=NO_NODE)
    scene.apply({**manifest, "metadata": {"name": name, "labels": {CLASSIFIER_ID_LABEL: classifier_id}}})


class SweepingOperator:
    """An operator that sweeps orphans every second, without a minimum age."""

    def __init__(self, scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
        self._scene = scene
        self.process = build_operator(OCELLI_SWEEP_INTERVAL_SECONDS="1", OCELLI_SWEEP_MINIMUM_AGE_SECONDS="0")

    def start(self) -> None:
        self.process.start()
        self.process.wait_until_leading()

    def wait_until_stopped(self, reason: str, tenant: str = "") -> str:
        """Wait until the sweep is stopped. Returns the note of the Event."""
        metric = f'ocelli_sweep_stopped{{reason="{reason}",tenant_namespace="{tenant}"}}'
        self._scene.cluster.wait_for("the sweep is stopped", lambda: self.process.metric(metric) == 1.0)
        return str(self._scene.cluster.wait_for("an Event reports it", lambda: events(self._scene, "SweepStopped"))[-1]["note"])


@pytest.fixture
def sweeping(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> SweepingOperator:
    return SweepingOperator(scene, build_operator)


def test_a_rebuilt_cluster_with_an_old_store_loses_nothing_and_reconciles_what_it_has(
    scene: Scene, sweeping: SweepingOperator
) -> None:
    sweeping.start()
    kept = store_artifact(scene)
    classifier_id = scene.status()["classifierID"]
    old = scene.kubectl("get", "lease", OPERATOR, "-o", "jsonpath={.metadata.uid}")
    sweeping.process.stop()
    scene.kubectl("delete", "clf", "colours", "--wait")
    scene.kubectl("delete", "lease", OPERATOR)
    sweeping.start()
    note = sweeping.wait_until_stopped("OtherInstallation")
    assert f"the object store belongs to the installation {old}, so this one" in note
    assert f"set OCELLI_ADOPT_STORE (in the chart: store.adopt) to {old}" in note
    scene.apply(scene.build("other", training=NO_NODE))
    scene.cluster.wait_for("another one has an id", lambda: scene.status("other").get("classifierID"))
    assert kept.exists()
    restore(scene, "colours", classifier_id)
    assert scene.wait_for_condition("Trained", "ArtifactStored")["status"] == "True"
    assert not [name for name in scene.names(scene.jobs()) if name.startswith("colours-")]


def test_an_incomplete_restore_loses_nothing_and_delays_no_deletion(scene: Scene, sweeping: SweepingOperator) -> None:
    sweeping.start()
    missing, other = store_artifact(scene), store_artifact(scene, "other")
    ids = {name: scene.status(name)["classifierID"] for name in ("colours", "other")}
    sweeping.process.stop()
    scene.kubectl("delete", "clf", "--all", "--wait")
    restore(scene, "other", ids["other"])
    sweeping.start()
    note = sweeping.wait_until_stopped("ShareExceeded", scene.namespace)
    assert f"no Classifier refers to so many of their stored objects: {scene.namespace} (" in note
    assert "if Classifiers are missing, create or restore them" in note
    scene.kubectl("delete", "clf", "other", "--wait")
    scene.cluster.wait_for("the data of the deleted one is deleted", lambda: not other.exists())
    restore(scene, "colours", ids["colours"])
    stopped = f'ocelli_sweep_stopped{{reason="ShareExceeded",tenant_namespace="{scene.namespace}"}}'
    scene.cluster.wait_for("the sweep continues", lambda: sweeping.process.metric(stopped) == 0.0)
    assert missing.exists()


@pytest.fixture
def tenants(scene: Scene) -> Iterator[list[str]]:
    """Two more namespaces, each with a RoleBinding for the operator's ServiceAccount."""
    names = [f"{scene.namespace}-{part}" for part in ("a", "b")]
    scene.kubectl("create", "serviceaccount", OPERATOR)
    for name in names:
        make_tenant(scene, name)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.kubectl("create", "rolebinding", "lease", f"--role={OPERATOR_LEASE_ROLE}", account)
    scene.kubectl("create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR_CLUSTER_ROLE}", account)
    yield names
    for name in names:
        scene.cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def make_tenant(scene: Scene, name: str) -> None:
    scene.cluster.kubectl("create", "namespace", name)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.cluster.kubectl("-n", name, "create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR_CLUSTER_ROLE}", account)


def test_a_deleted_tenant_namespace_does_not_affect_other_tenants(
    scene: Scene, tenants: list[str], build_operator: Callable[..., OperatorProcess]
) -> None:
    staying, leaving = tenants
    kubeconfig = scene.cluster.service_account_kubeconfig(scene.namespace, OPERATOR)
    namespaces = ",".join([scene.namespace, *tenants])
    operator = build_operator(kubeconfig=kubeconfig, OCELLI_NAMESPACES=namespaces, **QUICK_WATCHES)
    operator.start()
    operator.wait_until_leading()
    scene.cluster.kubectl("delete", "namespace", leaving, "--wait")
    forbidden = f'ocelli_namespace_forbidden{{tenant_namespace="{leaving}"}}'
    scene.cluster.wait_for("the metric names it", lambda: operator.metric(forbidden) == 1.0)
    (event,) = scene.cluster.wait_for("an Event reports it", lambda: events(scene, "NamespaceForbidden"))
    assert f"namespace {leaving}: the operator has no right to read" in event["note"]
    reported_at = time.monotonic()
    scene.cluster.wait_for("an operator with a stale watch would be unhealthy", lambda: time.monotonic() - reported_at > 7)
    assert operator.health() == 200
    operator.stop()
    operator.start()
    operator.wait_until_leading()
    assert has_id_soon(scene, staying)
    make_tenant(scene, leaving)
    scene.cluster.wait_for("it is readable again", lambda: operator.metric(forbidden) == 0.0)
    assert has_id_soon(scene, leaving)


def has_id_soon(scene: Scene, namespace: str) -> Any:
    scene.cluster.apply(scene.build(training=NO_NODE), namespace=namespace)
    command = ("-n", namespace, "get", "clf", "colours", "-o", "jsonpath={.status.classifierID}")
    return scene.cluster.wait_for("it has an id", lambda: scene.cluster.kubectl(*command).stdout)
