"""The rights of each ServiceAccount of the chart: a golden list, and each of them is used while a Classifier lives its life."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocelli_api.classifier import parse_classifier
from ocelli_api.revision import current_revision
from ocelli_operator.manifests.metadata import job_name
from tests.e2e.cluster import KIND_VARIABLE, NAMESPACE, SYSTEM_NAMESPACE
from tests.e2e.pods import store_image
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import Ocelli, wait_for

GOLDEN = Path(__file__).with_name("golden")
ACCOUNTS = ("ocelli-operator", "ocelli-gateway", "ocelli-store")
AUDIT_LOG = "/var/log/kubernetes/audit.log"
EVERYBODYS = ("selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "clustertrustbundles")
"""Rights of every ServiceAccount."""

Right = tuple[str, str]
"""A verb, and a resource with its group: ("list", "deployments.apps")."""


def list_rights(ocelli: Ocelli, account: str, namespace: str) -> str:
    """The output of `kubectl auth can-i --list`, without the rights of every account."""
    listed = ocelli.kubectl(
        *("auth", "can-i", "--list", f"--namespace={namespace}", f"--as=system:serviceaccount:{SYSTEM_NAMESPACE}:{account}")
    )
    rows = [re.sub(r" {2,}", "  ", row.strip()) for row in listed.splitlines()[1:]]
    return "\n".join(sorted(row for row in rows if not row.startswith(("[/", *EVERYBODYS)) and "[/" not in row)) + "\n"


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize(("place", "namespace"), [("own", SYSTEM_NAMESPACE), ("tenant", NAMESPACE)])
def test_the_rights_are_the_golden_ones(ocelli: Ocelli, account: str, place: str, namespace: str) -> None:
    path = GOLDEN / f"{account}-{place}.txt"
    text = list_rights(ocelli, account, namespace)
    if os.environ.get("OCELLI_REWRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.fixture(scope="module")
def used(ocelli: Ocelli) -> dict[str, set[Right]]:
    """By account: its requests to the API server during the life of a Classifier that needs every kind of child."""
    if not read_audit_log():
        pytest.skip("this cluster keeps no audit log; `make e2e` makes one that does")
    try:
        with ocelli.client() as client:
            live(ocelli, client)
    finally:
        scale_operator(ocelli, 1)
        ocelli.kubectl("delete", "classifiers,jobs", "--all")
    found: dict[str, set[Right]] = {account: set() for account in ACCOUNTS}
    for line in read_audit_log().splitlines():
        event = json.loads(line)
        account = event["user"]["username"].rsplit(":", 1)[-1]
        reference = event.get("objectRef")
        if account in found and reference and event.get("responseStatus", {}).get("code", 0) < 400:
            name = reference["resource"] + (f"/{reference['subresource']}" if reference.get("subresource") else "")
            group = reference.get("apiGroup", "")
            resource = f"{name}.{group}" if group else name
            found[account].add((event["verb"], resource))
            if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
                # Server-side apply of a new object needs the right to create, too.
                found[account].add(("create", resource))
    return found


def read_audit_log() -> str:
    if KIND_VARIABLE not in os.environ:
        return ""
    node = f"{os.environ[KIND_VARIABLE]}-control-plane"
    done = subprocess.run(("docker", "exec", node, "cat", AUDIT_LOG), capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def live(ocelli: Ocelli, client: httpx.Client) -> None:
    """Create, scale in both ways, retrain twice concurrently, orphan and recreate, delete."""
    scale_operator(ocelli, 0)
    # The chart contains the Lease, but a user may delete it.
    ocelli.kubectl("delete", "lease", "ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}")
    identity = create(client, ocelli)
    name = identity.replace("_", "-").lower()
    be_in_the_way(ocelli, name)
    wait_for_status(client, identity)
    autoscaling = {"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    serve(ocelli, name, autoscaling)
    wait_for("there is an autoscaler and a budget", lambda: children(ocelli, name, "hpa,pdb") == 2)
    # A user opens its servers to all clients.
    ocelli.kubectl("patch", "networkpolicy", f"clf-{name}", "--type=merge", "-p", '{"spec": {"ingress": [{}]}}')
    serve(ocelli, name, {"autoscaling": None, "replicas": 1})
    wait_for("both are gone", lambda: children(ocelli, name, "hpa,pdb") == 0)
    serve(ocelli, name, autoscaling)
    wait_for("both are there again", lambda: children(ocelli, name, "hpa,pdb") == 2)
    # An installation that makes no NetworkPolicies any more takes its own away.
    operator = ("deployment/ocelli-operator", f"--namespace={SYSTEM_NAMESPACE}")
    ocelli.kubectl("set", "env", *operator, "--containers=operator", "OCELLI_INFERENCE_PEERS=")
    wait_for("the NetworkPolicy is gone", lambda: children(ocelli, name, "networkpolicies") == 0)
    ocelli.kubectl("rollout", "undo", *operator)
    wait_for("it is there again", lambda: children(ocelli, name, "networkpolicies") == 1)
    # A quota does not allow the trainer's Pod: only Events of the Job say why there is none.
    ocelli.kubectl("create", "quota", "no-pods", "--hard=pods=0")
    for class_name, sample in (("two", "two.zip"), ("one", "more-ones.zip")):
        files = {f"{class_name}_positive_examples": (ocelli.samples / sample).read_bytes()}
        assert client.post(f"/v3/classifiers/{identity}", files=files).status_code == 200
    wait_for("a condition has Kubernetes' sentence", lambda: "exceeded quota: no-pods" in tell_conditions(ocelli, name))
    ocelli.kubectl("delete", "quota", "no-pods")
    wait_for_status(client, identity)
    # An object with the name of one whose children were orphaned: its predecessor's children are not its own. An operator
    # that saw the deletion would delete stored objects, too.
    manifest = ocelli.get("classifier", name)
    scale_operator(ocelli, 0)
    ocelli.kubectl("delete", "classifier", name, "--cascade=orphan")
    again: dict[str, Any] = {key: manifest[key] for key in ("apiVersion", "kind", "spec")}
    again["metadata"] = {
        "name": name,
        "labels": manifest["metadata"]["labels"],
        "annotations": manifest["metadata"].get("annotations", {}),
    }
    again["spec"]["serving"] = {"replicas": 1}
    ocelli.apply(again)
    scale_operator(ocelli, 1)
    # A user removes the label by which REST finds it.
    ocelli.kubectl("label", "classifier", name, "ocelli.dev/classifier-id-")
    wait_for("what is in the way is named", lambda: "does not belong to this Classifier" in tell_conditions(ocelli, name))
    ocelli.kubectl("delete", "deployments,services,hpa,pdb,networkpolicies", "-l", f"ocelli.dev/classifier={name}")
    ocelli.kubectl("wait", "--for=condition=Ready", f"classifier/{name}", "--timeout=100s")
    assert client.delete(f"/v3/classifiers/{identity}").status_code == 200


def be_in_the_way(ocelli: Ocelli, name: str) -> None:
    """A Job of another owner has the name of the first training Job, until the operator has reported it."""
    revision = current_revision(parse_classifier(ocelli.get("classifier", name)))
    job = job_name(name, revision, 1)
    ocelli.kubectl("create", "job", job, f"--image={store_image()}", "--", "true")
    scale_operator(ocelli, 1)
    wait_for("a condition names it", lambda: "does not belong to this Classifier" in tell_conditions(ocelli, name))
    ocelli.kubectl("delete", "job", job)


def tell_conditions(ocelli: Ocelli, name: str) -> str:
    return ocelli.kubectl("get", "classifier", name, "-o", "jsonpath={.status.conditions[*].message}")


def scale_operator(ocelli: Ocelli, replicas: int) -> None:
    place = f"--namespace={SYSTEM_NAMESPACE}"
    ocelli.kubectl("scale", "deployment/ocelli-operator", place, f"--replicas={replicas}")
    if replicas == 0:
        ocelli.kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=ocelli-operator", place)
    else:
        ocelli.kubectl("rollout", "status", "deployment/ocelli-operator", place, "--timeout=100s")


def serve(ocelli: Ocelli, name: str, serving: dict[str, Any]) -> None:
    ocelli.kubectl("patch", "classifier", name, "--type=merge", "-p", json.dumps({"spec": {"serving": serving}}))


def children(ocelli: Ocelli, name: str, kinds: str) -> int:
    return len(ocelli.kubectl("get", kinds, "-l", f"ocelli.dev/classifier={name}", "-o", "name").split())


def granted(ocelli: Ocelli, account: str) -> set[Right]:
    """Every right in the Roles and ClusterRoles that are bound to an account."""
    rights: set[Right] = set()
    of_the_chart = ("-l", "app.kubernetes.io/part-of=ocelli", "-n", SYSTEM_NAMESPACE, "-o", "json")
    for kind in ("clusterrole", "role"):
        bindings = json.loads(ocelli.kubectl("get", f"{kind}bindings", *of_the_chart))["items"]
        bound = {
            binding["roleRef"]["name"]
            for binding in bindings
            if any(subject["name"] == account for subject in binding["subjects"])
        }
        for role in json.loads(ocelli.kubectl("get", f"{kind}s", *of_the_chart))["items"]:
            if role["metadata"]["name"] not in bound:
                continue
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        rights |= {(verb, f"{resource}.{group}" if group else resource) for verb in rule["verbs"]}
    return rights


@pytest.mark.parametrize("account", ACCOUNTS)
def test_every_right_is_used(ocelli: Ocelli, used: dict[str, set[Right]], account: str) -> None:
    assert granted(ocelli, account) - used[account] == set()
