"""The whole life of a classifier in the console, without stand-ins: real images, trainings, cluster and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from tests.console.photographs import write_class, write_folders
from tests.console.test_new_page import choose_folder, create
from tests.console.trained import draw
from tests.console.window import Window, open_window
from tests.product.instance import Document, Ocelli

pytestmark = pytest.mark.cluster

READ = 30_000
"""Milliseconds for reading and checking the images of a folder, on a busy machine."""
TRAINED = 120_000
"""Milliseconds for a Pod, a training and a rollout, on a busy machine."""


@pytest.fixture
def window(browser: Browser, ocelli: Ocelli) -> Iterator[Window]:
    with open_window(browser, ocelli.address) as opened:
        yield opened
        assert opened.faults == []


def test_from_folders_to_deletion(window: Window, ocelli: Ocelli, client: httpx.Client, tmp_path: Path) -> None:
    folders = write_folders(tmp_path / "data", 20, negatives=12)
    (folders / "cross" / "really-a-box.jpg").write_bytes(draw("box", 700))
    window.log_in("#/new", user=ocelli.user, password=ocelli.password)
    page = window.page
    page.get_by_label("Name").fill("Marks")
    choose_folder(page, folders)
    expect(page.get_by_text("Ready: 53 images")).to_be_visible(timeout=READ)
    create(page)
    expect(page.get_by_role("heading", name="Marks")).to_be_visible(timeout=READ)
    classifier_id = page.url.split("/")[-1]

    watch_training(page)
    correct_wrong_image(page, ocelli, classifier_id)
    compare_and_roll_back(page)
    try_an_image(page, client, classifier_id, tmp_path)
    add_class(page, tmp_path)
    delete(page, client, classifier_id)


def watch_training(page: Page) -> None:
    expect(page.get_by_role("button", name="Training…")).to_be_disabled()
    expect(page.locator(".metrics")).to_contain_text("accuracy", ignore_case=True, timeout=TRAINED)
    expect(page.get_by_text("Ready", exact=True).first).to_be_visible(timeout=TRAINED)


def correct_wrong_image(page: Page, ocelli: Ocelli, classifier_id: str) -> None:
    before = find_spec(ocelli, classifier_id)
    page.get_by_role("link", name="Quality", exact=True).click()
    wrong = page.locator("#judged-images [role=option][title*='really-a-box']")
    wrong.click()
    image = wrong.get_attribute("data-image")
    page.locator("#judged-images").get_by_role("button", name="Move to box").click()
    bar = page.get_by_role("region", name="Pending corrections")
    bar.get_by_role("button", name="Apply and retrain…").click()
    bar.get_by_role("button", name="Apply and retrain", exact=True).click()
    expect(page).to_have_url(re.compile("/training"))
    after = find_spec(ocelli, classifier_id)
    assert after.pop("corrections") == [{"image": image, "class": "box"}]
    assert after == before


def compare_and_roll_back(page: Page) -> None:
    page.get_by_role("link", name="History", exact=True).click()
    rows = page.locator(".revision")
    expect(rows).to_have_count(2, timeout=TRAINED)
    expect(rows.first).to_contain_text("Served", timeout=TRAINED)
    rows.first.get_by_role("link", name="Compare with the one before").click()
    expect(page.get_by_role("heading", name=re.compile("[Bb]etter")).first).to_be_visible()
    page.get_by_role("link", name="History", exact=True).click()
    roll_back(rows.last)
    expect(rows.last).to_contain_text("Served", timeout=TRAINED)
    page.get_by_role("button", name="Unpin it").click()
    expect(rows.first).to_contain_text("Served", timeout=TRAINED)


def roll_back(revision: Locator) -> None:
    revision.get_by_role("button", name="Roll back to it").click()
    expect(revision.page.get_by_text("is pinned: it is served")).to_be_visible()


def try_an_image(page: Page, client: httpx.Client, classifier_id: str, folder: Path) -> None:
    page.get_by_role("link", name="Quick test", exact=True).click()
    image = folder / "new.jpg"
    image.write_bytes(draw("cross", 4711))
    page.get_by_label("Drop images here").set_input_files(image)
    shown = page.get_by_role("article", name="new.jpg")
    expect(shown).to_contain_text("With the threshold 0.50")
    answer = client.post("/v3/classify", data={"classifier_ids": classifier_id}, files={"images_file": image.read_bytes()})
    best = answer.json()["images"][0]["classifiers"][0]["classes"][0]
    expect(shown.locator(".score-bars tbody tr", has_text=best["class"]).locator(".digits")).to_have_text(str(best["score"]))


def add_class(page: Page, folder: Path) -> None:
    page.get_by_role("link", name="Training", exact=True).click()
    page.get_by_role("link", name="Add images").click()
    choose_folder(page, write_class(folder / "ring", "ring", 12))
    expect(page.get_by_text("Ready: 12 images")).to_be_visible(timeout=READ)
    page.get_by_role("button", name="Add and retrain").click()
    expect(page.get_by_role("row", name="ring")).to_be_visible(timeout=TRAINED)


def delete(page: Page, client: httpx.Client, classifier_id: str) -> None:
    page.get_by_role("button", name="Delete this classifier…").click()
    dialog = page.get_by_role("dialog", name="Delete this classifier?")
    expect(dialog.get_by_role("button", name="Delete it")).to_be_disabled()
    dialog.get_by_label("Type Marks to confirm").fill("Marks")
    dialog.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Classifiers", exact=True)).to_be_visible()
    assert client.get(f"/v3/classifiers/{classifier_id}").status_code == 404


def find_spec(ocelli: Ocelli, classifier_id: str) -> Document:
    found: Document = ocelli.items("classifiers", f"{CLASSIFIER_ID_LABEL}={classifier_id}")[0]["spec"]
    return found
