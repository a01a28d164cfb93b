"""The cards of the management API: what they show, and where they come from."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import NAMESPACE, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import V3Client, connect

FIGURES = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "0.967"}, "judgedImages": 100}


def put_from_manifest(stage: Stage, name: str, **metadata: Any) -> str:
    """A Classifier that the gateway did not create, and its id."""
    classifier_id = f"{name}_7"
    labels = {CLASSIFIER_ID_LABEL: classifier_id, **metadata.pop("labels", {})}
    classes = [{"name": item, "examples": [{"url": f"https://example.org/{item}.zip"}]} for item in ("heron", "owl")]
    spec = {"classes": classes}
    stage.put_classifier({"metadata": {"name": f"{name}-7", "labels": labels, **metadata}, "spec": spec})
    return classifier_id


def wait_for_card(management: ManagementClient, classifier_id: str) -> Any:
    wait_for(lambda: management.card(classifier_id) is not None, f"a card of {classifier_id}")
    return management.card(classifier_id)


def test_card_of_a_new_classifier_has_no_unknown_values(management: ManagementClient) -> None:
    classifier_id = management.v3.created("cards")
    card = management.card(classifier_id)
    assert {name: card[name] for name in card if name not in ("created", "updated", "current_revision")} == {
        "classifier_id": classifier_id,
        "name": "cards",
        "resource": f"{NAMESPACE}/{classifier_id.replace('_', '-')}",
        "status": "training",
        "managed_by": "REST",
        "writable": True,
        "class_count": 2,
    }


def test_card_of_a_served_classifier_has_its_accuracy_with_interval_and_images(management: ManagementClient) -> None:
    classifier_id = management.v3.created("served")
    management.v3.stage.finish_training(classifier_id, figures=FIGURES)
    wait_for(lambda: management.card(classifier_id)["status"] == "ready", "the card is ready")
    card = management.card(classifier_id)
    assert card["accuracy"] == {"value": 0.934, "lower": 0.871, "upper": 0.967, "images": 100}
    assert card["served_revision"] == card["current_revision"]
    assert card["reason"] == "Served"


def test_card_says_why_a_training_failed(management: ManagementClient) -> None:
    classifier_id = management.v3.created("failed")
    management.v3.stage.fail_training(classifier_id, "class owl has 3 examples; add at least 7")
    wait_for(lambda: management.card(classifier_id)["status"] == "failed", "the card has failed")
    assert management.card(classifier_id)["explanation"] == "class owl has 3 examples; add at least 7"


def test_card_names_the_revision_that_waits_for_approval(management: ManagementClient) -> None:
    classifier_id = management.v3.created("waiting")
    management.v3.stage.await_approval(classifier_id, "waits for approval")
    wait_for(lambda: "awaits_approval" in management.card(classifier_id), "the card waits for approval")
    card = management.card(classifier_id)
    assert (card["awaits_approval"], card["explanation"]) == (card["current_revision"], "waits for approval")


def test_card_says_what_a_queued_training_waits_for(management: ManagementClient) -> None:
    classifier_id = management.v3.created("queued")
    manifest = management.v3.stage.classifier(classifier_id)
    message = "ocelli-queued waits for its turn"
    manifest["status"] = {"conditions": [{"type": "Trained", "status": "False", "reason": "Queued", "message": message}]}
    management.v3.stage.put_classifier(manifest)
    wait_for(lambda: "explanation" in management.card(classifier_id), "the card explains itself")
    assert management.card(classifier_id)["explanation"] == message


MANAGERS: dict[str, dict[str, Any]] = {
    "kubectl": {"managedFields": [{"manager": "ocelli-operator"}, {"manager": "kubectl-client-side-apply"}]},
    "Helm": {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
    "Argo CD": {"annotations": {"argocd.argoproj.io/tracking-id": "birds:ocelli.dev/Classifier:team-a/birds"}},
    "Flux": {"labels": {"helm.toolkit.fluxcd.io/name": "birds", "app.kubernetes.io/managed-by": "Helm"}},
}


@pytest.mark.parametrize("manager", MANAGERS)
def test_card_says_what_a_classifier_is_changed_with(management: ManagementClient, manager: str) -> None:
    name = manager.lower().replace(" ", "")
    card = wait_for_card(management, put_from_manifest(management.v3.stage, name, **MANAGERS[manager]))
    assert (card["managed_by"], card["writable"]) == (manager, False)


def test_card_leaves_out_a_manager_that_nothing_names(management: ManagementClient) -> None:
    card = wait_for_card(management, put_from_manifest(management.v3.stage, "unnamed"))
    assert "managed_by" not in card


def test_classifier_of_a_later_release_is_left_out_of_the_list_and_hides_no_other(management: ManagementClient) -> None:
    stage = management.v3.stage
    classifier_id = put_from_manifest(stage, "later", labels={})
    manifest = stage.classifier(classifier_id)
    manifest["spec"]["dataRetention"] = "KeepForAWeek"
    stage.put_classifier(manifest)
    after = put_from_manifest(stage, "after")
    assert wait_for_card(management, after) is not None
    assert management.card(classifier_id) is None


def test_list_is_answered_from_memory_without_the_kubernetes_api(management: ManagementClient) -> None:
    classifier_id = management.v3.created("cached")
    cluster = management.v3.stage.cluster
    cluster.reachable = False
    try:
        assert management.card(classifier_id) is not None
    finally:
        cluster.reachable = True


def test_list_does_not_need_a_version(client: V3Client) -> None:
    response = httpx.get(f"{client.http.base_url}/ocelli/v1/classifiers", headers=client.http.headers)
    assert response.status_code == 200


def test_unknown_address_of_the_management_api_needs_credentials_first(client: V3Client) -> None:
    addresses = [f"{client.http.base_url}/ocelli/v1/{path}" for path in ("nothing", "classifiers")]
    assert [httpx.get(address).status_code for address in addresses] == [401, 401]


def test_deleted_classifier_leaves_the_list_at_once(management: ManagementClient) -> None:
    classifier_id = management.v3.created("deleted")
    management.v3.delete(classifier_id)
    assert management.card(classifier_id) is None


def test_list_has_nothing_of_another_tenant(management: ManagementClient, gateway: GatewayInstance) -> None:
    classifier_id = management.v3.created("private")
    other = connect(gateway, management.v3.stage, "bert", "other")
    assert classifier_id not in other.http.get("/ocelli/v1/classifiers").text
