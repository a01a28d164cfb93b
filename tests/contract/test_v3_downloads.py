"""Downloads of trained models (section B6 of the REST contract, and the ONNX file)."""

from __future__ import annotations

import hashlib
import json
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

import httpx
import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, parse_classifier
from ocelli_api.documents import build_document
from ocelli_api.export import ExportFormat, ExportPart, PartPlace, build_core_ml_description
from ocelli_api.names import build_object_name
from ocelli_api.revision import spec_revision
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    BILL_OF_MATERIALS,
    CHECK_PAGE,
    REPORT_PAGE,
    ClassifierLocation,
    backbone_key,
)
from tests.gateway_harness.images import examples
from tests.gateway_harness.raw_http import head
from tests.gateway_harness.stage import NAMESPACE, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import V3Client, assert_error, connect

DIGEST = "ab" * 32
BODY = b"the backbone's part, shared by many"
STORK = [("stork_positive_examples", ("stork.zip", examples(31)))]


def part(place: PartPlace, file: str, data: bytes) -> ExportPart:
    return ExportPart(place=place, file=file, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def described(stage: Stage, identity: str, own: bytes) -> bytes:
    """The Core ML file of a classifier."""
    revision = spec_revision(parse_classifier(stage.classifier(identity)).spec)
    return BODY + own + build_core_ml_description(f"{identity}, revision {revision}, made with Ocelli")


def store_exports(stage: Stage, identity: str, formats: Mapping[ExportFormat, bytes]) -> None:
    """The exports of the served revision, of two parts each, as a trainer stores them."""
    revision = spec_revision(parse_classifier(stage.classifier(identity)).spec)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    exports = {}
    for export, own in formats.items():
        backbone_file, own_file = f"export{export.suffix}", f"head{export.suffix}"
        stage.run(stage.objects.put(backbone_key(DIGEST, backbone_file), BODY))
        stage.run(stage.objects.put(location.artifact_key(revision, own_file), own))
        parts = (part(PartPlace.BACKBONE, backbone_file, BODY), part(PartPlace.ARTIFACT, own_file, own))
        exports[str(export)] = [build_document(item) for item in parts]
    metadata = {"classes": [{"name": "owl"}], "backbone": {"digest": DIGEST}, "exports": exports}
    stage.run(stage.objects.put(location.artifact_key(revision, ARTIFACT_METADATA), json.dumps(metadata).encode()))


BOTH = {ExportFormat.CORE_ML: b" and a head", ExportFormat.ONNX: b" and another head"}


@pytest.mark.contract_row("B6", "0.1/GET /v3/classifiers/{classifier_id}/core_ml_model")
def test_core_ml_model_is_its_parts_with_a_description(stage: Stage, client: V3Client) -> None:
    identity = client.ready("mlmodel")
    store_exports(stage, identity, BOTH)
    response = client.http.get(f"/v3/classifiers/{identity}/core_ml_model", headers={"Accept": "*/*"})
    assert (response.status_code, response.content) == (200, described(stage, identity, b" and a head"))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == f'attachment; filename="{identity}.mlmodel"'
    assert int(response.headers["content-length"]) == len(response.content)


def test_onnx_model_is_an_addition_of_ours(stage: Stage, client: V3Client) -> None:
    identity = client.ready("onnx")
    store_exports(stage, identity, BOTH)
    response = client.http.get(f"/v3/classifiers/{identity}/onnx_model")
    assert (response.status_code, response.content) == (200, BODY + b" and another head")
    assert response.headers["content-disposition"] == f'attachment; filename="{identity}.onnx"'


def test_the_bill_of_materials_of_the_served_revision_is_an_addition_of_ours(stage: Stage, client: V3Client) -> None:
    identity = client.ready("bom")
    revision = spec_revision(parse_classifier(stage.classifier(identity)).spec)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    stage.run(stage.objects.put(location.artifact_key(revision, BILL_OF_MATERIALS), b'{"bomFormat": "CycloneDX"}'))
    response = client.http.get(f"/v3/classifiers/{identity}/bom")
    assert (response.status_code, response.content) == (200, b'{"bomFormat": "CycloneDX"}')
    assert response.headers["content-disposition"] == f'attachment; filename="{identity}.cdx.json"'


def test_a_revision_of_an_earlier_release_has_no_bill_of_materials_and_says_so(client: V3Client) -> None:
    identity = client.ready("nobom")
    words = "has no bill of materials, because an earlier release trained it; retrain the classifier"
    assert_error(client.http.get(f"/v3/classifiers/{identity}/bom"), 404, "not_found", words)


def store_page(stage: Stage, key: str, text: str) -> None:
    stage.run(stage.objects.put(key, text.encode()))


def test_the_report_of_a_classifier_that_serves_is_that_of_its_training(stage: Stage, client: V3Client) -> None:
    identity = client.ready("report")
    revision = spec_revision(parse_classifier(stage.classifier(identity)).spec)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    store_page(stage, location.artifact_key(revision, REPORT_PAGE), "<p>trained</p>")
    response = client.http.get(f"/v3/classifiers/{identity}/report")
    assert (response.status_code, response.text) == (200, "<p>trained</p>")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == f'attachment; filename="{identity}.html"'


@pytest.mark.parametrize("field", ["trainingRevision", "failedRevision"])
def test_the_report_of_a_newer_check_comes_first(stage: Stage, client: V3Client, field: str) -> None:
    identity = client.ready("checked")
    manifest = stage.classifier(identity)
    served = manifest["status"]["servedRevision"]
    manifest["status"].update({field: "f" * 10, "attempt": 7})
    stage.put_classifier(manifest)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    store_page(stage, location.artifact_key(served, REPORT_PAGE), "<p>trained</p>")
    store_page(stage, location.training_key("f" * 10, 7, CHECK_PAGE), "<p>checked</p>")
    assert client.http.get(f"/v3/classifiers/{identity}/report").text == "<p>checked</p>"


def test_the_report_of_a_revision_that_waits_for_approval_comes_first(stage: Stage, client: V3Client) -> None:
    identity = client.ready("approval")
    served = stage.classifier(identity)["status"]["servedRevision"]
    client.retrain(identity, STORK)
    stage.await_approval(identity, "it waits for approval")
    waiting = spec_revision(parse_classifier(stage.classifier(identity)).spec)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    store_page(stage, location.artifact_key(served, REPORT_PAGE), "<p>served</p>")
    store_page(stage, location.artifact_key(waiting, REPORT_PAGE), "<p>waiting</p>")
    assert client.http.get(f"/v3/classifiers/{identity}/report").text == "<p>waiting</p>"


def test_a_classifier_without_a_report_says_so(client: V3Client) -> None:
    identity = client.created("noreport")
    words = "has no report: its images were not checked"
    assert_error(client.http.get(f"/v3/classifiers/{identity}/report"), 404, "not_found", words)


@pytest.mark.contract_row("A1/core_ml_enabled")
def test_details_say_whether_there_is_a_core_ml_model(stage: Stage, client: V3Client) -> None:
    enabled, disabled = client.ready("enabled"), client.ready("disabled")
    store_exports(stage, enabled, BOTH)
    store_exports(stage, disabled, {ExportFormat.ONNX: b"head"})
    assert [client.get(identity).json()["core_ml_enabled"] for identity in (enabled, disabled)] == [True, False]
    assert_error(client.http.get(f"/v3/classifiers/{disabled}/core_ml_model"), 404, "not_found", "core_ml_enabled")


@pytest.mark.contract_row("A1/core_ml_enabled")
@pytest.mark.parametrize("served", [False, True], ids=["not yet served", "served"])
def test_classifier_from_published_weights_never_promises_a_core_ml_model(stage: Stage, client: V3Client, served: bool) -> None:
    identity = f"published_{1 + served}"
    status = {"classifierID": identity} | ({"servedRevision": "0" * 10, "settledRevision": "0" * 10} if served else {})
    stage.put_classifier(
        {
            "metadata": {"name": build_object_name(identity), "labels": {CLASSIFIER_ID_LABEL: identity}},
            "spec": {"pretrained": {"weights": {"url": "file:///weights/"}}},
            "status": status,
        }
    )
    assert client.get(identity).json()["core_ml_enabled"] is False


@pytest.mark.contract_row("B6")
def test_while_retraining_it_is_the_old_definition(stage: Stage, client: V3Client) -> None:
    identity = client.ready("retraining")
    store_exports(stage, identity, BOTH)
    served = described(stage, identity, b" and a head")
    client.retrain(identity, STORK)
    response = client.http.get(f"/v3/classifiers/{identity}/core_ml_model")
    assert response.content == served


@pytest.mark.contract_row("B6")
def test_before_the_first_training_has_ended_it_is_404(client: V3Client) -> None:
    identity = client.created("training")
    assert_error(client.http.get(f"/v3/classifiers/{identity}/core_ml_model"), 404, "not_found", "training")


def test_after_a_failed_first_training_waiting_is_not_advised(stage: Stage, client: V3Client) -> None:
    identity = client.created("failed")
    stage.fail_training(identity, "too few examples")
    words = f"The classifier {identity} has no model: its training failed or its revision was refused; see explanation"
    assert_error(client.http.get(f"/v3/classifiers/{identity}/onnx_model"), 404, "not_found", words)


def test_before_an_approval_there_is_no_export(stage: Stage, client: V3Client) -> None:
    identity = client.created("waiting")
    stage.await_approval(identity, "it waits for approval")
    words = f"The classifier {identity} has no model yet: its revision waits for approval; see explanation"
    assert_error(client.http.get(f"/v3/classifiers/{identity}/onnx_model"), 404, "not_found", words)


@pytest.mark.parametrize(("path", "kind"), [("core_ml_model", "Core ML"), ("onnx_model", "ONNX")])
def test_pretrained_classifier_has_no_exports_and_says_why(stage: Stage, client: V3Client, path: str, kind: str) -> None:
    manifest = {
        "metadata": {"name": "given", "labels": {CLASSIFIER_ID_LABEL: "given_7"}},
        "spec": {"pretrained": {"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}},
        "status": {"classifierID": "given_7", "servedRevision": "abc"},
    }
    stage.put_classifier(manifest)
    words = f"comes from published weights and has no {kind} export; use the original"
    assert_error(client.http.get(f"/v3/classifiers/given_7/{path}"), 404, "not_found", words)


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_damaged_part_is_503_and_not_half_a_file(stage: Stage, client: V3Client, damage: str) -> None:
    identity = client.ready("damaged")
    store_exports(stage, identity, BOTH)
    (path,) = stage.store_folder.rglob(f"artifacts/{identity}/*/head.mlmodel")
    path.unlink() if damage == "missing" else path.write_bytes(b"ha")
    assert_error(client.http.get(f"/v3/classifiers/{identity}/core_ml_model"), 503, "unavailable")


def test_head_request_returns_the_size(stage: Stage, client: V3Client) -> None:
    identity = client.ready("head")
    store_exports(stage, identity, BOTH)
    response = client.http.head(f"/v3/classifiers/{identity}/core_ml_model")
    size_bytes = len(described(stage, identity, b" and a head"))
    assert (response.content, int(response.headers["content-length"])) == (b"", size_bytes)


# Downloads whose clients do not read


@pytest.fixture(scope="module")
def large(stage: Stage, client: V3Client) -> str:
    """The id of a classifier whose model is larger than the socket buffers."""
    identity = client.ready("large")
    store_exports(stage, identity, {ExportFormat.CORE_ML: bytes(24 * 1024 * 1024)})
    return identity


@contextmanager
def stalled_downloads(gateway: GatewayInstance, identity: str, count: int) -> Iterator[list[socket.socket]]:
    """Connections that request a model and do not read it."""
    with ExitStack() as opened:
        connections = []
        for _ in range(count):
            connection = opened.enter_context(closing(socket.socket()))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", gateway.port))
            connection.sendall(head("GET", f"/v3/classifiers/{identity}/core_ml_model?version=2018-03-19"))
            connections.append(connection)
        yield connections


def begun(connections: list[socket.socket]) -> int:
    """How many of them have received data."""
    return len(select.select(connections, [], [], 0)[0])


def test_tenant_has_only_its_share_of_downloads_at_a_time(stage: Stage, large: str) -> None:
    gateway = stage.start_gateway(max_concurrent_downloads=4)
    polling = connect(gateway, stage)
    with stalled_downloads(gateway, large, 8) as connections:
        wait_for(lambda: begun(connections) >= 2, "two downloads have begun")
        assert {polling.get(large).status_code for _ in range(30)} == {200}
        assert begun(connections) == 2


def test_client_that_stops_reading_is_disconnected(stage: Stage, large: str) -> None:
    gateway = stage.start_gateway(body_timeout_seconds=0.3)
    with stalled_downloads(gateway, large, 1):
        ended = 'route="/v3/classifiers/{classifier_id}/core_ml_model"'
        wait_for(lambda: ended in httpx.get(f"{gateway.internal_address}/metrics").text, "the download has ended")
