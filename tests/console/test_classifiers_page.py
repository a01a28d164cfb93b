"""The list of classifiers: live, searchable by an address that can be kept, and safe whatever a name contains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_cluster.resources import CLASSIFIERS
from tests.console.line import Line
from tests.console.window import Window, open_window
from tests.gateway_harness.stage import NAMESPACE, OTHER_USER, Stage
from tests.gateway_harness.v3_client import V3Client

HOSTILE = "<img src=x onerror=alert(1)>"
FIGURES = {"accuracy": "0.953", "accuracyInterval": {"lower": "0.871", "upper": "0.960"}, "judgedImages": 120}


def row(window: Window, name: str) -> Locator:
    return window.page.locator(".row", has=window.page.get_by_role("link", name=name, exact=True))


@pytest.fixture
def herons(client: V3Client, stage: Stage) -> Iterator[str]:
    """The id of a classifier that is in training."""
    classifier_id = client.created("Herons")
    yield classifier_id
    # Not by the API: a test may have given it to somebody else.
    name = stage.classifier(classifier_id)["metadata"]["name"]
    stage.call(lambda: stage.cluster.remove(CLASSIFIERS, NAMESPACE, name))


def report_progress(stage: Stage, classifier_id: str, percent: int) -> None:
    manifest = stage.classifier(classifier_id)
    manifest["status"] = {
        "classifierID": classifier_id,
        "trainingRevision": "0123456789",
        "progress": {
            "percent": percent,
            "stage": "Extracting",
            "images": 4 * percent,
            "imagesTotal": 400,
            "device": "OpenVINO CPU float32",
        },
    }
    stage.put_classifier(manifest)


def test_change_is_shown_by_itself(window: Window, stage: Stage, herons: str) -> None:
    window.log_in()
    expect(row(window, "Herons")).to_contain_text("Training")
    expect(window.page.locator(".live")).to_have_text("live")
    report_progress(stage, herons, 42)
    expect(row(window, "Herons")).to_contain_text("Looking at each image · 42 %")


def test_hidden_tab_ends_its_stream_and_is_live_again_when_shown(window: Window, client: V3Client) -> None:
    classifier_id = client.created("Kites")
    window.log_in()
    expect(window.page.locator(".live")).to_have_text("live")
    with window.page.expect_event("requestfailed", lambda request: request.url.endswith("/ocelli/v1/events")):
        set_hidden(window, hidden=True)
    client.delete(classifier_id)
    expect(row(window, "Kites")).to_be_visible()
    set_hidden(window, hidden=False)
    expect(row(window, "Kites")).to_be_hidden()
    expect(window.page.locator(".live")).to_have_text("live")


def set_hidden(window: Window, *, hidden: bool) -> None:
    """What the page is told when its tab goes to the background or comes back."""
    script = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    window.page.evaluate(script, hidden)


def test_accuracy_says_its_interval_and_on_how_many_images(window: Window, stage: Stage, herons: str) -> None:
    stage.finish_training(herons, figures=FIGURES)
    window.log_in()
    expect(row(window, "Herons").locator(".quality")).to_have_text("95.3 % accurate87.1 to 96.0 % on 120 images")


def test_new_and_deleted_classifiers_come_and_go(window: Window, client: V3Client) -> None:
    window.log_in()
    expect(window.page.locator(".live")).to_have_text("live")
    classifier_id = client.created("Kestrels")
    expect(row(window, "Kestrels")).to_be_visible()
    client.delete(classifier_id)
    expect(row(window, "Kestrels")).to_be_hidden()


def test_search_and_filter_are_part_of_the_address(window: Window, stage: Stage, client: V3Client, herons: str) -> None:
    other = client.created("Owls")
    stage.fail_training(other, "too few examples")
    window.log_in()
    page = window.page
    page.get_by_role("searchbox").fill("her")
    expect(row(window, "Owls")).to_be_hidden()
    expect(row(window, "Herons")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    page.get_by_label("State").select_option("Failed")
    expect(row(window, "Herons")).to_be_hidden()
    row(window, "Owls").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Owls")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("State")).to_have_value("failed")
    expect(row(window, "Herons")).to_be_hidden()
    client.delete(other)


def test_name_with_markup_is_shown_as_text(window: Window, stage: Stage, client: V3Client) -> None:
    classifier_id = client.created(HOSTILE)
    stage.fail_training(classifier_id, f"class {HOSTILE} is empty")
    window.log_in()
    expect(row(window, HOSTILE)).to_contain_text(f"class {HOSTILE} is empty")
    window.go(f"#/classifiers/{classifier_id}")
    expect(window.page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert window.page.locator("img[src=x]").count() == 0
    client.delete(classifier_id)


def test_classifier_of_another_tenant_does_not_exist(window: Window, herons: str) -> None:
    window.log_in(user=OTHER_USER, password="other")
    expect(window.page.get_by_role("heading", name="No classifiers yet")).to_be_visible()
    window.go(f"#/classifiers/{herons}")
    expect(window.page.get_by_role("alert")).to_contain_text(f"Cannot find the classifier {herons}")


def test_classifier_of_a_repository_is_read_only_with_its_manifest(window: Window, stage: Stage, herons: str) -> None:
    stage.finish_training(herons, figures=FIGURES)
    manifest = stage.classifier(herons)
    manifest["metadata"]["labels"].pop("ocelli.dev/created-by")
    manifest["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "birds"}
    stage.put_classifier(manifest)
    window.log_in()
    expect(row(window, "Herons").locator(".owner")).to_contain_text("Argo CD")
    window.go(f"#/classifiers/{herons}")
    expect(window.page.get_by_text("Argo CD manages this classifier")).to_be_visible()
    expect(window.page.get_by_label("Manifest", exact=True)).to_contain_text("kind: Classifier")
    for name in ("Train again", "Delete this classifier…"):
        expect(window.page.get_by_role("button", name=name)).to_have_count(0)


def test_classifier_that_is_deleted_elsewhere_is_said_on_its_page(window: Window, client: V3Client) -> None:
    classifier_id = client.created("Wrens")
    window.log_in(f"#/classifiers/{classifier_id}")
    expect(window.page.get_by_role("heading", name="Wrens")).to_be_visible()
    client.delete(classifier_id)
    expect(window.page.get_by_text("This classifier was deleted elsewhere")).to_be_visible()


def test_list_goes_on_after_the_connection_was_lost(browser: Browser, line: Line, stage: Stage, herons: str) -> None:
    with open_window(browser, line.address) as window:
        window.log_in()
        expect(window.page.locator(".live")).to_have_text("live")
        line.cut()
        expect(window.page.locator(".live")).to_have_text("not live")
        expect(window.page.get_by_role("alert")).to_contain_text("cannot be reached")
        report_progress(stage, herons, 77)
        line.restore()
        expect(row(window, "Herons")).to_contain_text("77 %")
        expect(window.page.locator(".live")).to_have_text("live")


def test_list_is_shown_although_the_stream_of_events_ends_at_once(window: Window, herons: str) -> None:
    window.page.route("**/ocelli/v1/events", lambda route: route.fulfill(body="event: ready\ndata: {}\n\n"))
    window.log_in()
    expect(row(window, "Herons")).to_be_visible()


def test_only_the_rows_near_the_window_are_drawn(window: Window, stage: Stage, herons: str) -> None:
    template = stage.classifier(herons)
    labels = template["metadata"]["labels"]
    names = [f"many-{number}" for number in range(250)]
    for name in names:
        metadata = {"name": name, "labels": {**labels, CLASSIFIER_ID_LABEL: name.replace("-", "_")}}
        stage.put_classifier({"spec": template["spec"], "metadata": metadata})
    window.log_in("#/classifiers?search=many_")
    expect(window.page.get_by_text("250 of ")).to_be_visible()
    assert window.page.locator(".row").count() == 100
    window.page.locator(".row").last.scroll_into_view_if_needed()
    expect(window.page.locator(".row")).to_have_count(200)
    for name in names:
        stage.call(lambda name=name: stage.cluster.remove(CLASSIFIERS, NAMESPACE, name))  # type: ignore[misc]
