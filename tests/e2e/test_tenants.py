"""Two namespaces on one cluster: what a Pod may do with its own token, and that it has no access to the other namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import pods
from tests.e2e.cluster import NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import Ocelli, wait_for

ATTEMPT = """
import json, os, sys, urllib.error, urllib.request
store, namespace, others = sys.argv[1:]
own = f"tenants/{namespace}/artifacts/probe_1/0123456789/probe"
def ask(method, path, audience="write", data=None):
    headers = {"Authorization": "Bearer " + open("/tokens/" + audience).read()} if audience else {}
    request = urllib.request.Request(store + path, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [answer.status, answer.read().decode("utf-8", "replace")[:100000]]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode("utf-8", "replace")[:1000]]
theirs = json.loads(others)
print(json.dumps({
    "own list": ask("GET", f"/list?prefix=tenants/{namespace}"),
    "own write": ask("PUT", "/objects/" + own, data=b"x"),
    "own read": ask("GET", "/objects/" + own),
    "own delete": ask("DELETE", "/objects/" + own),
    "write for reading": ask("PUT", "/objects/" + own, "read", b"x"),
    "own write elsewhere": [
        ask("PUT", f"/objects/tenants/{namespace}{place}", data=b"x")
        for place in ("", "/probe", "/uploads/probe_1/probe.zip", "/artifacts", "/artifacts/probe_1", "/other/probe_1/0/probe")
    ],
    "read for reading": ask("GET", f"/list?prefix=tenants/{namespace}", "read"),
    "list of backbones": ask("GET", "/list?prefix=backbones"),
    "write to backbones": ask("PUT", "/objects/backbones/probe", data=b"x"),
    "list of all": ask("GET", "/list?prefix=tenants"),
    "their list": ask("GET", f"/list?prefix={theirs[0].rsplit('/', 3)[0]}"),
    "their read": [ask("GET", "/objects/" + key) for key in theirs],
    "their read by dots": ask("GET", f"/objects/tenants/{namespace}/../../{theirs[0]}"),
    "their write": ask("PUT", "/objects/" + theirs[0], data=b"x"),
    "their delete": ask("DELETE", "/objects/" + theirs[0]),
    "token of the API server": ask("GET", f"/list?prefix=tenants/{namespace}", "kubernetes"),
    "no token": ask("GET", f"/list?prefix=tenants/{namespace}", ""),
}))
"""


@pytest.fixture(scope="module")
def attempts(ocelli: Ocelli) -> Iterator[dict[str, Any]]:
    """The store's answers to a Pod of the other namespace."""
    with ocelli.client() as client:
        identity = create(client, ocelli)
        wait_for_status(client, identity)
        theirs = stored_keys(ocelli, identity)
        manifest = build_attempts("attempts", theirs)
        ocelli.kubectl("apply", f"--namespace={OTHER_NAMESPACE}", "-f", "-", input_text=json.dumps(manifest))
        pod = ("pod/attempts", f"--namespace={OTHER_NAMESPACE}")
        try:
            ocelli.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", *pod, "--timeout=100s")
            yield json.loads(ocelli.kubectl("logs", *pod))
        finally:
            ocelli.kubectl("delete", *pod, "--wait=false")
            client.delete(f"/v3/classifiers/{identity}")


def stored_keys(ocelli: Ocelli, identity: str) -> list[str]:
    """An upload and the parts of the artifact of a classifier, as the volume has them."""
    found = ocelli.kubectl(
        *("exec", f"--namespace={SYSTEM_NAMESPACE}", "deployment/ocelli-store", "--", "sh", "-c"),
        f"cd /data/objects && find tenants/{NAMESPACE}/*/{identity} -type f",
    )
    keys = sorted(found.split())
    assert any("/uploads/" in key for key in keys)
    assert any(key.endswith("artifact.json") for key in keys)
    return keys


