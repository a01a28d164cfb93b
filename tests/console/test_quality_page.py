"""The page of quality: each number opens the images behind it, and corrections write `spec.corrections` only."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from ocelli_api.classifier import CREATED_BY_LABEL
from tests.console.keyboard import press_until
from tests.console.trained import CLASSES, HOSTILE_NAME, SERVED_SCORES, TrainedClassifier, draw
from tests.console.window import Window
from tests.gateway_harness.stage import PASSWORD, USER
from tests.gateway_harness.v3_client import V3Client


def open_quality(page: Page, classifier: TrainedClassifier, **query: str) -> None:
    page.goto(page.url.split("#")[0] + f"#/classifiers/{classifier.classifier_id}/quality?{urlencode(query)}")
    expect(page.locator("#judged-images .summary")).to_contain_text(re.compile("shown|No image"))


def fetch(client: V3Client, classifier: TrainedClassifier, what: str, **query: Any) -> Any:
    response = client.http.get(f"/ocelli/v1/classifiers/{classifier.classifier_id}/revisions/served/{what}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def tiles(page: Page) -> Locator:
    return page.locator("#judged-images [role=option]")


def bar(page: Page) -> Locator:
    return page.get_by_role("region", name="Pending corrections")


@pytest.fixture
def quality(page: Page, shapes: TrainedClassifier) -> Page:
    open_quality(page, shapes)
    return page


def test_the_accuracy_says_of_what_and_on_how_many_images(quality: Page, client: V3Client, shapes: TrainedClassifier) -> None:
    evaluation = fetch(client, shapes, "evaluation")
    text = quality.locator(".quality-headline").inner_text()
    assert f"{evaluation['accuracy']['value'] * 100:.1f} %" in text
    assert f"Between {evaluation['accuracy']['lower'] * 100:.1f} %" in text
    assert "balanced over 3 classes and the negative examples" in text
    assert f"on {evaluation['images']} images, each judged by heads that did not learn from it" in text


def test_each_cell_of_the_confusion_matrix_opens_exactly_the_images_that_it_counts(quality: Page) -> None:
    cells = quality.locator(".confusion td a")
    assert cells.count() >= len(CLASSES)
    for cell in cells.all():
        images = int(cell.inner_text())
        label = re.fullmatch(r"[\d,]+ images? of (.*), predicted (.*)", cell.get_attribute("aria-label") or "")
        assert label is not None
        cell.click()
        expect(quality.locator("#judged-images .summary")).to_contain_text(f"of {images} shown")
        expect(tiles(quality)).to_have_count(images)
        assert set(quality.locator("#judged-images .actual").all_text_contents()) == {label[1]}
        assert all(text.endswith(label[2]) for text in quality.locator("#judged-images .predicted").all_text_contents())


def test_the_most_wrong_images_come_first(quality: Page, client: V3Client, shapes: TrainedClassifier) -> None:
    images = fetch(client, shapes, "images", sort="most_wrong")["images"]
    assert [tile.get_attribute("data-image") for tile in tiles(quality).all()] == [item["image"] for item in images]
    assert images[0]["actual"] != images[0]["predicted"]
    expect(tiles(quality).first.locator(".predicted")).to_have_class(re.compile("wrong"))


def test_the_threshold_moves_precision_and_recall(quality: Page, client: V3Client, shapes: TrainedClassifier) -> None:
    judged = fetch(client, shapes, "scores")
    scores, actual = np.array(judged["scores"]), np.array(judged["actual"])
    slider = quality.get_by_label("Threshold")
    expect(slider).to_be_enabled()
    for value in (0.5, 0.9):
        slider.fill(str(value))
        rows = quality.locator("table.classes tbody tr")
        for index, name in enumerate(judged["classes"]):
            returned, of_class = scores[:, index] >= value, actual == index
            precision = (returned & of_class).sum() / returned.sum()
            recall = (returned & of_class).sum() / of_class.sum()
            row = rows.filter(has=quality.get_by_role("rowheader", name=name, exact=True))
            expect(row).to_contain_text(f"{100 * precision:.1f} %")
            expect(row).to_contain_text(f"{100 * recall:.1f} %")
    expect(quality).to_have_url(re.compile(r"threshold=0\.9"))


def test_an_opened_image_shows_judged_scores_and_what_is_answered_now(
    quality: Page, client: V3Client, shapes: TrainedClassifier, tmp_path: Path
) -> None:
    judged = fetch(client, shapes, "images", sort="most_wrong")["images"][0]
    tiles(quality).first.dblclick()
    dialog = quality.get_by_role("dialog")
    expect(dialog.get_by_role("columnheader", name="Judged")).to_be_visible()
    expect(dialog).to_contain_text("heads that did not learn from this image")
    for name, score in judged["scores"].items():
        row = dialog.locator(".score-bars tbody tr").filter(has=quality.get_by_role("rowheader", name=name, exact=True))
        expect(row.locator(".digits").first).to_have_text(str(score))
    expect(dialog).to_contain_text("Only the thumbnail is stored")
    other = tmp_path / "another.jpg"
    other.write_bytes(draw("ring", 9001))
    dialog.get_by_label("Only the thumbnail is stored").set_input_files(other)
    expect(dialog.get_by_role("columnheader", name="Now")).to_be_visible()
    expect(dialog).to_contain_text("another.jpg is another file than this image")
    expect(dialog.locator(".score-bars .digits", has_text=str(round(SERVED_SCORES["ring"], 3)))).to_be_visible()


def test_the_file_of_an_image_is_recognized(quality: Page, shapes: TrainedClassifier, tmp_path: Path) -> None:
    quality.get_by_label("Class", exact=True).select_option("box")
    box = tmp_path / "box.jpg"
    box.write_bytes(draw("box", 0))
    tile = tiles(quality).and_(quality.get_by_title(re.compile("box-0.jpg")))
    tile.dblclick()
    dialog = quality.get_by_role("dialog")
    dialog.get_by_label("Only the thumbnail is stored").set_input_files(box)
    expect(dialog).to_contain_text("This is the same file.")


def test_filters_selection_and_opened_image_survive_a_reload(window: Window, page: Page, shapes: TrainedClassifier) -> None:
    open_quality(page, shapes, actual="ring", sort="class")
    tiles(page).nth(0).click()
    tiles(page).nth(2).click(modifiers=["Shift"])
    chosen = [tiles(page).nth(index).get_attribute("data-image") for index in range(3)]
    tiles(page).nth(1).dblclick()
    page.reload()
    window.fill_log_in(USER, PASSWORD)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Class", exact=True)).to_have_value("ring")
    expect(page.get_by_label("Order")).to_have_value("class")
    selected = page.locator("#judged-images [aria-selected=true]")
    assert [tile.get_attribute("data-image") for tile in selected.all()] == chosen


def test_pending_corrections_survive_a_reload_and_are_taken_back_by_undo(window: Window, quality: Page) -> None:
    tiles(quality).nth(0).click()
    tools = quality.locator("#judged-images").get_by_role("group", name="Selected images")
    tools.get_by_role("button", name="Drop").click()
    tiles(quality).nth(1).click()
    tools.get_by_role("button", name="Move to cross").click()
    expect(bar(quality)).to_contain_text("2 images move to “cross”")
    quality.reload()
    window.fill_log_in(USER, PASSWORD)
    bar(quality).get_by_role("button", name="Undo").click()
    expect(bar(quality)).to_contain_text("1 image is dropped")
    bar(quality).get_by_role("button", name="Undo").click()
    expect(bar(quality)).to_be_hidden()


def test_the_bar_says_what_will_happen_before_anything_is_written(quality: Page, shapes: TrainedClassifier) -> None:
    before = shapes.stage.classifier(shapes.classifier_id)["spec"]
    tiles(quality).first.click()
    quality.locator("#judged-images").get_by_role("button", name="Drop").click()
    bar(quality).get_by_role("button", name="Apply and retrain…").click()
    expect(bar(quality).get_by_role("button", name="Apply and retrain", exact=True)).to_be_visible()
    assert shapes.stage.classifier(shapes.classifier_id)["spec"] == before
    bar(quality).get_by_role("button", name="Not yet").click()
    expect(bar(quality).get_by_role("button", name="Apply and retrain…")).to_be_focused()


def test_applying_writes_corrections_and_nothing_else(quality: Page, shapes: TrainedClassifier) -> None:
    before = copy.deepcopy(shapes.stage.classifier(shapes.classifier_id))
    image = tiles(quality).nth(3).get_attribute("data-image")
    tiles(quality).nth(3).click()
    quality.locator("#judged-images").get_by_role("button", name="Move to box").click()
    bar(quality).get_by_role("button", name="Apply and retrain…").click()
    bar(quality).get_by_role("button", name="Apply and retrain", exact=True).click()
    expect(quality).to_have_url(re.compile("/training"))
    after = shapes.stage.classifier(shapes.classifier_id)
    assert after["spec"].pop("corrections") == [{"image": image, "class": "box"}]
    assert after["spec"] == before["spec"]
    shapes.stage.put_classifier(before)


def test_a_suggestion_is_accepted_with_one_click(quality: Page, client: V3Client, shapes: TrainedClassifier) -> None:
    found = fetch(client, shapes, "data")["suspected_label_errors"]
    suspects = quality.locator("section", has=quality.get_by_role("heading", name="Images to look at"))
    tile = suspects.get_by_role("option").first
    expect(tile).to_contain_text(f"more like {found[0]['suggested_class']}")
    tile.click()
    suspects.get_by_role("button", name="Accept suggestion").click()
    expect(bar(quality)).to_contain_text(f"1 image moves to “{found[0]['suggested_class']}”")


def test_a_classifier_of_git_shows_the_yaml_to_commit(page: Page, shapes: TrainedClassifier) -> None:
    kept = copy.deepcopy(shapes.stage.classifier(shapes.classifier_id))
    managed = copy.deepcopy(kept)
    del managed["metadata"]["labels"][CREATED_BY_LABEL]
    managed["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shapes:ocelli.dev/Classifier:team-a/shapes"}
    shapes.stage.put_classifier(managed)
    try:
        open_quality(page, shapes)
        image = tiles(page).first.get_attribute("data-image")
        tiles(page).first.click()
        page.locator("#judged-images").get_by_role("button", name="Drop").click()
        bar(page).get_by_role("button", name="Show the YAML…").click()
        expect(page.get_by_label("Manifest to commit", exact=True)).to_contain_text(
            re.compile(f"corrections:.*image: {image}", re.DOTALL)
        )
        assert "corrections" not in shapes.stage.classifier(shapes.classifier_id)["spec"]
    finally:
        shapes.stage.put_classifier(kept)


def test_names_of_files_are_text(page: Page, shapes: TrainedClassifier) -> None:
    shown: list[str] = []
    page.on("dialog", lambda dialog: (shown.append(dialog.message), dialog.dismiss()))
    open_quality(page, shapes, actual="ring")
    tiles(page).and_(page.get_by_title(re.compile(re.escape(HOSTILE_NAME)))).dblclick()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_contain_text(HOSTILE_NAME)
    expect(page.locator("img[src=x]")).to_have_count(0)
    assert shown == []


def test_thumbnails_are_released_when_the_page_is_left(page: Page, shapes: TrainedClassifier) -> None:
    page.evaluate(
        """() => {
            window.held = new Set();
            const { createObjectURL: create, revokeObjectURL: revoke } = URL;
            URL.createObjectURL = (blob) => { const url = create.call(URL, blob); window.held.add(url); return url };
            URL.revokeObjectURL = (url) => { window.held.delete(url); revoke.call(URL, url) };
        }"""
    )
    open_quality(page, shapes)
    tiles(page).first.scroll_into_view_if_needed()
    expect(tiles(page).first.locator("img")).to_have_attribute("src", re.compile("^blob:"))
    assert page.evaluate("window.held.size") > 0
    page.get_by_role("link", name="History").click()
    expect(tiles(page)).to_have_count(0)
    assert page.evaluate("window.held.size") == 0


def test_images_are_opened_and_dropped_with_the_keyboard_only(quality: Page) -> None:
    tiles(quality).first.wait_for()
    press_until(quality, "Tab", "[role=option]:focus")
    press_until(quality, "Tab", "#judged-images [role=option]:focus")
    quality.keyboard.press("Space")
    quality.keyboard.press("Shift+ArrowRight")
    expect(quality.locator("#judged-images [aria-selected=true]")).to_have_count(2)
    quality.keyboard.press("Enter")
    expect(quality.get_by_role("dialog")).to_be_visible()
    quality.keyboard.press("Escape")
    expect(tiles(quality).nth(1)).to_be_focused()
    press_until(quality, "Shift+Tab", "#judged-images button:focus", name="Drop")
    quality.keyboard.press("Enter")
    expect(bar(quality)).to_contain_text("2 images are dropped")
    press_until(quality, "Tab", ".corrections-bar button:focus", name="Apply and retrain…")
    quality.keyboard.press("Enter")
    expect(bar(quality).get_by_role("button", name="Apply and retrain", exact=True)).to_be_focused()


def test_the_accuracy_counts_the_images_it_was_measured_on_also_after_an_erasure(
    page: Page, client: V3Client, shapes: TrainedClassifier
) -> None:
    measured = fetch(client, shapes, "evaluation")["accuracy"]["images"]

    def erase(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "images": measured - 7})

    page.route("**/evaluation", erase)
    open_quality(page, shapes)
    expect(page.locator(".quality-headline")).to_contain_text(f"on {measured} images")
