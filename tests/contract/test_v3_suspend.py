"""Checking images without a training: the field `suspend` of create and retrain, and what the details show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway_harness.images import examples
from tests.gateway_harness.stage import Stage
from tests.gateway_harness.v3_client import V3Client, assert_error

STORK = [("stork_positive_examples", ("stork.zip", examples(3)))]
FOUND = 'every source was read: 20 different images ("heron" 10, "owl" 10)'


def create_suspended(client: V3Client) -> str:
    identity: str = client.create(params={"suspend": "true"}).json()["classifier_id"]
    return identity


def set_conditions(stage: Stage, identity: str, *conditions: dict[str, Any], **status: Any) -> None:
    manifest = stage.classifier(identity)
    manifest["status"] = {**manifest.get("status", {}), "conditions": list(conditions), **status}
    stage.put_classifier(manifest)


def change(client: V3Client, identity: str, **options: Any) -> Any:
    return client.http.post(f"/v3/classifiers/{identity}", **options)


@pytest.mark.contract_row("A1/suspend")
@pytest.mark.parametrize("value", ["true", "TRUE", " True "])
def test_a_new_classifier_can_be_suspended_by_query(stage: Stage, client: V3Client, value: str) -> None:
    body = client.create(params={"suspend": value}).json()
    assert (body["status"], body["suspended"]) == ("training", True)
    assert stage.classifier(body["classifier_id"])["spec"]["suspend"] is True


def test_a_new_classifier_can_be_suspended_by_form(stage: Stage, client: V3Client) -> None:
    files = [("suspend", (None, b"true")), *STORK, ("owl_positive_examples", ("owl.zip", examples(2)))]
    identity = client.create(files=files).json()["classifier_id"]  # type: ignore[arg-type]
    assert stage.classifier(identity)["spec"]["suspend"] is True


@pytest.mark.parametrize("params", [{}, {"suspend": ""}, {"suspend": "false"}])
def test_otherwise_it_is_trained(stage: Stage, client: V3Client, params: dict[str, str]) -> None:
    body = client.create(params=params).json()
    assert "suspended" not in body
    assert "suspend" not in stage.classifier(body["classifier_id"])["spec"]


@pytest.mark.contract_row("C2/suspend is neither true nor false")
@pytest.mark.parametrize("value", ["yes", "1", "null"])
def test_other_values_are_refused_and_create_nothing(stage: Stage, client: V3Client, value: str) -> None:
    before = stage.stored_uploads()
    assert_error(client.create(params={"suspend": value}), 400, "parameter_error", '"suspend"', "true or false")
    assert stage.stored_uploads() == before


@pytest.mark.contract_row("A3/Suspended", "A1/suspended")
def test_the_details_show_what_the_check_found(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    assert "data_check" not in client.get(identity).json()
    set_conditions(
        stage,
        identity,
        {"type": "Trained", "status": "False", "reason": "Suspended", "message": "suspended"},
        {"type": "DataValid", "status": "True", "reason": "Checked", "message": FOUND},
    )
    body = client.get(identity).json()
    assert (body["status"], body["suspended"], body["data_check"]) == ("training", True, FOUND)


@pytest.mark.contract_row("A1/data_check")
def test_the_details_show_bad_data_as_a_failure(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    stage.fail_training(identity, "2 faults: class a | class b")
    body = client.get(identity).json()
    assert (body["status"], body["suspended"], "data_check" in body) == ("failed", True, False)
    assert "2 faults: class a | class b" in body["explanation"]


@pytest.mark.contract_row("A4/Suspended")
def test_a_retrain_without_images_resumes_and_changes_nothing_else(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    before = stage.classifier(identity)["spec"]
    response = change(client, identity, params={"suspend": "false"})
    assert (response.status_code, response.json()["status"]) == (200, "training")
    assert "suspended" not in response.json()
    assert stage.classifier(identity)["spec"] == {**before, "suspend": False}


def test_a_form_with_nothing_else_resumes_as_well(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    assert change(client, identity, files=[("suspend", (None, b"false"))]).status_code == 200
    assert stage.classifier(identity)["spec"]["suspend"] is False


def test_resuming_twice_writes_once(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    change(client, identity, params={"suspend": "false"})
    before = stage.classifier(identity)
    assert change(client, identity, params={"suspend": "false"}).status_code == 200
    assert stage.classifier(identity) == before


def test_a_first_training_can_be_suspended(stage: Stage, client: V3Client) -> None:
    identity = client.created()
    assert change(client, identity, params={"suspend": "true"}).json()["suspended"] is True


def test_more_images_can_come_while_nothing_is_trained(stage: Stage, client: V3Client) -> None:
    identity = create_suspended(client)
    response = client.retrain(identity, STORK)
    assert (response.status_code, response.json()["status"], response.json()["suspended"]) == (200, "training", True)
    assert [item["name"] for item in stage.classifier(identity)["spec"]["classes"]] == ["heron", "owl", "stork"]


@pytest.mark.parametrize(("value", "suspended"), [("true", True), ("false", False)])
def test_a_retrain_can_suspend_or_resume(stage: Stage, client: V3Client, value: str, suspended: bool) -> None:
    identity = create_suspended(client) if not suspended else client.ready()
    assert change(client, identity, params={"suspend": value}, files=STORK).status_code == 200
    spec = stage.classifier(identity)["spec"]
    assert (spec["suspend"], spec["retrainNonce"]) == (suspended, 1)


def test_an_opted_out_classifier_can_be_resumed(stage: Stage, client: V3Client) -> None:
    headers = {"X-Watson-Learning-Opt-Out": "true"}
    identity = client.create(params={"suspend": "true"}, headers=headers).json()["classifier_id"]
    assert change(client, identity, params={"suspend": "false"}).status_code == 200


def test_a_classifier_of_a_manifest_keeps_its_suspension(stage: Stage, client: V3Client) -> None:
    source = {"url": "https://data.example.com/a.zip"}
    stage.put_classifier(
        {
            "metadata": {"name": "made", "labels": {"ocelli.dev/classifier-id": "made_77"}},
            "spec": {"suspend": True, "classes": [{"name": name, "examples": [source]} for name in ("a", "b")]},
        }
    )
    assert_error(change(client, "made_77", params={"suspend": "false"}), 409, "conflict")


def test_an_unknown_classifier_cannot_be_resumed(client: V3Client) -> None:
    assert_error(change(client, "nobody_1", params={"suspend": "false"}), 404, "not_found")


def test_a_retrain_with_nothing_at_all_is_still_refused(client: V3Client) -> None:
    assert_error(change(client, client.ready(), files=[("other", (None, b"x"))]), 400, None, "No examples")
