"""The gateway on a real API server, with the rights that it has in a cluster; without training."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.pytest_plugin import fresh_namespace
from tests.gateway_harness.images import examples, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, head, multipart, read_answer, status_of
from tests.integration.gateway.conftest import StartGateway, starting_gateways
from tests.integration.gateway.gateway_process import PASSWORD, USER

pytestmark = pytest.mark.cluster

TWO_SETS = [("heron_positive_examples", examples(1)), ("owl_positive_examples", examples(2))]
STORK = [("stork_positive_examples", examples(3))]
API_VERSION = "ocelli.dev/v1alpha1"


@pytest.fixture(scope="module")
def namespace(local_cluster: SyncClusterAccess) -> Iterator[str]:
    """One for all tests: each has classifiers of its own."""
    with fresh_namespace(local_cluster, "replicas") as name:
        yield name


@pytest.fixture(scope="module")
def replicas(
    gateway_kubeconfig: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of two replicas."""
    with starting_gateways(gateway_kubeconfig, tmp_path_factory.mktemp("replicas")) as start:
        gateways = [start(namespace), start(namespace)]
        for gateway in gateways:
            gateway.wait_until_healthy()
        with gateways[0].client() as first, gateways[1].client() as second:
            yield first, second


def create(client: httpx.Client, files: Any = TWO_SETS) -> str:
    response = client.post("/v3/classifiers", data={"name": "birds"}, files=files)
    assert response.status_code == 200, response.text[:500]
    classifier_id: str = response.json()["classifier_id"]
    return classifier_id


def find(cluster: SyncClusterAccess, namespace: str, classifier_id: str) -> dict[str, Any]:
    found = cluster.get(API_VERSION, "Classifier", classifier_id.replace("_", "-"), namespace=namespace)
    assert found is not None
    return found


def write_status(cluster: SyncClusterAccess, namespace: str, classifier_id: str, status: dict[str, Any]) -> None:
    cluster.kubectl(
        "patch",
        "classifier",
        classifier_id.replace("_", "-"),
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )


