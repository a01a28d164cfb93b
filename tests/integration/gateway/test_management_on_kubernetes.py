"""The management API on a real API server, by two replicas with the rights that the gateway has in a cluster."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.pytest_plugin import fresh_namespace
from tests.gateway_harness.images import examples
from tests.integration.gateway.conftest import starting_gateways

pytestmark = pytest.mark.cluster

API_VERSION = "ocelli.dev/v1alpha1"
ZIPS = {"heron": examples(1), "owl": examples(2)}
IMAGE = "9f" * 32
Replicas = tuple[httpx.Client, httpx.Client]


@pytest.fixture(scope="module")
def namespace(local_cluster: SyncClusterAccess) -> Iterator[str]:
    with fresh_namespace(local_cluster, "management") as name:
        yield name


@pytest.fixture(scope="module")
def replicas(gateway_kubeconfig: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with starting_gateways(gateway_kubeconfig, tmp_path_factory.mktemp("management")) as start:
        gateways = [start(namespace), start(namespace)]
        for gateway in gateways:
            gateway.wait_until_healthy()
        with gateways[0].client() as first, gateways[1].client() as second:
            yield first, second


def call(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    response = client.request(method, f"/ocelli/v1{path}", **options)
    assert response.status_code == 200, response.text[:500]
    return response.json()


def create(replicas: Replicas) -> str:
    """The id of a classifier whose uploads went to both replicas."""
    classifier_id: str = call(replicas[0], "POST", "/uploads", json={"name": "birds"})["classifier_id"]
    classes = []
    for replica, (name, content) in zip(replicas, ZIPS.items(), strict=True):
        digest = hashlib.sha256(content).hexdigest()
        call(replica, "PUT", f"/uploads/{classifier_id}/{digest}", content=content)
        classes.append({"class": name, "uploads": [digest]})
    body = {"classifier_id": classifier_id, "name": "birds", "classes": classes}
    first, again = (call(replica, "POST", "/classifiers", json=body) for replica in replicas)
    assert first["current_revision"] == again["current_revision"]
    return classifier_id


def read_spec(cluster: SyncClusterAccess, namespace: str, classifier_id: str) -> Any:
    found = cluster.get(API_VERSION, "Classifier", classifier_id.replace("_", "-"), namespace=namespace)
    assert found is not None
    return found["spec"]


def test_kubernetes_stores_corrections_and_nothing_else(
    local_cluster: SyncClusterAccess, namespace: str, replicas: Replicas
) -> None:
    classifier_id = create(replicas)
    before = read_spec(local_cluster, namespace, classifier_id)
    body = {"corrections": [{"image": IMAGE, "class": "owl"}]}
    answer = call(replicas[0], "POST", f"/classifiers/{classifier_id}/corrections", json=body)
    assert read_spec(local_cluster, namespace, classifier_id) == {**before, "corrections": body["corrections"]}
    assert call(replicas[1], "GET", f"/classifiers/{classifier_id}")["current_revision"] == answer["revision"]
    body["corrections"][0]["class"] = None  # type: ignore[assignment]
    call(replicas[1], "POST", f"/classifiers/{classifier_id}/corrections", json=body)
    assert read_spec(local_cluster, namespace, classifier_id) == before


def test_change_arrives_at_subscribers_of_another_replica_within_a_second(replicas: Replicas) -> None:
    classifier_id = create(replicas)
    with replicas[1].stream("GET", "/ocelli/v1/events", params={"classifier_id": classifier_id}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: ready"
        started = time.monotonic()
        call(replicas[0], "POST", f"/classifiers/{classifier_id}/suspend")
        cards = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith('data: {"classifier_id'))
        assert next(card for card in cards if card.get("suspended"))["classifier_id"] == classifier_id
        # The answer to the change itself waits a second for other replicas.
        assert time.monotonic() - started < 2


def test_classifier_that_kubectl_applied_is_shown_as_such_and_refused_with_its_manifest(
    local_cluster: SyncClusterAccess, namespace: str, replicas: Replicas, tmp_path: Path
) -> None:
    classes = [{"name": name, "examples": [{"url": f"https://example.org/{name}.zip"}]} for name in ZIPS]
    metadata = {"name": "applied", "namespace": namespace, "labels": {"ocelli.dev/classifier-id": "applied_7"}}
    manifest = {"apiVersion": API_VERSION, "kind": "Classifier", "metadata": metadata, "spec": {"classes": classes}}
    file = tmp_path / "applied.json"
    file.write_text(json.dumps(manifest))
    local_cluster.kubectl("apply", "--server-side", "-f", str(file))
    details = call(replicas[0], "GET", "/classifiers/applied_7")
    assert (details["managed_by"], details["writable"]) == ("kubectl", False)
    response = replicas[0].post("/ocelli/v1/classifiers/applied_7/suspend")
    assert response.status_code == 409
    committed = tmp_path / "committed.yaml"
    committed.write_text(response.json()["manifest"])
    local_cluster.kubectl("apply", "--server-side", "-f", str(committed))
    assert call(replicas[0], "GET", "/classifiers/applied_7")["suspended"] is True
