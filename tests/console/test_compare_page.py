"""The comparison of two revisions, image by image, after a correction was learned."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console.keyboard import press_until
from tests.console.trained import TrainedClassifier, noise_zip, shape_zips
from tests.gateway_harness.v3_client import V3Client


@pytest.fixture(scope="module")
def corrected(client: V3Client) -> Iterator[TrainedClassifier]:
    """Trained twice: before and after two boxes among the rings were moved."""
    classifier = TrainedClassifier.create(client, "Corrected", shape_zips(), noise_zip())
    path = f"/ocelli/v1/classifiers/{classifier.classifier_id}"
    images = client.http.get(f"{path}/revisions/served/images", params={"actual": "ring", "limit": 100}).json()["images"]
    boxes = [item["image"] for item in images if "ring-" not in item["name"]]
    corrections = {"corrections": [{"image": image, "class": "box"} for image in boxes]}
    assert client.http.post(f"{path}/corrections", json=corrections).status_code == 200
    classifier.train()
    yield classifier
    client.delete(classifier.classifier_id)


def test_what_got_better_and_worse_is_listed_image_by_image(page: Page, client: V3Client, corrected: TrainedClassifier) -> None:
    newer, older = corrected.revisions
    path = f"/ocelli/v1/classifiers/{corrected.classifier_id}/revisions/{newer}/compare/{older}"
    answer = client.http.get(path).json()
    assert answer["better_count"] + answer["worse_count"] > 0
    page.goto(page.url.split("#")[0] + f"#/classifiers/{corrected.classifier_id}/compare/{newer}/{older}")
    for name in ("better", "worse"):
        section = page.locator("section", has=page.get_by_role("heading", name=re.compile(name, re.IGNORECASE)))
        expect(section.get_by_role("option")).to_have_count(len(answer[name]))
        shown = [tile.get_attribute("data-image") for tile in section.get_by_role("option").all()]
        assert shown == [item["image"] for item in answer[name]]
    expect(page.locator(".quality-headline")).to_contain_text(f"of {answer['images']} images that both revisions have judged")
    for revision, accuracy in answer["accuracy"].items():
        expect(page.locator(".quality-headline")).to_contain_text(f"{revision}: {100 * accuracy:.1f} % accurate")


def test_an_image_shows_what_each_revision_predicted(page: Page, corrected: TrainedClassifier) -> None:
    newer, older = corrected.revisions
    page.goto(page.url.split("#")[0] + f"#/classifiers/{corrected.classifier_id}/compare/{older}/served")
    page.locator(".tile").first.dblclick()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Predicted by {newer}")
    expect(dialog).to_contain_text(f"Predicted by {older}")


def test_revisions_are_compared_with_the_keyboard_only(page: Page, corrected: TrainedClassifier) -> None:
    newer, older = corrected.revisions
    page.goto(page.url.split("#")[0] + f"#/classifiers/{corrected.classifier_id}/history")
    expect(page.get_by_role("heading", name="Corrected")).to_be_focused()
    press_until(page, "Tab", "a:focus", name="Compare with the one before")
    page.keyboard.press("Enter")
    expect(page.locator(".quality-headline")).to_be_visible()
    press_until(page, "Tab", "[role=option]:focus")
    tile = page.locator("[role=option]:focus")
    image = tile.get_attribute("data-image")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(f"Predicted by {newer}")
    page.keyboard.press("Escape")
    expect(page.locator(f"[role=option][data-image='{image}']")).to_be_focused()
    press_until(page, "Shift+Tab", "a:focus", name="Swap")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/compare/{older}/{newer}"))
    expect(page.get_by_role("heading", name=f"Better: right in {older}, wrong in {newer}")).to_be_visible()


def test_a_classifier_of_one_revision_says_that_there_is_nothing_to_compare(page: Page, shapes: TrainedClassifier) -> None:
    page.goto(page.url.split("#")[0] + f"#/classifiers/{shapes.classifier_id}/compare")
    expect(page.get_by_text("There is only one revision")).to_be_visible()
