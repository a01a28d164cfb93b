"""Status, retrain and delete (sections A3, A4 and A6 of the REST contract)."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from ocelli_api.classifier import REST_WRITES_ANNOTATION, parse_classifier
from ocelli_api.names import build_stem
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_gateway.classifier_store import CONFIRMED_SECONDS
from tests.gateway_harness.images import examples, png
from tests.gateway_harness.stage import NAMESPACE, Stage, wait_for
from tests.gateway_harness.v3_client import TWO_SETS, Files, V3Client, assert_error, connect

STORK: Files = [("stork_positive_examples", ("stork.zip", examples(3)))]
CRANE: Files = [("crane_positive_examples", ("crane.zip", examples(4)))]
MORE_OWLS: Files = [("owl_positive_examples", ("more.zip", examples(5)))]
MORE_NEGATIVES: Files = [("negative_examples", ("negatives.zip", examples(6)))]
RETRAINED_AT = "2026-04-02T08:15:07.204Z"


def class_names(body: dict[str, object]) -> list[str]:
    classes = body["classes"]
    assert isinstance(classes, list)
    return [item["class"] for item in classes]


def apply_manifest(stage: Stage, name: str, **metadata: object) -> str:
    """A classifier that a manifest made; its id."""
    classifier_id = f"{build_stem(name)}_77"
    source = {"url": "https://data.example.com/a.zip"}
    stage.put_classifier(
        {
            "metadata": {"name": name, "labels": {"ocelli.dev/classifier-id": classifier_id}, **metadata},
            "spec": {"classes": [{"name": "a", "examples": [source]}, {"name": "b", "examples": [source]}]},
        }
    )
    return classifier_id


# A3


@pytest.mark.contract_row("A3", "A3/training")
def test_first_training_shows_as_training(client: V3Client) -> None:
    assert client.get(client.created()).json()["status"] == "training"


@pytest.mark.contract_row("A3/ready")
def test_served_definition_shows_as_ready(client: V3Client) -> None:
    body = client.get(client.ready()).json()
    assert (body["status"], class_names(body), "explanation" in body, "retrained" in body) == (
        "ready",
        ["heron", "owl"],
        False,
        False,
    )


@pytest.mark.contract_row("A3/failed", "A1/explanation")
def test_failed_first_training_shows_why(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    stage.fail_training(classifier_id, 'class "owl" has 3 usable images; add at least 7')
    body = client.get(classifier_id).json()
    assert (body["status"], body["explanation"]) == ("failed", 'class "owl" has 3 usable images; add at least 7')


def test_explanation_leaves_out_the_name_of_the_object(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    stage.fail_training(classifier_id, f'{parse_classifier(stage.classifier(classifier_id))}: class "owl" has 3 images')
    assert client.get(classifier_id).json()["explanation"] == 'class "owl" has 3 images'


FIGURES = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "0.967"}, "judgedImages": 100}


def shown_figures(body: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in body.items() if key.startswith("accuracy")}


@pytest.mark.contract_row("A1/Accuracy", "A1/accuracy", "A1/accuracy_interval")
def test_accuracy_is_that_of_the_served_revision(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    shown = [shown_figures(client.get(classifier_id).json())]
    stage.finish_training(classifier_id, figures=FIGURES)
    shown.append(shown_figures(client.get(classifier_id).json()))
    shown.append(shown_figures(client.retrain(classifier_id, STORK).json()))
    measured = {"accuracy": 0.934, "accuracy_interval": {"lower": 0.871, "upper": 0.967}}
    assert shown == [{}, measured, measured]


@pytest.mark.contract_row("A1/Accuracy", "A4/Failed retraining")
def test_the_accuracy_stays_after_a_failed_retraining(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    stage.finish_training(classifier_id, figures=FIGURES)
    client.retrain(classifier_id, STORK)
    stage.fail_training(classifier_id, 'class "stork" has 3 usable images; add at least 7')
    body = client.get(classifier_id).json()
    assert (body["status"], body["accuracy"]) == ("failed", 0.934)


@pytest.mark.contract_row("A1/Accuracy")
def test_revision_of_an_earlier_release_shows_no_accuracy(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    stage.finish_training(classifier_id, figures={"accuracy": "0.934"})
    assert shown_figures(client.get(classifier_id).json()) == {}


@pytest.mark.contract_row("A1/progress")
def test_running_training_shows_what_is_known_of_its_progress(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    assert "progress" not in client.get(classifier_id).json()
    manifest = stage.classifier(classifier_id)
    progress = {"percent": 40, "stage": "Extracting", "images": 64, "imagesTotal": 500, "device": "OpenVINO CPU float32"}
    status = manifest.get("status") or {"classifierID": classifier_id}
    stage.put_classifier({**manifest, "status": {**status, "progress": progress}})
    assert client.get(classifier_id).json()["progress"] == {
        "stage": "extracting",
        "percent": 40,
        "images": 64,
        "images_total": 500,
        "device": "OpenVINO CPU float32",
    }


@pytest.mark.contract_row("A1/progress")
def test_fine_tuning_shows_network_epoch_and_loss(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    manifest = stage.classifier(classifier_id)
    tuning = {"network": 2, "networks": 6, "epoch": 3, "epochs": 10}
    progress = {"percent": 40, "stage": "Fitting", "fineTuning": {**tuning, "loss": "0.1234"}}
    status = manifest.get("status") or {"classifierID": classifier_id}
    stage.put_classifier({**manifest, "status": {**status, "progress": progress}})
    assert client.get(classifier_id).json()["progress"]["fine_tuning"] == {**tuning, "loss": 0.1234}


@pytest.mark.contract_row("0.1/GET /v3/classifiers/{classifier_id}")
def test_details_are_those_of_create(client: V3Client) -> None:
    created = client.create("equal").json()
    assert client.get(created["classifier_id"]).json() == created


def test_classifier_made_by_a_manifest_is_shown_under_its_own_name(stage: Stage, client: V3Client) -> None:
    body = client.get(apply_manifest(stage, "by-manifest")).json()
    assert (body["name"], class_names(body), body["status"]) == ("by-manifest", ["a", "b"], "training")


def test_classifier_that_is_being_deleted_is_unknown(stage: Stage, client: V3Client) -> None:
    classifier_id = apply_manifest(stage, "dying", deletionTimestamp="2026-01-01T00:00:00Z")
    assert_error(client.get(classifier_id), 404, "not_found")


@pytest.mark.contract_row("A3/ready")
def test_ready_is_a_promise_on_every_replica(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    other = connect(stage.start_gateway(), stage)
    assert other.classify(("a.png", png()), classifier_ids=classifier_id).status_code == 400
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        stage.finish_training(classifier_id, {"heron": 0.7, "owl": 0.1})
        assert client.get(classifier_id).json()["status"] == "ready"
        answers = [item.classify(("a.png", png()), classifier_ids=classifier_id).status_code for item in (client, other)]
    finally:
        stage.call(stage.cluster.deliver)
    assert answers == [200, 200]


def test_ready_after_a_retrain_never_gets_the_old_definition(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready(scores={"heron": 0.9, "owl": 0.8})
    old = stage.finish_training(classifier_id, {"heron": 0.9, "owl": 0.8})
    client.retrain(classifier_id, STORK)
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        stage.finish_training(classifier_id, {"heron": 0.1, "owl": 0.1, "stork": 0.95})
        assert client.get(classifier_id).json()["status"] == "ready"
        body = client.classify(("a.png", png()), classifier_ids=classifier_id).json()
    finally:
        stage.call(stage.cluster.deliver)
    assert body["images"][0]["classifiers"][0]["classes"] == [{"class": "stork", "score": 0.95}]
    assert [server.asked for server in old] == [0]


def test_first_ready_waits_for_the_watches_of_other_replicas(stage: Stage, client: V3Client) -> None:
    careful = connect(stage.start_gateway(replica_delay_seconds=0.4), stage)
    classifier_id = client.ready()

    def seconds() -> float:
        started = time.monotonic()
        assert careful.get(classifier_id).json()["status"] == "ready"
        return time.monotonic() - started

    first, second = seconds(), seconds()
    assert first >= 0.4 > second


def test_first_failed_waits_for_the_watches_of_other_replicas(stage: Stage, client: V3Client) -> None:
    careful = connect(stage.start_gateway(replica_delay_seconds=0.4), stage)
    classifier_id = client.create().json()["classifier_id"]
    stage.fail_training(classifier_id, "the object store is full")
    started = time.monotonic()
    assert careful.get(classifier_id).json()["status"] == "failed"
    assert time.monotonic() - started >= 0.4


def test_other_replicas_know_when_a_retrain_is_answered(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    careful = connect(stage.start_gateway(replica_delay_seconds=0.3), stage)
    assert client.get(classifier_id).json()["status"] == "ready"
    started = time.monotonic()
    careful.retrain(classifier_id, STORK)
    assert time.monotonic() - started >= 0.3
    assert client.get(classifier_id).json()["status"] == "retraining"


def test_polling_asks_the_api_server_once_a_second(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.get(classifier_id)
    before, started = stage.cluster.reads_by_id, time.monotonic()
    for _ in range(50):
        client.get(classifier_id)
    seconds = time.monotonic() - started
    assert stage.cluster.reads_by_id - before <= 1 + seconds


def test_polling_shows_within_a_second_what_the_watch_has_lost(stage: Stage, client: V3Client) -> None:
    classifier_id = client.create().json()["classifier_id"]
    assert client.get(classifier_id).json()["status"] == "training"
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        stage.finish_training(classifier_id)
        time.sleep(CONFIRMED_SECONDS)
        assert client.get(classifier_id).json()["status"] == "ready"
    finally:
        stage.call(stage.cluster.deliver)


def test_replica_whose_watch_is_broken_reads_live(tmp_path: Path) -> None:
    stage = Stage(folder=tmp_path / "stage")
    try:
        client = connect(stage.start_gateway(), stage)
        classifier_id = client.ready(scores={"heron": 0.9, "owl": 0.1})
        client.retrain(classifier_id, STORK)
        stage.call(stage.cluster.break_watches)
        stage.finish_training(classifier_id, {"stork": 0.9})
        # The old servers still answer: only a read from the API server shows the change.

        def answers_with_the_new_definition() -> bool:
            body = client.classify(("a.png", png()), classifier_ids=classifier_id).json()
            return body["images"][0]["classifiers"][0]["classes"] == [{"class": "stork", "score": 0.9}]

        wait_for(answers_with_the_new_definition, "the broken watch is noticed")
    finally:
        stage.close()


# A4


@pytest.mark.contract_row("0.1/POST /v3/classifiers/{classifier_id}", "A3/retraining", "A4")
def test_retrain_shows_the_new_classes_and_keeps_the_rest(client: V3Client) -> None:
    classifier_id = client.ready("birds")
    before = client.get(classifier_id).json()
    body = client.retrain(classifier_id, STORK).json()
    assert class_names(body) == ["heron", "owl", "stork"]
    assert body["status"] == "retraining"
    assert {key: body[key] for key in ("classifier_id", "name", "created", "owner")} == {
        key: before[key] for key in ("classifier_id", "name", "created", "owner")
    }
    assert client.get(classifier_id).json() == body


@pytest.mark.contract_row("A4")
def test_retrain_keeps_earlier_images_and_adds_a_later_round(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, [*MORE_OWLS, *MORE_NEGATIVES])
    spec = stage.classifier(classifier_id)["spec"]
    rounds = {item["name"]: [source.get("round", 1) for source in item["examples"]] for item in spec["classes"]}
    assert rounds == {"heron": [1], "owl": [1, 2]}
    assert [source["round"] for source in spec["negativeExamples"]] == [2]
    assert spec["retrainNonce"] == 1


def test_name_is_ignored(client: V3Client) -> None:
    classifier_id = client.ready("before")
    response = client.http.post(f"/v3/classifiers/{classifier_id}", data={"name": "after"}, files=list(STORK))
    assert response.json()["name"] == "before"


@pytest.mark.contract_row("A4")
def test_classify_uses_the_old_definition_while_it_runs(client: V3Client) -> None:
    classifier_id = client.ready(scores={"heron": 0.9, "owl": 0.8})
    client.retrain(classifier_id, STORK)
    answer = client.classify(("a.png", png()), classifier_ids=classifier_id, threshold="0").json()
    assert [item["class"] for item in answer["images"][0]["classifiers"][0]["classes"]] == ["heron", "owl"]


@pytest.mark.contract_row("A1/retrained", "A1/updated")
def test_finished_retraining_is_ready_with_its_time(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    stage.finish_training(classifier_id, retrained_at=RETRAINED_AT)
    body = client.get(classifier_id).json()
    assert (body["status"], body["retrained"], body["updated"]) == ("ready", RETRAINED_AT, RETRAINED_AT)
    assert class_names(body) == ["heron", "owl", "stork"]


@pytest.mark.contract_row("A4/Overlapping retrains")
def test_overlapping_retrain_replaces_the_one_in_progress(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    body = client.retrain(classifier_id, CRANE).json()
    assert (body["status"], class_names(body)) == ("retraining", ["heron", "owl", "crane"])
    spec = stage.classifier(classifier_id)["spec"]
    assert (spec["retrainNonce"], [source["round"] for source in spec["classes"][-1]["examples"]]) == (2, [2])


@pytest.mark.contract_row("A4/Failed retraining")
def test_failed_retraining_restores_the_old_classes(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    stage.finish_training(classifier_id, retrained_at=RETRAINED_AT)
    client.retrain(classifier_id, CRANE)
    stage.fail_training(classifier_id, "bad data")
    body = client.get(classifier_id).json()
    assert (body["status"], body["explanation"], body["retrained"]) == ("failed", "bad data", RETRAINED_AT)
    assert class_names(body) == ["heron", "owl", "stork"]


def test_retrain_after_a_failed_one_starts_from_the_served_revision(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    stage.fail_training(classifier_id, "bad data")
    body = client.retrain(classifier_id, CRANE).json()
    assert (body["status"], class_names(body)) == ("retraining", ["heron", "owl", "crane"])


def test_retrain_after_a_failed_first_training_starts_from_the_spec(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    stage.fail_training(classifier_id, "too few owls")
    body = client.retrain(classifier_id, MORE_OWLS).json()
    assert (body["status"], class_names(body)) == ("training", ["heron", "owl"])


def test_retrain_of_a_pinned_classifier_starts_from_the_pin_and_ends_it(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    pinned = stage.classifier(classifier_id)["status"]["servedRevision"]
    client.retrain(classifier_id, STORK)
    stage.finish_training(classifier_id)
    manifest = stage.classifier(classifier_id)
    manifest["spec"]["pinnedRevision"] = pinned
    manifest["status"] |= {"servedRevision": pinned, "settledRevision": pinned}
    stage.put_classifier(manifest)
    assert class_names(client.get(classifier_id).json()) == ["heron", "owl"]
    assert class_names(client.retrain(classifier_id, CRANE).json()) == ["heron", "owl", "crane"]
    assert "pinnedRevision" not in stage.classifier(classifier_id)["spec"]


def test_retrain_keeps_the_test_set_and_the_gates(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    manifest = stage.classifier(classifier_id)
    tested = [{"name": "owl", "examples": [{"url": "https://data.example.com/owl-test.zip"}]}]
    manifest["spec"]["evaluation"] = {"holdoutFraction": 0.2, "classes": tested}
    manifest["spec"]["promotion"] = {"maxAccuracyDrop": "0.02", "approval": "Automatic"}
    stage.put_classifier(manifest)
    stage.finish_training(classifier_id)
    assert client.retrain(classifier_id, STORK).status_code == 200
    spec = stage.classifier(classifier_id)["spec"]
    assert spec["evaluation"]["classes"] == tested
    assert spec["promotion"]["maxAccuracyDrop"] == "0.02"


def test_retrain_keeps_corrections(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    manifest = stage.classifier(classifier_id)
    manifest["spec"]["corrections"] = [{"image": "d" * 64, "class": "owl"}]
    stage.put_classifier(manifest)
    stage.finish_training(classifier_id)
    assert client.retrain(classifier_id, STORK).status_code == 200
    assert stage.classifier(classifier_id)["spec"]["corrections"] == [{"image": "d" * 64, "class": "owl"}]


def test_retrain_that_a_gate_refused_shows_the_figures_and_the_served_classes(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    name = parse_classifier(stage.classifier(classifier_id))
    stage.fail_training(classifier_id, f"{name}: revision b is 0.083 less accurate than revision a on 240 images")
    body = client.get(classifier_id).json()
    assert (body["status"], class_names(body)) == ("failed", ["heron", "owl"])
    assert body["explanation"] == "revision b is 0.083 less accurate than revision a on 240 images"
    assert client.classify(("a.png", png()), classifier_ids=classifier_id).status_code == 200


WAITS = 'it waits for approval, and no revision serves; set spec.approvedRevision to "0123456789"'


def test_a_retrain_that_waits_for_approval_says_so_and_the_served_definition_answers(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    stage.await_approval(classifier_id, f"{parse_classifier(stage.classifier(classifier_id))}: {WAITS}")
    body = client.get(classifier_id).json()
    assert (body["status"], body["explanation"]) == ("retraining", WAITS)
    assert client.classify(("a.png", png()), classifier_ids=classifier_id).status_code == 200


def test_a_first_training_that_waits_for_approval_can_be_retrained(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    assert_error(client.retrain(classifier_id, STORK), 400, "classifier_not_ready", "first training")
    stage.await_approval(classifier_id, WAITS)
    before = client.get(classifier_id).json()
    assert (before["status"], before["explanation"]) == ("training", WAITS)
    response = client.retrain(classifier_id, STORK)
    assert (response.status_code, class_names(response.json())) == (200, ["heron", "owl", "stork"])
    # The condition is still that of the first revision, until the operator has seen the retrain.
    assert (response.json()["status"], "explanation" in response.json()) == ("training", False)


def test_retrain_survives_a_write_in_between(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()

    def touch() -> None:
        manifest = stage.cluster.find(CLASSIFIERS, NAMESPACE, classifier_id.replace("_", "-"))
        assert manifest is not None
        manifest["status"]["progress"] = {"percent": 3, "stage": "Reading"}
        stage.cluster.put(CLASSIFIERS, NAMESPACE, manifest)

    stage.call(lambda: setattr(stage.cluster, "before_patch", touch))
    assert client.retrain(classifier_id, STORK).status_code == 200
    assert stage.classifier(classifier_id)["status"]["progress"]["percent"] == 3


@pytest.mark.contract_row("A4/Refused")
def test_retrain_while_training_is_refused_and_changes_nothing(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    before = (stage.classifier(classifier_id), stage.stored_uploads())
    assert_error(client.retrain(classifier_id, STORK), 400, "classifier_not_ready", classifier_id)
    assert (stage.classifier(classifier_id), stage.stored_uploads()) == before


@pytest.mark.parametrize(
    "files",
    [
        [("other", ("x", b"x"))],
        [("bad_positive_examples", ("bad.zip", b"text"))],
        [("bad_positive_examples", ("bad.zip", examples(1, 9)))],
        [*STORK, *STORK],
        [("a$_positive_examples", ("a.zip", examples(1)))],
    ],
    ids=["no example set", "no zip", "nine images", "class twice", "class name"],
)
def test_invalid_retrain_is_400_and_changes_nothing(stage: Stage, client: V3Client, files: Files) -> None:
    classifier_id = client.ready()
    before = (stage.classifier(classifier_id), stage.stored_uploads())
    assert_error(client.retrain(classifier_id, files), 400)
    assert (stage.classifier(classifier_id), stage.stored_uploads()) == before


def test_more_than_500_classes_in_all_are_refused(stage: Stage, client: V3Client) -> None:
    files = [(f"c{index}_positive_examples", ("c.zip", examples(1))) for index in range(500)]
    classifier_id = client.ready(files=files)
    assert_error(client.retrain(classifier_id, STORK), 400, "limit_exceeded", "501", "500")


def test_more_than_2000_example_sets_in_all_are_refused(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created()
    manifest = stage.classifier(classifier_id)
    for item in manifest["spec"]["classes"]:
        item["examples"] = [{"upload": f"{index:064x}"} for index in range(1000)]
    stage.put_classifier(manifest)
    stage.finish_training(classifier_id)
    assert_error(client.retrain(classifier_id, STORK), 400, "limit_exceeded", "2001", "2000")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_manifest_made_classifier_refuses_rest_writes(stage: Stage, client: V3Client, method: str) -> None:
    classifier_id = apply_manifest(stage, f"closed-{method.lower()}")
    files = list(STORK) if method == "POST" else None
    response = client.http.request(method, f"/v3/classifiers/{classifier_id}", files=files)
    assert_error(response, 409, "conflict", f"kubectl -n {NAMESPACE} annotate clf ", f" {REST_WRITES_ANNOTATION}=Allowed")
    assert client.get(classifier_id).status_code == 200


def test_manifest_made_classifier_can_allow_rest_writes(stage: Stage, client: V3Client) -> None:
    classifier_id = apply_manifest(stage, "open", annotations={REST_WRITES_ANNOTATION: "Allowed"})
    assert client.delete(classifier_id).status_code == 200


# A6


@pytest.mark.contract_row("0.1/DELETE /v3/classifiers/{classifier_id}", "A6")
def test_delete_answers_an_empty_object(client: V3Client) -> None:
    response = client.delete(client.ready())
    assert (response.status_code, response.json()) == (200, {})


@pytest.mark.contract_row("A6")
@pytest.mark.parametrize("state", ["training", "ready", "retraining"])
def test_deleted_classifier_is_unknown_at_once(stage: Stage, client: V3Client, state: str) -> None:
    classifier_id = client.created() if state == "training" else client.ready()
    if state == "retraining":
        client.retrain(classifier_id, STORK)
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        client.delete(classifier_id)
        answers = [
            client.get(classifier_id),
            client.retrain(classifier_id, STORK),
            client.delete(classifier_id),
            client.classify(("a.png", png()), classifier_ids=classifier_id),
        ]
        mine = client.classify(("a.png", png()), owners="me").text
    finally:
        stage.call(stage.cluster.deliver)
    assert [response.status_code for response in answers] == [404, 404, 404, 404]
    assert classifier_id not in mine


@pytest.mark.contract_row("A6")
def test_other_replicas_know_when_a_delete_is_answered(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    other = connect(stage.start_gateway(), stage)
    careful = connect(stage.start_gateway(replica_delay_seconds=0.3), stage)
    assert other.classify(("a.png", png()), classifier_ids=classifier_id).status_code == 200
    started = time.monotonic()
    careful.delete(classifier_id)
    assert time.monotonic() - started >= 0.3
    assert other.classify(("a.png", png()), classifier_ids=classifier_id).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_id_is_404(client: V3Client, method: str) -> None:
    files = list(TWO_SETS) if method == "POST" else None
    assert_error(client.http.request(method, "/v3/classifiers/nobody_12", files=files), 404, "not_found", "nobody_12")


# Lost artifacts and full disks


def test_retrain_without_the_served_artifact_is_refused_as_unavailable(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready()
    client.retrain(classifier_id, STORK)
    for path in stage.store_folder.rglob(f"artifacts/{classifier_id}/*/definition.json"):
        path.unlink()
    assert_error(client.retrain(classifier_id, CRANE), 503, "unavailable", classifier_id)


def test_full_disk_is_503_and_stores_nothing(stage: Stage, client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ocelli_gateway.uploads._FileSink._flush", full)
    assert_error(client.create(), 503, "unavailable")
    assert list(stage.upload_folder.iterdir()) == []


def test_image_that_cannot_be_read_back_is_503(client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("ocelli_gateway.image_files._read_file", exhausted)
    assert_error(client.classify(("a.png", png())), 503, "unavailable")
