"""The whole life of a classifier in the console, with real images and trainings.

The cluster and the inference server are stand-ins.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.console.photographs import write_class, write_folders
from tests.console.test_new_page import CREATED, choose_folder, create
from tests.console.trained import TrainedClassifier, draw
from tests.console.window import Window
from tests.gateway_harness.stage import Stage
from tests.gateway_harness.v3_client import V3Client


def test_from_dropped_folders_to_deletion(window: Window, stage: Stage, client: V3Client, tmp_path: Path) -> None:
    folders = write_folders(tmp_path / "data", 20, negatives=12)
    (folders / "cross" / "really-a-box.jpg").write_bytes(draw("box", 700))
    window.log_in("#/new")
    page = window.page
    page.get_by_label("Name").fill("Marks")
    choose_folder(page, folders)
    expect(page.get_by_text("Ready: 53 images")).to_be_visible(timeout=CREATED)
    create(page)
    expect(page.get_by_role("heading", name="Marks")).to_be_visible(timeout=CREATED)
    marks = TrainedClassifier(stage=stage, classifier_id=page.url.split("/")[-1])

    watch_training(page, marks)
    correct_wrong_image(page, marks)
    compare_and_roll_back(page, marks)
    try_an_image(page, tmp_path)
    add_class(page, marks, tmp_path)
    delete(page, marks, client)


def watch_training(page: Page, marks: TrainedClassifier) -> None:
    manifest = marks.stage.classifier(marks.classifier_id)
    progress = {"percent": 30, "stage": "Extracting", "images": 16, "imagesTotal": 53, "device": "OpenVINO CPU float32"}
    manifest["status"] = {"classifierID": marks.classifier_id, "trainingRevision": "0123456789", "progress": progress}
    marks.stage.put_classifier(manifest)
    expect(page.get_by_role("heading", name="Looking at each image")).to_be_visible()
    expect(page.locator(".training")).to_contain_text("16 of 53")
    expect(page.locator(".training")).to_contain_text("OpenVINO CPU float32")
    expect(page.get_by_role("button", name="Training…")).to_be_disabled()
    marks.train()
    expect(page.locator(".metrics")).to_contain_text("accuracy", ignore_case=True)


def correct_wrong_image(page: Page, marks: TrainedClassifier) -> None:
    before = copy.deepcopy(marks.stage.classifier(marks.classifier_id)["spec"])
    page.get_by_role("link", name="Quality", exact=True).click()
    wrong = (
        page.locator("#judged-images")
        .get_by_role("option", name=re.compile("really-a-box"))
        .or_(page.locator("#judged-images [role=option][title*='really-a-box']"))
    )
    wrong.click()
    image = wrong.get_attribute("data-image")
    page.locator("#judged-images").get_by_role("button", name="Move to box").click()
    bar = page.get_by_role("region", name="Pending corrections")
    bar.get_by_role("button", name="Apply and retrain…").click()
    bar.get_by_role("button", name="Apply and retrain", exact=True).click()
    expect(page).to_have_url(re.compile("/training"))
    after = copy.deepcopy(marks.stage.classifier(marks.classifier_id)["spec"])
    assert after.pop("corrections") == [{"image": image, "class": "box"}]
    assert after == before
    marks.train()
    assert len(marks.revisions) == 2


def compare_and_roll_back(page: Page, marks: TrainedClassifier) -> None:
    newest, first = marks.revisions
    page.get_by_role("link", name="History", exact=True).click()
    newer = page.locator(".revision", has=page.get_by_text(newest))
    expect(newer).to_contain_text("Served")
    newer.get_by_role("link", name="Compare with the one before").click()
    expect(page).to_have_url(re.compile(f"/compare/{newest}/{first}"))
    expect(page.get_by_role("heading", name=re.compile("[Bb]etter")).first).to_be_visible()
    page.get_by_role("link", name="History", exact=True).click()
    page.locator(".revision", has=page.get_by_text(first)).get_by_role("button", name="Roll back to it").click()
    expect(page.get_by_text("is pinned: it is served")).to_be_visible()
    assert marks.stage.classifier(marks.classifier_id)["spec"]["pinnedRevision"] == first
    page.get_by_role("button", name="Unpin it").click()
    expect(page.get_by_text("is pinned: it is served")).to_be_hidden()


def try_an_image(page: Page, folder: Path) -> None:
    page.get_by_role("link", name="Quick test", exact=True).click()
    image = folder / "new.jpg"
    image.write_bytes(draw("cross", 4711))
    page.get_by_label("Drop images here").set_input_files(image)
    expect(page.get_by_role("article", name="new.jpg")).to_contain_text("With the threshold 0.50")


def add_class(page: Page, marks: TrainedClassifier, folder: Path) -> None:
    page.get_by_role("link", name="Training", exact=True).click()
    page.get_by_role("link", name="Add images").click()
    choose_folder(page, write_class(folder / "ring", "ring", 12))
    expect(page.get_by_text("Ready: 12 images")).to_be_visible(timeout=CREATED)
    page.get_by_role("button", name="Add and retrain").click()
    expect(page.get_by_role("row", name="ring")).to_be_visible(timeout=CREATED)
    marks.train()


def delete(page: Page, marks: TrainedClassifier, client: V3Client) -> None:
    page.get_by_role("button", name="Delete this classifier…").click()
    dialog = page.get_by_role("dialog", name="Delete this classifier?")
    expect(dialog.get_by_role("button", name="Delete it")).to_be_disabled()
    dialog.get_by_label("Type Marks to confirm").fill("Marks")
    dialog.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Classifiers")).to_be_visible()
    assert client.get(marks.classifier_id).status_code == 404
