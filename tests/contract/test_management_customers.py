"""Customers and the learning opt-out, with the headers of v3, where classifiers are created and grown from stored uploads."""

from __future__ import annotations

from typing import Any

from tests.contract.test_management_uploads import HERONS, OWLS, STORKS, definition_of, digest_of, draw, put, ready, stored
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.v3_client import assert_error

OPT_OUT = {"X-Watson-Learning-Opt-Out": "true"}
CUSTOMER = {"X-Watson-Metadata": "customer_id=customer@example.org"}


def prepare(management: ManagementClient, name: str) -> str:
    """The id of a classifier whose uploads are stored."""
    classifier_id = draw(management, name)
    for content in (HERONS, OWLS):
        put(management, classifier_id, content)
    return classifier_id


def read_spec(management: ManagementClient, classifier_id: str) -> Any:
    return management.v3.stage.classifier(classifier_id)["spec"]


def delete_user_data(management: ManagementClient) -> None:
    response = management.v3.http.delete("/v3/user_data", params={"customer_id": "customer@example.org"})
    assert response.status_code == 202, response.text


def test_create_with_the_opt_out_of_v3_keeps_no_images(management: ManagementClient) -> None:
    classifier_id = prepare(management, "opted")
    management.call("POST", "/classifiers", json=definition_of(classifier_id, "opted"), headers=OPT_OUT)
    assert read_spec(management, classifier_id)["dataRetention"] == "DropAfterTraining"


def test_create_sent_again_without_the_opt_out_is_refused(management: ManagementClient) -> None:
    classifier_id = prepare(management, "opted")
    body = definition_of(classifier_id, "opted")
    management.call("POST", "/classifiers", json=body, headers=OPT_OUT)
    assert management.call("POST", "/classifiers", json=body, headers=OPT_OUT)["classifier_id"] == classifier_id
    assert_error(management.send("POST", "/classifiers", json=body), 409, "conflict", "another definition")


def test_classifier_of_a_customer_is_deleted_with_its_data(management: ManagementClient) -> None:
    classifier_id = prepare(management, "customers")
    management.call("POST", "/classifiers", json=definition_of(classifier_id, "customers"), headers=CUSTOMER)
    delete_user_data(management)
    assert management.send("GET", f"/classifiers/{classifier_id}").status_code == 404


def test_examples_of_a_customer_are_erased_with_its_data(management: ManagementClient) -> None:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    body = {"classes": [{"class": "owl", "uploads": [digest_of(STORKS)]}]}
    management.call("POST", f"/classifiers/{classifier_id}/examples", json=body, headers=CUSTOMER)
    delete_user_data(management)
    owls = read_spec(management, classifier_id)["classes"][1]["examples"]
    assert [source.get("erased", False) for source in owls] == [False, True]
    assert stored(management, classifier_id) == sorted(map(digest_of, (HERONS, OWLS)))


def test_examples_that_were_erased_can_be_added_again(management: ManagementClient) -> None:
    classifier_id = ready(management)
    body = {"classes": [{"class": "owl", "uploads": [digest_of(STORKS)]}]}
    for _ in range(2):
        put(management, classifier_id, STORKS)
        management.call("POST", f"/classifiers/{classifier_id}/examples", json=body, headers=CUSTOMER)
        management.v3.stage.finish_training(classifier_id)
        owls = read_spec(management, classifier_id)["classes"][1]["examples"]
        assert not owls[-1].get("erased", False)
        delete_user_data(management)
    owls = read_spec(management, classifier_id)["classes"][1]["examples"]
    assert [source.get("erased", False) for source in owls] == [False, True, True]


def test_opt_out_of_added_examples_applies_and_is_answered_again(management: ManagementClient) -> None:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    path, body = f"/classifiers/{classifier_id}/examples", {"negative_examples": [digest_of(STORKS)]}
    first = management.call("POST", path, json=body, headers=OPT_OUT)
    assert read_spec(management, classifier_id)["dataRetention"] == "DropAfterTraining"
    assert management.call("POST", path, json=body, headers=OPT_OUT)["negative_sources"] == first["negative_sources"]
    assert read_spec(management, classifier_id)["retrainNonce"] == 1


def test_opt_out_of_images_that_are_there_already_is_not_ignored(management: ManagementClient) -> None:
    classifier_id = ready(management)
    body = {"classes": [{"class": "owl", "uploads": [digest_of(OWLS)]}]}
    management.call("POST", f"/classifiers/{classifier_id}/examples", json=body, headers=OPT_OUT)
    assert read_spec(management, classifier_id)["dataRetention"] == "DropAfterTraining"


def test_nothing_is_added_after_the_opt_out(management: ManagementClient) -> None:
    classifier_id = prepare(management, "opted")
    management.call("POST", "/classifiers", json=definition_of(classifier_id, "opted"), headers=OPT_OUT)
    management.v3.stage.finish_training(classifier_id)
    body = {"negative_examples": [digest_of(OWLS)]}
    response = management.send("POST", f"/classifiers/{classifier_id}/examples", json=body)
    assert_error(response, 400, None, "opt-out")