def fail(cluster: SyncClusterAccess, namespace: str, classifier_id: str) -> None:
    """Set the status of a failed first training: a retrain is then allowed although nothing is served."""
    from ocelli_api.classifier import parse_classifier
    from ocelli_api.revision import spec_revision

    spec = parse_classifier(find(cluster, namespace, classifier_id)).spec
    condition = {
        "type": "Stalled",
        "status": "True",
        "reason": "InvalidData",
        "message": "too few owls",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {
        "classifierID": classifier_id,
        "failedRevision": spec_revision(spec),
        "observedRetrainNonce": spec.retrain_nonce,
        "conditions": [condition],
    }
    write_status(cluster, namespace, classifier_id, status)


def test_every_replica_finds_a_new_classifier(replicas: tuple[httpx.Client, httpx.Client]) -> None:
    first, second = replicas
    for _ in range(5):
        created = first.post("/v3/classifiers", data={"name": "birds"}, files=TWO_SETS).json()
        assert second.get(f"/v3/classifiers/{created['classifier_id']}").json() == created


def test_kubernetes_accepts_the_largest_definition_that_the_gateway_accepts(
    replicas: tuple[httpx.Client, httpx.Client],
) -> None:
    data = examples(1)
    classifier_id = create(replicas[0], [(f"{'日' * 120}{index:03d}_positive_examples", data) for index in range(500)])
    assert len(replicas[1].get(f"/v3/classifiers/{classifier_id}").json()["classes"]) == 500


def test_kubernetes_accepts_every_class_name_that_the_gateway_accepts(replicas: tuple[httpx.Client, httpx.Client]) -> None:
    names = ["日本", "a.b,c;d=e", "Golden Retriever", "#1 (new)!", "😀" * 128, "\u00a0a", "\u200b", "a\u2028b"]
    classifier_id = create(replicas[0], [(f"{name}_positive_examples", examples(1)) for name in names])
    shown = replicas[1].get(f"/v3/classifiers/{classifier_id}").json()["classes"]
    assert [item["class"] for item in shown] == names


def test_failed_training_shows_its_reason_on_every_replica(
    local_cluster: SyncClusterAccess, namespace: str, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    classifier_id = create(replicas[0])
    fail(local_cluster, namespace, classifier_id)
    bodies = [client.get(f"/v3/classifiers/{classifier_id}").json() for client in replicas]
    assert [(body["status"], body["explanation"]) for body in bodies] == [("failed", "too few owls")] * 2


def test_retrain_and_status_writes_do_not_lose_each_other(
    local_cluster: SyncClusterAccess, namespace: str, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    classifier_id = create(replicas[0])
    fail(local_cluster, namespace, classifier_id)
    stop = threading.Event()

    def write() -> None:
        percent = 0
        while not stop.is_set():
            percent = (percent + 1) % 100
            write_status(local_cluster, namespace, classifier_id, {"progress": {"percent": percent, "stage": "Reading"}})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        response = replicas[1].post(f"/v3/classifiers/{classifier_id}", files=STORK)
    finally:
        stop.set()
        writer.join()
    assert (response.status_code, response.json()["status"]) == (200, "training")
    manifest = find(local_cluster, namespace, classifier_id)
    assert [item["name"] for item in manifest["spec"]["classes"]] == ["heron", "owl", "stork"]
    assert (manifest["spec"]["retrainNonce"], manifest["status"]["failedRevision"] != "") == (1, True)


def test_one_of_several_concurrent_retrains_is_accepted(
    local_cluster: SyncClusterAccess, namespace: str, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    classifier_id = create(replicas[0])
    fail(local_cluster, namespace, classifier_id)

    def retrain(number: int) -> int:
        files = [(f"new{number}_positive_examples", examples(number))]
        return replicas[number % 2].post(f"/v3/classifiers/{classifier_id}", files=files).status_code

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(retrain, range(4)))
    # The first one that is written puts the classifier back into its first training, in which no other is allowed.
    assert statuses == [200, 400, 400, 400]
    assert len(find(local_cluster, namespace, classifier_id)["spec"]["classes"]) == 3


def test_deleted_classifier_is_unknown_to_every_replica(
    local_cluster: SyncClusterAccess, namespace: str, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    classifier_id = create(replicas[0])
    assert replicas[0].delete(f"/v3/classifiers/{classifier_id}").json() == {}
    statuses = [client.get(f"/v3/classifiers/{classifier_id}").status_code for client in replicas]
    statuses += [
        client.post("/v3/classify", data={"classifier_ids": classifier_id}, files={"images_file": png()}).status_code
        for client in replicas
    ]
    assert statuses == [404, 404, 404, 404]


def test_manifest_that_allows_no_rest_writes_is_refused_with_its_remedy(
    local_cluster: SyncClusterAccess, namespace: str, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    source = {"url": "https://data.example.com/a.zip"}
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "Classifier",
        "metadata": {"name": "by-manifest", "labels": {"ocelli.dev/classifier-id": "bymanifest_5"}},
        "spec": {"classes": [{"name": "a", "examples": [source]}, {"name": "b", "examples": [source]}]},
    }
    local_cluster.apply(manifest, namespace=namespace)
    response = replicas[0].delete("/v3/classifiers/bymanifest_5")
    assert (response.status_code, "ocelli.dev/rest-writes" in response.json()["error"]) == (409, True)
    assert replicas[1].get("/v3/classifiers/bymanifest_5").status_code == 200


def test_gateway_is_healthy_as_soon_as_its_namespace_exists(
    local_cluster: SyncClusterAccess, start_gateway: StartGateway, namespace: str
) -> None:
    missing = f"{namespace[:50]}-later"
    gateway = start_gateway(missing)
    health = gateway.health()
    assert (health.status_code, missing in health.json()["error"] or "listed" in health.json()["error"]) == (503, True)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": missing}}
    local_cluster.apply(manifest)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(local_cluster.delete, manifest)
        gateway.wait_until_healthy()
        with gateway.client() as client:
            create(client)


def test_upload_in_flight_finishes_after_sigterm(start_gateway: StartGateway, namespace: str) -> None:
    gateway = start_gateway(namespace)
    gateway.wait_until_healthy()
    body = multipart(
        [
            ('Content-Disposition: form-data; name="name"', b"slow"),
            *[(f'Content-Disposition: form-data; name="{name}"', data) for name, data in TWO_SETS],
        ]
    )
    request = head(
        "POST",
        "/v3/classifiers?version=2018-03-19",
        f"Content-Type: {MULTIPART_TYPE}",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
        user=USER,
        password=PASSWORD,
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(request)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(body[:1000])
        assert gateway.process is not None
        gateway.process.terminate()
        gateway.wait_until_closed()
        connection.sendall(body[1000:])
        assert status_of(read_answer(connection)) == 200
    assert gateway.stop() == 0
