"""The page of training: how far it is, what failed and why, and changes that are made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from ocelli_cluster.resources import CLASSIFIERS
from tests.console.test_classifiers_page import report_progress
from tests.console.window import Window
from tests.gateway_harness.images import examples
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import TWO_SETS, V3Client

REASON = 'class "hail" has 3 examples; add at least 7'


@pytest.fixture
def roofs(client: V3Client, stage: Stage) -> Iterator[str]:
    """The id of a classifier that is served."""
    classifier_id = client.ready("Roofs")
    yield classifier_id
    name = stage.classifier(classifier_id)["metadata"]["name"]
    stage.call(lambda: stage.cluster.remove(CLASSIFIERS, NAMESPACE, name))


@pytest.fixture
def training(window: Window, roofs: str) -> Page:
    window.log_in(f"#/classifiers/{roofs}")
    expect(window.page.get_by_role("button", name="Train again")).to_be_visible()
    return window.page


def spec_of(stage: Stage, classifier_id: str) -> dict[str, object]:
    return dict(stage.classifier(classifier_id)["spec"])


def test_button_locks_at_once_so_that_it_trains_once(training: Page, stage: Stage, roofs: str) -> None:
    before = spec_of(stage, roofs).get("retrainNonce", 0)
    training.get_by_role("button", name="Train again").dblclick()
    expect(training.get_by_role("button", name="Training…")).to_be_disabled()
    assert spec_of(stage, roofs)["retrainNonce"] == before + 1  # type: ignore[operator]


def test_training_is_shown_with_its_stage_images_and_device(training: Page, stage: Stage, roofs: str) -> None:
    report_progress(stage, roofs, 42)
    expect(training.get_by_role("heading", name="Looking at each image")).to_be_visible()
    for fact in ("42 %", "168 of 400", "OpenVINO CPU float32"):
        expect(training.locator(".training")).to_contain_text(fact)
    expect(training.get_by_role("button", name="Training…")).to_be_disabled()


def test_failure_is_shown_with_its_remedy(training: Page, stage: Stage, roofs: str) -> None:
    stage.fail_training(roofs, REASON)
    expect(training.get_by_role("alert")).to_contain_text(f"The training failed. {REASON}")
    expect(training.get_by_role("link", name="Add images")).to_be_visible()


def test_failure_names_the_images_that_it_is_about(training: Page, stage: Stage, roofs: str) -> None:
    skipped = {"name": "<b>scan</b>.tiff", "reason": "is a TIFF image; examples are JPEG or PNG"}
    report = {"images": 3, "sets": [{"class": "hail", "images": 3, "skipped_count": 1, "skipped": [skipped]}]}
    training.route("**/revisions/latest/data", lambda route: route.fulfill(json=report))
    stage.fail_training(roofs, REASON)
    expect(training.get_by_text("hail: <b>scan</b>.tiff, is a TIFF image")).to_be_visible()


def test_trained_revision_that_waits_is_approved(training: Page, stage: Stage, roofs: str) -> None:
    stage.await_approval(roofs, "The revision waits for an approval.")
    training.get_by_role("button", name="Approve it").click()
    expect(training.get_by_role("status").filter(has_text="Approved.")).to_be_attached()
    assert spec_of(stage, roofs)["approvedRevision"]


def test_trainings_are_suspended_and_resumed(training: Page, stage: Stage, roofs: str) -> None:
    training.get_by_role("button", name="Suspend training").click()
    expect(training.get_by_role("button", name="Resume training")).to_be_visible()
    assert spec_of(stage, roofs)["suspend"] is True
    training.get_by_role("button", name="Resume training").click()
    expect(training.get_by_role("button", name="Suspend training")).to_be_visible()


def test_refused_change_is_said_and_can_be_tried_again(training: Page) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"code": 503, "error": "The Kubernetes API did not answer as expected; try again."})

    training.route("**/retrain", refuse)
    training.get_by_role("button", name="Train again").click()
    expect(training.get_by_role("alert")).to_contain_text("The Kubernetes API did not answer as expected; try again.")
    expect(training.get_by_role("button", name="Train again")).to_be_enabled()


def test_change_of_a_classifier_that_git_took_over_meanwhile_shows_the_yaml(training: Page) -> None:
    refusal = {"code": 409, "error": "Argo CD manages this classifier.", "manifest": "kind: Classifier\n"}
    training.route("**/retrain", lambda route: route.fulfill(status=409, json=refusal))
    training.get_by_role("button", name="Train again").click()
    expect(training.get_by_text("Argo CD manages this classifier.")).to_be_visible()
    expect(training.get_by_label("Manifest to commit instead", exact=True)).to_contain_text("kind: Classifier")


def test_class_is_removed_where_two_sets_remain(training: Page, client: V3Client, stage: Stage) -> None:
    classifier_id = client.ready("Trees", files=[*TWO_SETS, ("oak_positive_examples", ("oak.zip", examples(3)))])
    training.evaluate(f"location.hash = '#/classifiers/{classifier_id}'")
    training.get_by_role("button", name="Remove oak…").click()
    training.get_by_role("dialog", name="Remove oak?").get_by_role("button", name="Remove and retrain").click()
    expect(training.get_by_role("row", name="oak")).to_have_count(0)
    assert [item["name"] for item in spec_of(stage, classifier_id)["classes"]] == ["heron", "owl"]  # type: ignore[index, attr-defined]
    expect(training.get_by_role("button", name="Remove owl…")).to_have_count(0)
    client.delete(classifier_id)


def test_deletion_needs_the_typed_name(training: Page, client: V3Client, roofs: str) -> None:
    training.get_by_role("button", name="Delete this classifier…").click()
    dialog = training.get_by_role("dialog", name="Delete this classifier?")
    dialog.get_by_label("Type Roofs to confirm").fill("roofs")
    expect(dialog.get_by_role("button", name="Delete it")).to_be_disabled()
    training.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert client.get(roofs).status_code == 200


def test_question_ends_with_the_page_that_asked_it(training: Page) -> None:
    training.get_by_role("button", name="Delete this classifier…").click()
    dialog = training.get_by_role("dialog", name="Delete this classifier?")
    expect(dialog).to_be_visible()
    training.evaluate("location.hash = '#/classifiers'")
    expect(training.get_by_role("heading", name="Classifiers")).to_be_visible()
    expect(dialog).to_have_count(0)
