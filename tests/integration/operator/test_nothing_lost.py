"""What goes wrong around the operator costs nobody their bytes, and nobody else their operator."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import Manifest
from tests.integration.operator.conftest import CHECKOUT, OPERATOR
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene

NO_NODE = {"resources": {"requests": {"cpu": "9000"}}}
"""A training that never starts: nothing of it matters here."""
QUICK_WATCHES = {"OCELLI_WATCH_SECONDS": "1-1", "OCELLI_BLIND_LIMIT_SECONDS": "5"}


def adopt(scene: Scene, name: str = "colours") -> Path:
    """A Classifier with something stored for it; the path of that."""
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
    """The resource as a later release may have it: `dataRetention` knows another value."""
    (crd,) = yaml.safe_load_all((CHECKOUT / "crds" / "classifier.yaml").read_text())
    later = copy.deepcopy(crd)
    schema = later["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    schema["dataRetention"]["enum"].append("Archive")
    scene.cluster.apply(later)
    yield
    scene.kubectl("delete", "clf", "--all", "--wait")
    scene.cluster.apply(crd)


@pytest.mark.usefixtures("later_crd")
def test_an_older_operator_leaves_what_it_cannot_read_and_goes_on_with_the_rest(
    scene: Scene, operator: OperatorProcess
) -> None:
    kept, other = adopt(scene), adopt(scene, "other")
    patch = '{"spec": {"dataRetention": "Archive"}}'
    scene.cluster.wait_for(
        "the API server takes the new value",
        lambda: "Archive" in scene.kubectl("patch", "clf", "colours", "--type=merge", "-p", patch, "-o", "yaml", check=False),
    )
    scene.cluster.wait_for("it is told", lambda: events(scene, "Unreadable"))
    assert operator.metric('ocelli_unreadable_objects{resource="classifiers"}') == 1.0
    scene.kubectl("delete", "clf", "other", "--wait")
    scene.cluster.wait_for("the bytes of the deleted one are gone", lambda: not other.exists())
    operator.stop()
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build("third", training=NO_NODE))
    scene.cluster.wait_for("another one has an id", lambda: scene.status("third").get("classifierID"))
    assert kept.exists()


def test_classifiers_that_went_with_their_resource_leave_their_bytes(scene: Scene, operator: OperatorProcess) -> None:
    kept = [adopt(scene, name) for name in ("colours", "other")]
    crd = CHECKOUT / "crds" / "classifier.yaml"
    try:
        scene.kubectl("delete", "crd", "classifiers.ocelli.dev", "--wait")
    finally:
        scene.cluster.apply(crd)
    scene.cluster.wait_for("the operator has noticed", lambda: "stored bytes are kept" in operator.log.read_text())
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
    (told,) = scene.cluster.wait_for("it is told", lambda: events(scene, "SweepStopped"))
    assert (told["regarding"]["kind"], told["regarding"]["name"]) == ("Lease", OPERATOR)
    assert "set OCELLI_ADOPT_STORE (in the chart: store.adopt) to gone-for-good" in told["note"]
    assert operator.metric('ocelli_sweep_stopped{reason="OtherInstallation",tenant_namespace=""}') == 1.0
    operator.stop()
    operator.environment["OCELLI_ADOPT_STORE"] = "gone-for-good"
    operator.start()
    lease = scene.kubectl("get", "lease", OPERATOR, "-o", "jsonpath={.metadata.uid}")
    scene.cluster.wait_for("it is adopted", lambda: json.loads(owner.read_text())["installation"] == lease)


@pytest.fixture
def tenants(scene: Scene) -> Iterator[list[str]]:
    """Two more namespaces, in each of which the operator's ServiceAccount has its rights by a RoleBinding."""
    names = [f"{scene.namespace}-{part}" for part in ("a", "b")]
    scene.kubectl("create", "serviceaccount", OPERATOR)
    for name in names:
        make_tenant(scene, name)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.kubectl("create", "rolebinding", "lease", f"--role={OPERATOR}", account)
    scene.kubectl("create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR}", account)
    yield names
    for name in names:
        scene.cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def make_tenant(scene: Scene, name: str) -> None:
    scene.cluster.kubectl("create", "namespace", name)
    account = f"--serviceaccount={scene.namespace}:{OPERATOR}"
    scene.cluster.kubectl("-n", name, "create", "rolebinding", "namespaced", f"--clusterrole={OPERATOR}", account)


def test_a_tenants_namespace_that_is_deleted_disturbs_nobody_else(
    scene: Scene, tenants: list[str], build_operator: Callable[..., OperatorProcess]
) -> None:
    staying, leaving = tenants
    kubeconfig = scene.cluster.service_account_kubeconfig(scene.namespace, OPERATOR)
    namespaces = ",".join([scene.namespace, *tenants])
    operator = build_operator(kubeconfig=kubeconfig, OCELLI_NAMESPACES=namespaces, **QUICK_WATCHES)
    operator.start()
    operator.wait_until_leading()
    scene.cluster.kubectl("delete", "namespace", leaving, "--wait")
    closed = f'ocelli_namespace_closed{{tenant_namespace="{leaving}"}}'
    scene.cluster.wait_for("it is named", lambda: operator.metric(closed) == 1.0)
    (told,) = scene.cluster.wait_for("it is told", lambda: events(scene, "NamespaceClosed"))
    assert f"namespace {leaving} may not be read" in told["note"]
    told_at = time.monotonic()
    scene.cluster.wait_for("a blind operator would not be healthy any more", lambda: time.monotonic() - told_at > 7)
    assert operator.health() == 200
    operator.stop()
    operator.start()
    operator.wait_until_leading()
    assert has_id_soon(scene, staying)
    make_tenant(scene, leaving)
    scene.cluster.wait_for("it is open again", lambda: operator.metric(closed) == 0.0)
    assert has_id_soon(scene, leaving)


def has_id_soon(scene: Scene, namespace: str) -> Any:
    scene.cluster.apply(scene.build(training=NO_NODE), namespace=namespace)
    command = ("-n", namespace, "get", "clf", "colours", "-o", "jsonpath={.status.classifierID}")
    return scene.cluster.wait_for("it has an id", lambda: scene.cluster.kubectl(*command).stdout)
