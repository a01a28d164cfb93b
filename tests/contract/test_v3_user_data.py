"""Ownership and retention of images: learning opt-out, customers, user data (A1, A4, B5 of the contract)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ocelli_api.classifier import CUSTOMER_LABEL
from ocelli_api.names import build_object_name, customer_key
from ocelli_cluster.client import ApiError
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_storage.documents import LIMITS_BYTES
from ocelli_storage.layout import CHECK_PAGE, DEFINITION, REPORT_PAGE, ClassifierLocation
from ocelli_storage.object_store import StoredObject
from ocelli_storage.thumbnails import build_thumbnail
from tests.gateway_harness.images import examples
from tests.gateway_harness.stage import NAMESPACE, GatewayInstance, Stage
from tests.gateway_harness.v3_client import TWO_SETS, VERSION, V3Client, assert_error, connect

CUSTOMER = "customer@example.org"
METADATA = {"X-Watson-Metadata": f"customer_id={CUSTOMER}"}
STORK = [("stork_positive_examples", ("stork.zip", examples(31)))]
CRANE = [("crane_positive_examples", ("crane.zip", examples(41)))]


def retrain_for_customer(client: V3Client, identity: str, files: Any = STORK) -> None:
    response = client.http.post(f"/v3/classifiers/{identity}", files=files, headers=METADATA)
    assert response.status_code == 200, response.text


def delete_user_data(client: V3Client, customer: str = CUSTOMER) -> None:
    response = client.http.delete("/v3/user_data", params={**VERSION, "customer_id": customer})
    assert (response.status_code, response.json()) == (202, {})


def sources_of(stage: Stage, identity: str) -> list[dict[str, Any]]:
    spec = stage.classifier(identity)["spec"]
    return [source for item in spec["classes"] for source in item["examples"]]


def uploads_of(stage: Stage, identity: str) -> list[str]:
    return [path for path in stage.stored_uploads() if f"/{identity}/" in path]


# Learning opt-out


@pytest.mark.contract_row("A1/X-Watson-Learning-Opt-Out: true or 1")
@pytest.mark.parametrize("value", ["true", "1", "TRUE"])
def test_opt_out_is_kept_with_the_object(stage: Stage, client: V3Client, value: str) -> None:
    identity = client.create(headers={"X-Watson-Learning-Opt-Out": value}).json()["classifier_id"]
    assert stage.classifier(identity)["spec"]["dataRetention"] == "DropAfterTraining"


@pytest.mark.parametrize("value", ["false", "0", "", "yes"])
def test_other_values_opt_out_of_nothing(stage: Stage, client: V3Client, value: str) -> None:
    identity = client.create(headers={"X-Watson-Learning-Opt-Out": value}).json()["classifier_id"]
    assert "dataRetention" not in stage.classifier(identity)["spec"]


@pytest.mark.contract_row("A4/Refused")
def test_retrain_of_an_opted_out_classifier_is_refused_and_changes_nothing(stage: Stage, client: V3Client) -> None:
    identity = client.create(headers={"X-Watson-Learning-Opt-Out": "true"}).json()["classifier_id"]
    stage.finish_training(identity)
    before = stage.classifier(identity)
    assert_error(client.retrain(identity, STORK), 400, None, "opt-out")
    assert stage.classifier(identity) == before


def test_opt_out_of_a_retrain_applies_permanently(stage: Stage, client: V3Client) -> None:
    identity = client.ready("later")
    client.http.post(f"/v3/classifiers/{identity}", files=STORK, headers={"X-Watson-Learning-Opt-Out": "true"})
    stage.finish_training(identity)
    assert_error(client.retrain(identity, TWO_SETS), 400, None, "opt-out")


# Customers


@pytest.mark.contract_row("A1/X-Watson-Metadata: customer_id={id}")
def test_customer_is_kept_by_a_key_and_not_by_name(stage: Stage, client: V3Client) -> None:
    identity = client.create(headers=METADATA).json()["classifier_id"]
    manifest = stage.classifier(identity)
    assert manifest["metadata"]["labels"][CUSTOMER_LABEL] == customer_key(CUSTOMER)
    assert {source["customer"] for source in sources_of(stage, identity)} == {customer_key(CUSTOMER)}
    assert CUSTOMER not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("header", "customer"),
    [
        ("customer_id=abc", "abc"),
        ("other = x ; customer_id = abc ; more=y", "abc"),
        ("customer_id=a=b", "a=b"),
        ("customer_id=", None),
        ("nonsense", None),
    ],
)
def test_header_can_contain_other_pairs(stage: Stage, client: V3Client, header: str, customer: str | None) -> None:
    identity = client.create(headers={"X-Watson-Metadata": header}).json()["classifier_id"]
    label = stage.classifier(identity)["metadata"]["labels"].get(CUSTOMER_LABEL)
    assert label == (None if customer is None else customer_key(customer))


# User data


@pytest.mark.contract_row("B5", "0.1/DELETE /v3/user_data")
def test_classifiers_of_the_customer_are_deleted(stage: Stage, client: V3Client) -> None:
    identity = client.create(headers=METADATA).json()["classifier_id"]
    other = client.created("of nobody")
    delete_user_data(client)
    assert [client.get(item).status_code for item in (identity, other)] == [404, 200]


@pytest.mark.contract_row("B5")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("customer", ["Müller", "à"], ids=["umlaut", "ends as a blank does"])
def test_customer_outside_ascii_is_the_same_in_header_and_query(client: V3Client, customer: str, encoding: str) -> None:
    headers = {b"X-Watson-Metadata": f"customer_id={customer}".encode(encoding)}
    identity = client.create(headers=headers).json()["classifier_id"]
    delete_user_data(client, customer)
    assert client.get(identity).status_code == 404


@pytest.mark.contract_row("B5")
def test_nothing_tied_to_the_customer_is_202_as_well(client: V3Client) -> None:
    delete_user_data(client, "nobody")


@pytest.mark.contract_row("B5")
def test_images_of_the_customer_are_deleted_from_object_store_and_definitions(stage: Stage, client: V3Client) -> None:
    identity = client.ready("mixed")
    before = uploads_of(stage, identity)
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    delete_user_data(client)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    definitions = [
        json.loads(path.read_text()) for path in (stage.store_folder / location.artifacts_prefix).rglob("definition.json")
    ]
    stored = [source for item in definitions for kind in item["classes"] for source in kind["examples"]]
    assert uploads_of(stage, identity) == before
    assert [source.get("erased") for source in sources_of(stage, identity)] == [None, None, True]
    assert len(definitions) == 2
    assert {bool(source.get("erased")) for source in stored if source.get("customer")} == {True}


def test_what_was_computed_of_the_customers_images_is_deleted(stage: Stage, client: V3Client) -> None:
    identity = client.ready("mixed")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    kept = [location.image_data_key("0" * 10, customer, "features.bin") for customer in (None, customer_key("another"))]
    erased = [location.image_data_key(revision, customer_key(CUSTOMER), "features.bin") for revision in ("0" * 10, "1" * 10)]
    for key in (*kept, *erased):
        (stage.store_folder / key).parent.mkdir(parents=True, exist_ok=True)
        (stage.store_folder / key).write_bytes(b"scores")
    delete_user_data(client)
    assert [key for key in (*kept, *erased) if (stage.store_folder / key).exists()] == kept


def test_checked_images_and_thumbnails_of_the_customer_are_deleted(stage: Stage, client: V3Client) -> None:
    identity = client.ready("mixed")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    customer, other = customer_key(CUSTOMER), customer_key("another")
    definition = json.dumps({"classes": [{"name": "stork", "examples": [{"upload": "a" * 64, "customer": customer}]}]})
    mine, others = build_thumbnail(b"of the customer", customer), build_thumbnail(b"of another", other)
    page = f"<h1>x</h1>\n{mine}\n{others}\n"
    pages = [location.training_key("0" * 10, 3, CHECK_PAGE), location.artifact_key("0" * 10, REPORT_PAGE)]
    erased, kept = (location.checked_key("0" * 10, 3, owner, "pixels.bin") for owner in (customer, other))
    documents = {
        location.training_key("0" * 10, 3, DEFINITION): definition,
        location.definition_key("0" * 10): definition,
        **dict.fromkeys(pages, page),
        erased: "pixels",
        kept: "pixels",
    }
    for key, text in documents.items():
        (stage.store_folder / key).parent.mkdir(parents=True, exist_ok=True)
        (stage.store_folder / key).write_text(text)
    delete_user_data(client)
    assert not (stage.store_folder / erased).exists()
    assert (stage.store_folder / kept).exists()
    for key in pages:
        assert mine not in (stage.store_folder / key).read_text()
        assert others in (stage.store_folder / key).read_text()


def test_test_images_of_the_customer_are_erased_like_examples(stage: Stage, client: V3Client) -> None:
    identity = client.ready("tested")
    manifest = stage.classifier(identity)
    source = {"upload": "a" * 64, "customer": customer_key(CUSTOMER)}
    name = manifest["spec"]["classes"][0]["name"]
    manifest["spec"]["evaluation"] = {"holdoutFraction": 0.2, "classes": [{"name": name, "examples": [source]}]}
    stage.put_classifier(manifest)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    (stage.store_folder / location.upload_key("a" * 64)).write_bytes(b"zip")
    delete_user_data(client)
    (tested,) = stage.classifier(identity)["spec"]["evaluation"]["classes"]
    assert tested["examples"] == [{**source, "erased": True}]
    assert not (stage.store_folder / location.upload_key("a" * 64)).exists()


@pytest.mark.parametrize(
    "content", [b"[" * 50_000, b" " * (LIMITS_BYTES["definition.json"] + 1), b"7"], ids=["deep", "large", "7"]
)
def test_definition_that_a_tenants_pod_wrote_does_not_prevent_erasing(stage: Stage, client: V3Client, content: bytes) -> None:
    identity = client.ready("mixed")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=identity)
    (stage.store_folder / location.artifacts_prefix / ("0" * 10)).mkdir()
    (stage.store_folder / location.definition_key("0" * 10)).write_bytes(content)
    delete_user_data(client)
    assert [source.get("erased") for source in sources_of(stage, identity)] == [None, None, True]


def test_erasing_does_not_retrain(stage: Stage, client: V3Client) -> None:
    identity = client.ready("settled")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    delete_user_data(client)
    assert client.get(identity).json()["status"] == "ready"


def test_retrain_never_restores_an_erased_source(stage: Stage, client: V3Client, gateway: GatewayInstance) -> None:
    other = connect(stage.start_gateway(), stage)
    identity = client.ready("cached")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    # Both replicas have read the definition that is served.
    for replica in (client, other):
        replica.retrain(identity, CRANE)
        assert replica.get(identity).status_code == 200
    delete_user_data(client)
    other.retrain(identity, [("ibis_positive_examples", ("ibis.zip", examples(42)))])
    assert [source.get("erased") for source in sources_of(stage, identity) if source.get("customer")] == [True]


def test_zip_that_another_customer_also_sent_is_kept(stage: Stage, client: V3Client) -> None:
    identity = client.ready("shared", files=[*TWO_SETS, *STORK])
    before = uploads_of(stage, identity)
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    delete_user_data(client)
    assert uploads_of(stage, identity) == before


def test_interrupted_deletion_is_finished_by_the_next_call(stage: Stage, client: V3Client) -> None:
    identity = client.ready("cut short")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    before = uploads_of(stage, identity)
    # The object was marked, then the gateway died.
    manifest = stage.classifier(identity)
    for item in manifest["spec"]["classes"]:
        for source in item["examples"]:
            if source.get("customer"):
                source["erased"] = True
    stage.put_classifier(manifest)
    delete_user_data(client)
    assert len(uploads_of(stage, identity)) == len(before) - 1


def test_write_in_between_is_not_lost(stage: Stage, client: V3Client) -> None:
    identity = client.ready("contended")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)

    def scale() -> None:
        manifest = stage.cluster.find(CLASSIFIERS, NAMESPACE, build_object_name(identity))
        assert manifest is not None
        manifest["spec"]["serving"] = {"replicas": 3}
        stage.cluster.put(CLASSIFIERS, NAMESPACE, manifest)

    stage.call(lambda: setattr(stage.cluster, "before_patch", scale))
    delete_user_data(client)
    assert stage.classifier(identity)["spec"]["serving"] == {"replicas": 3}
    assert [source.get("erased") for source in sources_of(stage, identity)] == [None, None, True]


def digest_of(files: list[tuple[str, tuple[str, bytes]]]) -> str:
    (_, (_, data)) = files[0]
    return hashlib.sha256(data).hexdigest()


def test_bytes_of_a_replaced_retrain_are_deleted_too(stage: Stage, client: V3Client) -> None:
    identity = client.ready("replaced")
    before = uploads_of(stage, identity)
    retrain_for_customer(client, identity)
    client.retrain(identity, CRANE)
    delete_user_data(client)
    assert len(uploads_of(stage, identity)) == len(before) + 1
    assert not any(digest_of(STORK) in path for path in uploads_of(stage, identity))


def test_bytes_of_a_refused_retrain_are_deleted_too(stage: Stage, client: V3Client) -> None:
    identity = client.ready("refused")
    before = uploads_of(stage, identity)

    def refuse() -> None:
        raise ApiError(422, "the API server refuses it", "Invalid")

    stage.call(lambda: setattr(stage.cluster, "before_patch", refuse))
    response = client.http.post(f"/v3/classifiers/{identity}", files=STORK, headers=METADATA)
    assert response.status_code >= 400
    delete_user_data(client)
    assert uploads_of(stage, identity) == before


@pytest.mark.parametrize("object_changes", [True, False])
def test_retrain_stores_a_zip_again_that_was_erased_before_its_write(
    stage: Stage, client: V3Client, object_changes: bool
) -> None:
    identity = client.ready("taken")

    def erase() -> None:
        for path in stage.store_folder.rglob(f"{identity}/{digest_of(STORK)}.zip"):
            path.unlink()
        if object_changes:
            manifest = stage.cluster.find(CLASSIFIERS, NAMESPACE, build_object_name(identity))
            assert manifest is not None
            stage.cluster.put(CLASSIFIERS, NAMESPACE, manifest)

    stage.call(lambda: setattr(stage.cluster, "before_patch", erase))
    assert client.retrain(identity, STORK).status_code == 200
    assert any(digest_of(STORK) in path for path in uploads_of(stage, identity))


def test_erasure_keeps_the_zip_of_a_retrain_that_is_written_meanwhile(
    stage: Stage, client: V3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = client.ready("meanwhile")
    retrain_for_customer(client, identity)
    stage.finish_training(identity)
    list_objects = stage.objects.list_objects

    async def retrain_once_listed(prefix: str) -> list[StoredObject]:
        """The last definitions are listed when another retrain with the same zip is written."""
        found = await list_objects(prefix)
        if f"/artifacts/{identity}" in prefix:
            manifest = stage.cluster.find(CLASSIFIERS, NAMESPACE, build_object_name(identity))
            assert manifest is not None
            manifest["spec"]["classes"][0]["examples"].append({"upload": digest_of(STORK), "round": 7})
            stage.cluster.put(CLASSIFIERS, NAMESPACE, manifest)
        return found

    monkeypatch.setattr(stage.objects, "list_objects", retrain_once_listed)
    delete_user_data(client)
    monkeypatch.undo()
    assert any(digest_of(STORK) in path for path in uploads_of(stage, identity))


def test_data_of_another_tenants_customer_of_the_same_id_stays(
    stage: Stage, client: V3Client, gateway: GatewayInstance
) -> None:
    identity = client.create(headers=METADATA).json()["classifier_id"]
    delete_user_data(connect(gateway, stage, "bert", "other"))
    assert client.get(identity).status_code == 200


def test_manifest_made_classifier_without_rest_writes_is_unchanged(stage: Stage, client: V3Client) -> None:
    identity = client.create(headers=METADATA).json()["classifier_id"]
    manifest = stage.classifier(identity)
    del manifest["metadata"]["labels"]["ocelli.dev/created-by"]
    stage.put_classifier(manifest)
    delete_user_data(client)
    assert client.get(identity).status_code == 200


def test_kubernetes_that_does_not_answer_is_503_and_not_202(stage: Stage, client: V3Client) -> None:
    stage.cluster.reachable = False
    try:
        response = client.http.delete("/v3/user_data", params={**VERSION, "customer_id": CUSTOMER})
    finally:
        stage.cluster.reachable = True
    assert_error(response, 503, "unavailable")