def build_attempts(name: str, theirs: list[str]) -> dict[str, Any]:
    """A Pod of the other tenant, with tokens that it may ask for, as everybody who may create Pods can."""
    tokens = [
        {"serviceAccountToken": {"path": "write", "audience": "ocelli-store"}},
        {"serviceAccountToken": {"path": "read", "audience": "ocelli-store-read"}},
        {"serviceAccountToken": {"path": "kubernetes"}},
    ]
    store = f"http://ocelli-store.{SYSTEM_NAMESPACE}.svc:8082"
    # The label only takes it past a NetworkPolicy: the store itself must refuse.
    metadata = {"name": name, "namespace": OTHER_NAMESPACE, "labels": {"app.kubernetes.io/part-of": "ocelli"}}
    container = {"command": ["python", "-c", ATTEMPT, store, OTHER_NAMESPACE, json.dumps(theirs)]}
    return pods.build_pod(metadata, container, {"projected": {"sources": tokens}}, "/tokens", restartPolicy="Never")


@pytest.mark.parametrize(
    ("attempt", "status"),
    [
        ("own list", 200),
        ("own write", 204),
        ("own read", 200),
        ("own delete", 204),
        ("read for reading", 200),
        ("write for reading", 403),
        ("list of backbones", 200),
        ("write to backbones", 403),
        ("list of all", 403),
        ("their list", 403),
        ("their read by dots", 400),
        ("their write", 403),
        ("their delete", 403),
        ("token of the API server", 401),
        ("no token", 401),
    ],
)
def test_the_store_answers_a_tenants_pod_with(attempts: dict[str, Any], attempt: str, status: int) -> None:
    assert attempts[attempt][0] == status, attempts[attempt]


def test_tenants_cannot_write_outside_their_trainers_keys(attempts: dict[str, Any]) -> None:
    assert {status for status, _ in attempts["own write elsewhere"]} == {403}


def test_no_object_of_another_tenant_can_be_read(attempts: dict[str, Any]) -> None:
    assert {status for status, _ in attempts["their read"]} == {403}


def test_the_stores_volume_cannot_be_mounted_from_another_namespace(ocelli: Ocelli) -> None:
    manifest = build_attempts("volume", ["x/x/x/x/x"])
    manifest["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "ocelli-store"}})
    ocelli.kubectl("apply", f"--namespace={OTHER_NAMESPACE}", "-f", "-", input_text=json.dumps(manifest))
    try:
        message = wait_for(
            "the scheduler says why the Pod cannot run",
            lambda: ocelli.kubectl(
                *("get", "pod", "volume", f"--namespace={OTHER_NAMESPACE}"),
                *("-o", 'jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}'),
            ),
        )
        assert 'persistentvolumeclaim "ocelli-store" not found' in message
    finally:
        ocelli.kubectl("delete", "pod", "volume", f"--namespace={OTHER_NAMESPACE}", "--wait=false")


@pytest.mark.parametrize("account", ["ocelli-operator", "ocelli-store"])
@pytest.mark.parametrize("namespace", [NAMESPACE, SYSTEM_NAMESPACE])
def test_neither_operator_nor_store_can_read_a_secret(ocelli: Ocelli, account: str, namespace: str) -> None:
    answer = ocelli.kubectl(
        *("auth", "can-i", "get", "secrets", f"--namespace={namespace}"),
        f"--as=system:serviceaccount:{SYSTEM_NAMESPACE}:{account}",
        check=False,
    )
    assert answer.strip() == "no"


def test_a_classifier_that_names_a_secret_as_a_source_is_not_accepted(ocelli: Ocelli) -> None:
    source = {"url": "https://data.example.com/a.zip", "secretRef": {"name": "of-another-user"}}
    manifest = {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": "thief"},
        "spec": {"classes": [{"name": name, "examples": [source]} for name in ("a", "b")]},
    }
    answer = ocelli.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input_text=json.dumps(manifest), check=False
    )
    assert "unknown field" in answer
