"""The quick test: what is shown for an image is what v3 answers, to the last digit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_cluster.resources import CLASSIFIERS
from tests.console.keyboard import press_until
from tests.console.trained import CLASSES, TrainedClassifier, draw
from tests.console.window import Window
from tests.gateway_harness.images import build_zip
from tests.gateway_harness.stage import SYSTEM_NAMESPACE, Stage
from tests.gateway_harness.v3_client import V3Client

BUILT_IN_REVISION = "0123456789"
CAMERA_STAND_IN = """() => {
    navigator.mediaDevices.getUserMedia = async () => {
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 200;
        canvas.getContext("2d").fillRect(0, 0, 100, 100);
        window.stream = canvas.captureStream(30);
        return window.stream;
    };
}"""
"""In place of a camera, which no machine of tests has."""


@pytest.fixture
def quick_test(page: Page, shapes: TrainedClassifier) -> Page:
    page.goto(page.url.split("#")[0] + f"#/classifiers/{shapes.classifier_id}/quick-test")
    expect(page.get_by_role("heading", name="Images to try")).to_be_visible()
    return page


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "new ring.jpg"
    path.write_bytes(draw("ring", 5001))
    return path


def choose(page: Page, *files: Path) -> None:
    page.get_by_label("Drop images here").set_input_files(list(files))


def test_scores_are_the_digits_that_v3_sends(quick_test: Page, shapes: TrainedClassifier, client: V3Client, ring: Path) -> None:
    choose(quick_test, ring)
    rows = quick_test.get_by_role("article", name="new ring.jpg").locator(".score-bars tbody tr")
    expect(rows).to_have_count(len(CLASSES))
    body = client.classify((ring.name, ring.read_bytes()), classifier_ids=shapes.classifier_id, threshold="0").text
    sent = dict(re.findall(r'"class":"(\w+)","score":([^,}]+)', body))
    shown = {row.locator("th").inner_text(): row.locator(".digits").inner_text() for row in rows.all()}
    assert shown == sent


def test_the_threshold_says_what_the_api_returns(quick_test: Page, ring: Path) -> None:
    choose(quick_test, ring)
    card = quick_test.get_by_role("article")
    expect(card).to_contain_text("With the threshold 0.50 the API returns ring.")
    slider = quick_test.get_by_label("Threshold")
    slider.focus()
    slider.press("Home")
    expect(card).to_contain_text("With the threshold 0.00 the API returns ring, box, cross.")
    expect(quick_test).to_have_url(re.compile("threshold=0"))


def test_an_image_is_tried_with_the_keyboard_only(quick_test: Page, ring: Path) -> None:
    press_until(quick_test, "Tab", "input[type=file]:focus")
    with quick_test.expect_file_chooser() as asked:
        quick_test.keyboard.press("Space")
    asked.value.set_files(ring)
    card = quick_test.get_by_role("article", name="new ring.jpg")
    expect(card).to_contain_text("With the threshold 0.50 the API returns ring.")
    press_until(quick_test, "Tab", "input[type=range]:focus")
    quick_test.keyboard.press("End")
    expect(card).to_contain_text("With the threshold 1.00 the API returns no class.")
    quick_test.keyboard.press("ArrowLeft")
    expect(card).to_contain_text("With the threshold 0.99 the API returns no class.")
    expect(card.get_by_role("row", name="ring")).to_contain_text("0.913")


@pytest.fixture
def default(stage: Stage) -> Iterator[dict[str, float]]:
    """The scores of an installed built-in classifier, which is taken away afterwards."""
    scores = {"barn owl": 0.91, "owl": 0.95, "finch": 0.1}
    labels = {CLASSIFIER_ID_LABEL: "default_17"}
    spec = {"pretrained": {"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}}
    status = {"classifierID": "default_17", "servedRevision": BUILT_IN_REVISION}
    manifest = {"metadata": {"name": "default", "labels": labels}, "spec": spec, "status": status}
    stage.put_classifier(manifest, SYSTEM_NAMESPACE)
    server = stage.start_server("default_17", BUILT_IN_REVISION, scores, namespace=SYSTEM_NAMESPACE)
    yield scores
    stage.remove_pod(server, SYSTEM_NAMESPACE)
    stage.call(lambda: stage.cluster.remove(CLASSIFIERS, SYSTEM_NAMESPACE, "default"))


def test_built_in_default_is_shown_next_to_the_own_classifier(
    default: dict[str, float], window: Window, shapes: TrainedClassifier, ring: Path
) -> None:
    window.log_in(f"#/classifiers/{shapes.classifier_id}/quick-test")
    page = window.page
    choose(page, ring)
    card = page.get_by_role("article", name="new ring.jpg")
    expect(card.get_by_role("heading", level=4)).to_have_text(["Shapes", "Built-in: default"])
    shown = card.locator(".classifier-scores").last
    for name in ("barn owl", "owl"):
        expect(shown.get_by_role("row", name=name, exact=False).first).to_contain_text(str(default[name]))
    page.get_by_label("Also ask the built-in classifier “default”").uncheck()
    choose(page, ring)
    expect(page.get_by_role("article").first.get_by_role("heading", level=4)).to_have_text(["Shapes"])
    expect(page).to_have_url(re.compile("default=no"))


def test_several_images_become_a_grid_with_the_newest_first(quick_test: Page, ring: Path, tmp_path: Path) -> None:
    choose(quick_test, ring)
    second = tmp_path / "box.jpg"
    second.write_bytes(draw("box", 5002))
    choose(quick_test, second)
    expect(quick_test.get_by_role("article")).to_have_count(2)
    expect(quick_test.get_by_role("article").first).to_contain_text("box.jpg")


def test_each_image_of_a_zip_has_its_scores(quick_test: Page, tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(build_zip({"a.jpg": draw("ring", 1), "b.jpg": draw("box", 2)}))
    choose(quick_test, path)
    card = quick_test.get_by_role("article", name="images.zip")
    expect(card.locator(".returned")).to_have_count(2)
    expect(card).to_contain_text("b.jpg")


def test_a_pasted_image_is_classified(quick_test: Page, ring: Path) -> None:
    quick_test.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", { type: "image/jpeg" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        list(ring.read_bytes()),
    )
    expect(quick_test.get_by_role("article", name="pasted.jpg")).to_contain_text("returns ring")


def test_a_dropped_image_is_classified(quick_test: Page, ring: Path) -> None:
    quick_test.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
            document.querySelector(".quick-test").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        list(ring.read_bytes()),
    )
    expect(quick_test.get_by_role("article", name="dropped.jpg")).to_contain_text("returns ring")


def test_an_address_that_the_service_refuses_is_explained_in_its_words(quick_test: Page) -> None:
    quick_test.get_by_label("Address of an image").fill("http://127.0.0.1:1/cat.jpg")
    quick_test.get_by_role("button", name="Classify").click()
    card = quick_test.get_by_role("article")
    expect(card.locator(".error, .notice")).to_contain_text("Address not allowed")


def test_a_file_that_is_not_an_image_is_explained(quick_test: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(b"no image")
    choose(quick_test, path)
    expect(quick_test.get_by_role("article").locator(".error, .notice")).to_contain_text("image")


def test_the_camera_starts_by_a_click_and_ends_with_the_page(quick_test: Page, shapes: TrainedClassifier) -> None:
    quick_test.evaluate(CAMERA_STAND_IN)
    assert quick_test.evaluate("window.stream") is None
    quick_test.get_by_role("button", name="Use the camera").click()
    expect(quick_test.get_by_label("What the camera sees")).to_be_visible()
    quick_test.get_by_role("button", name="Take an image").click()
    expect(quick_test.get_by_role("article", name="camera 1.jpg")).to_contain_text("returns ring")
    quick_test.get_by_role("link", name="Data").click()
    expect(quick_test.get_by_label("What the camera sees")).not_to_be_attached()
    assert quick_test.evaluate("window.stream.getTracks().every((track) => track.readyState === 'ended')")


def test_a_refused_camera_is_explained(quick_test: Page) -> None:
    quick_test.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError') } }"
    )
    quick_test.get_by_role("button", name="Use the camera").click()
    expect(quick_test.get_by_role("alert")).to_contain_text("Allow it in the browser")


def test_images_are_released_when_the_page_is_left(quick_test: Page, ring: Path) -> None:
    quick_test.evaluate(
        "() => { const revoke = URL.revokeObjectURL; window.revoked = [];"
        " URL.revokeObjectURL = (url) => { window.revoked.push(url); revoke.call(URL, url) } }"
    )
    choose(quick_test, ring)
    address = quick_test.get_by_role("article").locator("img").get_attribute("src")
    quick_test.get_by_role("link", name="Data").click()
    expect(quick_test.get_by_role("article")).to_have_count(0)
    assert quick_test.evaluate("window.revoked") == [address]
