"""Objects that belong to others: the operator does not change them, waits until they are deleted, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import Manifest, parse_spec
from ocelli_api.revision import spec_revision
from ocelli_cluster.client import ClusterClient, ConflictError
from ocelli_cluster.field_ownership import claim_created
from ocelli_cluster.resources import AUTOSCALERS, DEPLOYMENTS, DISRUPTION_BUDGETS, NETWORK_POLICIES, SERVICES, Resource
from ocelli_local import SyncClusterAccess
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.write_proxy import WriteProxy

pytestmark = pytest.mark.cluster

CLASSIFIER_ID = "colours_19"


def put_served(scene: Scene, **serving: Any) -> str:
    """Create a Classifier whose revision is trained and served according to store and status. Returns the revision."""
    manifest = scene.build(serving=serving)
    manifest["metadata"]["labels"] = {"ocelli.dev/classifier-id": CLASSIFIER_ID}
    created = scene.apply(manifest)
    revision = spec_revision(parse_spec(created["spec"]))
    location = ClassifierLocation(namespace=scene.namespace, classifier_id=CLASSIFIER_ID)
    path = scene.store_folder / location.artifact_key(revision, ARTIFACT_METADATA)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    status = {"classifierID": CLASSIFIER_ID, "servedRevision": revision, "observedGeneration": 1}
    scene.kubectl("patch", "clf", "colours", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    return revision


def read(scene: Scene, kind: str, name: str) -> Manifest:
    found: Manifest = json.loads(scene.kubectl("get", kind, name, "-o", "json"))
    return found


def wait_for_message(scene: Scene, words: str) -> str:
    def find() -> str | None:
        message = str(scene.condition("Ready").get("message"))
        return message if words in message else None

    return scene.cluster.wait_for(f"Ready says {words!r}", find, timeout_seconds=30)


def exists(scene: Scene, kind: str, name: str) -> bool:
    return bool(scene.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").strip())


FOREIGN = {
    "service/clf-colours": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "clf-colours"},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]},
    },
    "hpa/colours": {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "colours"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "mine"}, "maxReplicas": 9},
    },
    "pdb/colours": {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "colours"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "mine"}}},
    },
    "networkpolicy/clf-colours": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "clf-colours"},
        "spec": {"podSelector": {"matchLabels": {"app": "mine"}}, "policyTypes": ["Ingress"]},
    },
}
GUARDED = {"OCELLI_INFERENCE_PEERS": '[{"namespaceSelector": {"matchLabels": {"team": "gateways"}}}]'}


@pytest.mark.parametrize("place", list(FOREIGN))
def test_a_foreign_object_is_unchanged_and_replaced_after_its_deletion(
    scene: Scene, build_operator: Callable[..., OperatorProcess], place: str
) -> None:
    kind, name = place.split("/")
    scene.apply(FOREIGN[place])
    before = read(scene, kind, name)
    put_served(scene, autoscaling={"minReplicas": 2, "maxReplicas": 3})
    build_operator(**GUARDED).start()
    message = wait_for_message(scene, "does not belong to this Classifier")
    assert f"{before['kind']} {name} already exists" in message
    assert "delete it" in message
    assert scene.condition("Stalled") == {}
    after = read(scene, kind, name)
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    scene.kubectl("delete", kind, name)
    scene.cluster.wait_for("its own is created", lambda: exists(scene, kind, name))
    assert read(scene, kind, name)["metadata"]["ownerReferences"][0]["kind"] == "Classifier"


def test_a_changed_or_deleted_network_policy_is_repaired_and_applied_once(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    put_served(scene)
    build_operator(kubeconfig=proxy.kubeconfig, **GUARDED).start()
    place = ("networkpolicy", "clf-colours")
    scene.cluster.wait_for("it is created", lambda: exists(scene, *place))
    made = read(scene, *place)["spec"]
    scene.kubectl("patch", *place, "--type=merge", "-p", '{"spec": {"ingress": [{}]}}')
    scene.cluster.wait_for("it is repaired", lambda: read(scene, *place)["spec"] == made)
    scene.kubectl("delete", *place)
    scene.cluster.wait_for("it is back", lambda: exists(scene, *place))
    proxy.writes.clear()
    # The operator handles this change after everything else that was pending.
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    scene.cluster.wait_for("it was reconciled again", lambda: exists(scene, "pdb", "colours"))
    assert [write for write in proxy.writes if "/networkpolicies" in write] == []


def test_foreign_objects_with_the_labels_are_kept(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
    revision = put_served(scene)
    operator = build_operator()
    operator.start()
    scene.cluster.wait_for("the Service is created", lambda: exists(scene, "service", "clf-colours"))
    scene.kubectl("expose", "service", "clf-colours", "--name=a-copy")
    own = read(scene, "deployment", f"colours-{revision}")
    labels = {**own["metadata"]["labels"], "ocelli.dev/revision": "0123456789"}
    canary = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "canary", "labels": labels},
        "spec": {**copy.deepcopy(own["spec"]), "replicas": 0},
    }
    scene.apply(canary)
    # Every one of them wakes the operator; a change that it answers comes after.
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    scene.cluster.wait_for("it was reconciled again", lambda: exists(scene, "pdb", "colours"))
    assert exists(scene, "service", "a-copy")
    assert exists(scene, "deployment", "canary")


def test_a_field_that_the_spec_no_longer_has_is_removed_from_a_created_object(
    scene: Scene, build_operator: Callable[..., OperatorProcess]
) -> None:
    revision = put_served(scene, nodeSelector={"disk": "fast"})
    build_operator().start()
    deployment = f"colours-{revision}"
    scene.cluster.wait_for("the Deployment is created", lambda: exists(scene, "deployment", deployment))
    scene.patch('{"spec": {"serving": {"nodeSelector": null}}}')

    def is_gone() -> bool:
        return "nodeSelector" not in read(scene, "deployment", deployment)["spec"]["template"]["spec"]

    scene.cluster.wait_for("the node selector is gone", is_gone)


@pytest.mark.parametrize(
    ("place", "resource"),
    [
        ("service/clf-colours", SERVICES),
        ("hpa/colours", AUTOSCALERS),
        ("pdb/colours", DISRUPTION_BUDGETS),
        ("networkpolicy/clf-colours", NETWORK_POLICIES),
    ],
)
def test_an_apply_for_an_object_that_is_another_one_by_now_is_refused(scene: Scene, place: str, resource: Resource) -> None:
    kind, name = place.split("/")
    manifest = FOREIGN[place]

    async def apply(uid: str) -> None:
        async with await ClusterClient.connect({"KUBECONFIG": str(scene.cluster.kubeconfig)}) as client:
            body = {**manifest, "metadata": {"name": name, "uid": uid}}
            await client.apply(resource, scene.namespace, name, body, field_manager="a-test")

    stranger = "6f1c6a0e-3c36-4a3e-9a53-0d3fd4a5d4b1"
    with pytest.raises(ConflictError):
        asyncio.run(apply(stranger))
    assert not exists(scene, kind, name)
    scene.apply(manifest)
    with pytest.raises(ConflictError):
        asyncio.run(apply(stranger))
    asyncio.run(apply(read(scene, kind, name)["metadata"]["uid"]))


MUTATION = """
apiVersion: {version}
kind: MutatingAdmissionPolicy
metadata: {{ name: {name} }}
spec:
  reinvocationPolicy: Never
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {{ matchLabels: {{ kubernetes.io/metadata.name: {namespace} }} }}
    resourceRules:
      - {{ apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [services] }}
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: '[JSONPatch{{op: "replace", path: "/spec/ports/0/port", value: 8443}}]'
---
apiVersion: {version}
kind: MutatingAdmissionPolicyBinding
metadata: {{ name: {name} }}
spec: {{ policyName: {name} }}
"""


@pytest.fixture
def mutation(local_cluster: SyncClusterAccess, scene: Scene) -> Iterator[None]:
    """An admission policy that changes the port of every Service of the namespace."""
    name = f"rewrite-{hashlib.sha256(scene.namespace.encode()).hexdigest()[:8]}"
    version = "admissionregistration.k8s.io/v1"
    text = MUTATION.format(version=version, name=name, namespace=scene.namespace)
    for manifest in yaml.safe_load_all(text):
        local_cluster.apply(manifest)
    probe = {**FOREIGN["service/clf-colours"], "metadata": {"name": "probe"}}

    def is_rewritten() -> bool:
        scene.kubectl("delete", "service", "probe", "--ignore-not-found")
        scene.apply(probe)
        return bool(read(scene, "service", "probe")["spec"]["ports"][0]["port"] == 8443)

    local_cluster.wait_for("the policy is in force", is_rewritten)
    yield
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        local_cluster.kubectl("delete", kind, name)


@pytest.mark.usefixtures("mutation")
def test_what_admission_rewrites_is_applied_once_and_not_again_by_a_successor(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    put_served(scene)
    first = build_operator(kubeconfig=proxy.kubeconfig, identity="first")
    first.start()

    def is_annotated() -> bool:
        if not exists(scene, "service", "clf-colours"):
            return False
        return "ocelli.dev/applied-as" in read(scene, "service", "clf-colours")["metadata"]["annotations"]

    scene.cluster.wait_for("what it came to is noted", is_annotated)
    assert read(scene, "service", "clf-colours")["spec"]["ports"][0]["port"] == 8443
    first.stop()
    proxy.writes.clear()
    second = build_operator(kubeconfig=proxy.kubeconfig, identity="second")
    second.start()
    second.wait_until_leading()
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    scene.cluster.wait_for("it was looked at", lambda: exists(scene, "pdb", "colours"))
    # The reconcile that changes the Deployment says so for a moment.
    scene.cluster.wait_for(
        "nothing is being updated any more", lambda: "are being updated" not in scene.condition("Ready")["message"]
    )
    assert [write for write in proxy.writes if "/services" in write] == []


def test_what_was_created_counts_as_applied_once_it_is_claimed(scene: Scene) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mine"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {"containers": [{"name": "sleep", "image": "sleep"}], "nodeSelector": {"disk": "fast"}},
            },
        },
    }

    async def create_and_apply() -> Manifest:
        async with await ClusterClient.connect({"KUBECONFIG": str(scene.cluster.kubeconfig)}) as client:
            found = await client.create(DEPLOYMENTS, scene.namespace, deployment, field_manager="a-test")
            while (claimed := claim_created(found, "a-test")) is not None:
                patch = {"metadata": {"managedFields": claimed, "resourceVersion": found["metadata"]["resourceVersion"]}}
                # The Deployment controller wrote in between.
                with contextlib.suppress(ConflictError):
                    await client.patch(DEPLOYMENTS, scene.namespace, "mine", patch, field_manager="a-test")
                found = await client.get(DEPLOYMENTS, scene.namespace, "mine")
            less = copy.deepcopy(deployment)
            del less["spec"]["template"]["spec"]["nodeSelector"]  # type: ignore[index]
            return await client.apply(DEPLOYMENTS, scene.namespace, "mine", less, field_manager="a-test")

    assert "nodeSelector" not in asyncio.run(create_and_apply())["spec"]["template"]["spec"]
