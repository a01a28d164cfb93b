"""Details and changes of classifiers by the management API: what they write, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ocelli_api.classifier import REST_WRITES_ALLOWED, REST_WRITES_ANNOTATION, parse_classifier
from ocelli_api.revision import spec_revision
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from tests.contract.test_management_list import put_from_manifest, wait_for_card
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import TWO_SETS, assert_error, connect

IMAGE, OTHER_IMAGE = "9f" * 32, "0c" * 32
OTHER_REVISION = "0123456789"


def store_artifact(stage: Stage, classifier_id: str, revision: str) -> None:
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=classifier_id)
    stage.run(stage.objects.put(location.artifact_key(revision, ARTIFACT_METADATA), b"{}"))


def spec_of(management: ManagementClient, classifier_id: str) -> Any:
    return management.v3.stage.classifier(classifier_id)["spec"]


def history(revision: str, **more: Any) -> dict[str, Any]:
    return {"history": [{"revision": revision, "trainedAt": "2026-05-04T11:50:00.000Z", **more}]}


@pytest.fixture
def served(management: ManagementClient) -> str:
    """The id of a classifier that answers."""
    classifier_id = management.v3.created("changes")
    spec = parse_classifier(management.v3.stage.classifier(classifier_id)).spec
    management.v3.stage.finish_training(classifier_id, figures=history(spec_revision(spec)))
    return classifier_id


@pytest.fixture
def committed(management: ManagementClient) -> str:
    """The id of a classifier from a manifest, which REST may not change."""
    stage = management.v3.stage
    classifier_id = put_from_manifest(stage, "committed", annotations={"argocd.argoproj.io/tracking-id": "birds"})
    wait_for_card(management, classifier_id)
    return classifier_id


def test_details_name_each_source_with_its_bytes(management: ManagementClient) -> None:
    details = management.details(management.v3.created("sources"))
    heron = details["classes"][0]
    assert heron["class"] == "heron"
    assert heron["sources"][0]["bytes"] == len(TWO_SETS[0][1][1])
    assert len(heron["sources"][0]["upload"]) == 64


def test_manifest_of_the_details_makes_the_same_revision(management: ManagementClient, served: str) -> None:
    details = management.details(served)
    manifest = yaml.safe_load(details["manifest"])
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert spec_revision(parse_classifier(manifest).spec) == details["current_revision"]


def test_manifest_of_the_details_has_labels_and_annotations_of_its_author_only(management: ManagementClient) -> None:
    stage = management.v3.stage
    tracking = {"argocd.argoproj.io/tracking-id": "birds", "team.example/owner": "anna"}
    labels = {"tier": "test", "app.kubernetes.io/managed-by": "Helm"}
    classifier_id = put_from_manifest(stage, "labelled", annotations=tracking, labels=labels)
    wait_for_card(management, classifier_id)
    metadata = yaml.safe_load(management.details(classifier_id)["manifest"])["metadata"]
    assert metadata["labels"] == {"ocelli.dev/classifier-id": classifier_id, "tier": "test"}
    assert metadata["annotations"] == {"team.example/owner": "anna"}


def test_history_says_which_revisions_can_be_pinned(management: ManagementClient) -> None:
    stage, classifier_id = management.v3.stage, management.v3.created("history")
    lost = history("aaaaaaaaaa")["history"]
    kept = history(OTHER_REVISION, accuracy="0.9", accuracyInterval={"lower": "0.8", "upper": "1"}, judgedImages=40)["history"]
    stage.finish_training(classifier_id, figures={"history": kept + lost})
    store_artifact(stage, classifier_id, OTHER_REVISION)
    first, second = management.details(classifier_id)["history"]
    assert (first["stored"], second["stored"]) == (True, False)
    assert first["accuracy"] == {"value": 0.9, "lower": 0.8, "upper": 1.0, "images": 40}


def test_history_has_the_comparison_with_the_revision_that_served(management: ManagementClient) -> None:
    classifier_id = management.v3.created("compared")
    drop = {"drop": "-0.01", "lower": "-0.03", "upper": "0.02"}
    comparison = {"baseline": OTHER_REVISION, "accuracyDrop": drop, "images": 80}
    management.v3.stage.finish_training(classifier_id, figures=history("aaaaaaaaaa", comparison=comparison))
    assert management.details(classifier_id)["history"][0]["comparison"] == {
        "baseline": OTHER_REVISION,
        "drop": -0.01,
        "lower": -0.03,
        "upper": 0.02,
        "images": 80,
    }


def test_unknown_classifier_has_no_details(management: ManagementClient) -> None:
    assert_error(management.send("GET", "/classifiers/none_1"), 404, "not_found", "none_1")


def test_approving_writes_the_approved_revision_only(management: ManagementClient, served: str) -> None:
    before = spec_of(management, served)
    revision = management.details(served)["history"][0]["revision"]
    management.call("POST", f"/classifiers/{served}/approve", json={"revision": revision})
    assert spec_of(management, served) == {**before, "approvedRevision": revision}


def test_revision_that_was_never_trained_cannot_be_approved(management: ManagementClient, served: str) -> None:
    response = management.send("POST", f"/classifiers/{served}/approve", json={"revision": OTHER_REVISION})
    assert_error(response, 400, "input_error", OTHER_REVISION, "history")


def test_latest_cannot_be_approved_because_it_may_be_another_one_by_now(management: ManagementClient, served: str) -> None:
    response = management.send("POST", f"/classifiers/{served}/approve", json={"revision": "latest"})
    assert_error(response, 400, "parameter_error", "10 hex digits")


def test_rolling_back_pins_a_stored_revision(management: ManagementClient, served: str) -> None:
    store_artifact(management.v3.stage, served, OTHER_REVISION)
    details = management.call("POST", f"/classifiers/{served}/pin", json={"revision": OTHER_REVISION})
    assert details["pinned_revision"] == details["current_revision"] == OTHER_REVISION


def test_removing_the_pin_leaves_the_rest_of_the_spec(management: ManagementClient, served: str) -> None:
    before = spec_of(management, served)
    store_artifact(management.v3.stage, served, OTHER_REVISION)
    management.call("POST", f"/classifiers/{served}/pin", json={"revision": OTHER_REVISION})
    assert "pinned_revision" not in management.call("POST", f"/classifiers/{served}/unpin")
    assert spec_of(management, served) == before


def test_revision_without_an_artifact_cannot_be_pinned(management: ManagementClient, served: str) -> None:
    response = management.send("POST", f"/classifiers/{served}/pin", json={"revision": OTHER_REVISION})
    assert_error(response, 404, "not_found", OTHER_REVISION, "stored")
    assert "pinnedRevision" not in spec_of(management, served)


def test_suspending_and_resuming_change_nothing_else(management: ManagementClient, served: str) -> None:
    before = spec_of(management, served)
    assert management.call("POST", f"/classifiers/{served}/suspend")["suspended"] is True
    assert spec_of(management, served) == {**before, "suspend": True}
    assert "suspended" not in management.call("POST", f"/classifiers/{served}/resume")
    assert spec_of(management, served) == before


def test_retraining_raises_the_nonce(management: ManagementClient, served: str) -> None:
    assert management.call("POST", f"/classifiers/{served}/retrain")["status"] == "retraining"
    assert spec_of(management, served)["retrainNonce"] == 1


def test_retraining_pressed_again_is_refused_while_the_training_runs(management: ManagementClient, served: str) -> None:
    management.call("POST", f"/classifiers/{served}/retrain")
    response = management.send("POST", f"/classifiers/{served}/retrain")
    assert_error(response, 400, "classifier_not_ready", "being trained already")
    assert spec_of(management, served)["retrainNonce"] == 1


def test_pinned_classifier_is_not_retrained(management: ManagementClient, served: str) -> None:
    store_artifact(management.v3.stage, served, OTHER_REVISION)
    management.call("POST", f"/classifiers/{served}/pin", json={"revision": OTHER_REVISION})
    assert_error(management.send("POST", f"/classifiers/{served}/retrain"), 400, "input_error", "pinned", "unpin")


def correct(management: ManagementClient, classifier_id: str, *corrections: Any, **more: Any) -> Any:
    body = {"corrections": [{"image": image, "class": name} for image, name in corrections], **more}
    return management.call("POST", f"/classifiers/{classifier_id}/corrections", json=body)


def test_correcting_writes_corrections_and_nothing_else(management: ManagementClient, served: str) -> None:
    before = spec_of(management, served)
    answer = correct(management, served, (IMAGE, "owl"), (OTHER_IMAGE, ""))
    expected = [{"image": IMAGE, "class": "owl"}, {"image": OTHER_IMAGE, "class": ""}]
    assert spec_of(management, served) == {**before, "corrections": expected}
    assert (answer["corrections"], answer["changed"], answer["applied"]) == (expected, 2, True)


def test_corrections_name_the_revision_that_they_make_and_what_happens(management: ManagementClient, served: str) -> None:
    before = management.details(served)["served_revision"]
    answer = correct(management, served, (IMAGE, "owl"), (OTHER_IMAGE, ""))
    after = management.details(served)["current_revision"]
    assert answer["revision"] == after
    assert answer["effect"] == (
        "1 image gets another class and 1 image is not used any more; "
        f"the new revision {after} is trained, while the revision {before} answers."
    )


def test_later_correction_of_an_image_wins_and_null_removes_it(management: ManagementClient, served: str) -> None:
    correct(management, served, (IMAGE, "owl"), (OTHER_IMAGE, "owl"))
    answer = correct(management, served, (IMAGE, "owl"), (IMAGE, "heron"), (OTHER_IMAGE, None))
    assert answer["corrections"] == [{"image": IMAGE, "class": "heron"}]


def test_removing_the_last_correction_brings_the_trained_revision_back(management: ManagementClient, served: str) -> None:
    before = management.details(served)["current_revision"]
    correct(management, served, (IMAGE, "owl"))
    answer = correct(management, served, (IMAGE, None))
    assert answer["revision"] == before
    assert "without a training" in answer["effect"]
    assert "corrections" not in spec_of(management, served)


def test_corrections_that_hold_already_write_nothing(management: ManagementClient, served: str) -> None:
    correct(management, served, (IMAGE, "owl"))
    before = management.v3.stage.classifier(served)
    answer = correct(management, served, (IMAGE, "owl"))
    assert (answer["changed"], answer["effect"]) == (0, "Nothing changes: these corrections hold already.")
    assert management.v3.stage.classifier(served) == before


def test_dry_run_of_corrections_writes_nothing(management: ManagementClient, served: str) -> None:
    before = management.v3.stage.classifier(served)
    answer = correct(management, served, (IMAGE, "owl"), dry_run=True)
    assert (answer["changed"], answer["applied"]) == (1, False)
    assert management.v3.stage.classifier(served) == before


def test_dry_run_for_a_manifest_has_the_yaml_to_commit(management: ManagementClient, committed: str) -> None:
    answer = correct(management, committed, (IMAGE, "owl"), dry_run=True)
    assert yaml.safe_load(answer["manifest"])["spec"]["corrections"] == [{"image": IMAGE, "class": "owl"}]


def test_corrections_are_merged_with_those_written_meanwhile(management: ManagementClient, served: str) -> None:
    stage = management.v3.stage

    def correct_another() -> None:
        manifest = stage.cluster.find(CLASSIFIERS, NAMESPACE, served.replace("_", "-"))
        assert manifest is not None
        manifest["spec"]["corrections"] = [{"image": OTHER_IMAGE, "class": ""}]
        stage.cluster.put(CLASSIFIERS, NAMESPACE, manifest)

    stage.cluster.before_patch = correct_another
    answer = correct(management, served, (IMAGE, "owl"))
    assert {item["image"] for item in answer["corrections"]} == {IMAGE, OTHER_IMAGE}


REFUSED_CORRECTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "unknown class": ([{"image": IMAGE, "class": "stork"}], ("stork", IMAGE)),
    "digest in capitals": ([{"image": IMAGE.upper(), "class": "owl"}], (IMAGE.upper(), "lower-case")),
    "no class": ([{"image": IMAGE}], ("corrections[0]", "class")),
    "unknown key": ([{"image": IMAGE, "class": "owl", "label": "owl"}], ("label",)),
    "no list": ({"image": IMAGE, "class": "owl"}, ("not a list",)),
    "empty": ([], ("at least one",)),
    "too many": ([{"image": f"{number:064x}", "class": "owl"} for number in range(2001)], ("2001", "2000")),
}


@pytest.mark.parametrize("fault", REFUSED_CORRECTIONS)
def test_wrong_corrections_are_refused_with_what_is_wrong(management: ManagementClient, served: str, fault: str) -> None:
    corrections, words = REFUSED_CORRECTIONS[fault]
    before = management.v3.stage.classifier(served)
    response = management.send("POST", f"/classifiers/{served}/corrections", json={"corrections": corrections})
    assert_error(response, 400, None, *words)
    assert management.v3.stage.classifier(served) == before


def test_misspelled_field_of_a_body_is_refused_before_anything_is_changed(management: ManagementClient, served: str) -> None:
    body = {"corrections": [{"image": IMAGE, "class": "owl"}], "dryrun": True}
    response = management.send("POST", f"/classifiers/{served}/corrections", json=body)
    assert_error(response, 400, "parameter_error", "dryrun", "dry_run")
    assert "corrections" not in spec_of(management, served)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"revision": "\\ud800"}', b"[" * 100_000])
def test_body_that_is_not_an_object_of_json_is_refused(management: ManagementClient, served: str, content: bytes) -> None:
    assert_error(management.send("POST", f"/classifiers/{served}/pin", content=content), 400, "parameter_error")


MANIFEST_CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "suspend": (None, {"suspend": True}),
    "retrain": (None, {"retrainNonce": 1}),
    "corrections": ({"corrections": [{"image": IMAGE, "class": "owl"}]}, {"corrections": [{"image": IMAGE, "class": "owl"}]}),
}


@pytest.mark.parametrize("change", MANIFEST_CHANGES)
def test_change_of_a_manifest_is_refused_with_the_yaml_to_commit(
    management: ManagementClient, committed: str, change: str
) -> None:
    body, expected = MANIFEST_CHANGES[change]
    stage = management.v3.stage
    manifest = stage.classifier(committed)
    spec = parse_classifier(manifest).spec
    stage.finish_training(committed, figures=history(spec_revision(spec)))
    before = stage.classifier(committed)
    response = management.send("POST", f"/classifiers/{committed}/{change}", json=body)
    assert_error(response, 409, "conflict", "change the manifest")
    shown = yaml.safe_load(response.json()["manifest"])["spec"]
    assert {key: shown[key] for key in expected} == expected
    assert stage.classifier(committed) == before


def test_manifest_whose_author_allows_it_is_changed(management: ManagementClient) -> None:
    stage = management.v3.stage
    classifier_id = put_from_manifest(stage, "allowed", annotations={REST_WRITES_ANNOTATION: REST_WRITES_ALLOWED})
    wait_for_card(management, classifier_id)
    assert management.call("POST", f"/classifiers/{classifier_id}/suspend")["suspended"] is True
    assert stage.classifier(classifier_id)["spec"]["suspend"] is True


def test_change_keeps_fields_that_this_release_does_not_know(management: ManagementClient, served: str) -> None:
    stage = management.v3.stage
    manifest = stage.classifier(served)
    manifest["spec"]["ofALaterRelease"] = {"kept": True}
    stage.put_classifier(manifest)
    management.call("POST", f"/classifiers/{served}/suspend")
    assert spec_of(management, served)["ofALaterRelease"] == {"kept": True}


def test_session_says_who_one_is_and_what_the_limits_are(management: ManagementClient) -> None:
    session = management.call("GET", "/session")
    assert (session["user"], session["namespace"], session["quota"]) == ("anna", NAMESPACE, {})
    assert (session["limits"]["zip_megabytes"], session["limits"]["classes"]) == (100, 500)


def test_session_shows_the_quota_that_applies(tmp_path_factory: pytest.TempPathFactory) -> None:
    stage = Stage(folder=tmp_path_factory.mktemp("session"))
    try:
        client = connect(stage.start_gateway(quota_classifiers=7), stage)
        assert ManagementClient(v3=client).call("GET", "/session")["quota"] == {"classifiers": 7}
    finally:
        stage.close()
