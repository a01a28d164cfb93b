"""The life of a classifier with the keyboard alone. Data, compare and quick test have such tests on their own pages."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.console.keyboard import apply_corrections, press_until
from tests.console.photographs import write_folders
from tests.console.test_new_page import CREATED
from tests.console.trained import TrainedClassifier
from tests.console.window import Window
from tests.gateway_harness.stage import PASSWORD, USER, Stage
from tests.gateway_harness.v3_client import V3Client


def test_from_the_log_in_to_deletion(window: Window, stage: Stage, client: V3Client, tmp_path: Path) -> None:
    page = window.page
    window.open()
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type(USER)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Classifiers", exact=True)).to_be_focused()

    create(page, write_folders(tmp_path / "data", 12))
    expect(page.get_by_role("heading", name="Keys")).to_be_focused(timeout=CREATED)
    keys = TrainedClassifier(stage=stage, classifier_id=page.url.split("/")[-1])
    keys.train()
    drop_image(page)
    keys.train()
    roll_back(page)
    first = keys.revisions[-1]
    expect(page.get_by_text("is pinned: it is served")).to_be_visible()
    assert stage.classifier(keys.classifier_id)["spec"]["pinnedRevision"] == first
    read_programs(page)
    delete(page)
    assert client.get(keys.classifier_id).status_code == 404


def follow(page: Page, name: str) -> None:
    """Walk to a link of the page, and follow it."""
    press_until(page, "Tab", "a:focus", name=name)
    page.keyboard.press("Enter")


def create(page: Page, folder: Path) -> None:
    follow(page, "New classifier")
    press_until(page, "Tab", "input:focus")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("Keys")
    press_until(page, "Tab", "button:focus", name="Choose a folder")
    with page.expect_file_chooser() as opened:
        page.keyboard.press("Enter")
    opened.value.set_files(folder)
    expect(page.get_by_text("Ready: 24 images")).to_be_visible(timeout=CREATED)
    press_until(page, "Tab", "button:focus", name="Create and train")
    page.keyboard.press("Enter")


def drop_image(page: Page) -> None:
    follow(page, "Quality")
    page.locator("#judged-images [role=option]").first.wait_for()
    press_until(page, "Tab", "#judged-images [role=option]:focus")
    page.keyboard.press("Space")
    press_until(page, "Shift+Tab", "#judged-images button:focus", name="Drop")
    page.keyboard.press("Enter")
    apply_corrections(page)
    expect(page.get_by_role("button", name="Training…")).to_be_visible()


def roll_back(page: Page) -> None:
    follow(page, "History")
    expect(page.locator(".revision")).to_have_count(2)
    press_until(page, "Tab", ".revision button:focus", name="Roll back to it")
    page.keyboard.press("Enter")


def read_programs(page: Page) -> None:
    follow(page, "Use it")
    expect(page.get_by_role("heading", name="Endpoint")).to_be_visible()
    press_until(page, "Tab", "[role=tab]:focus", name="curl")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Python")).to_be_visible()
    expect(page.get_by_role("tab", name="curl")).to_have_attribute("aria-selected", "false")


def delete(page: Page) -> None:
    follow(page, "Training")
    press_until(page, "Tab", "button:focus", name="Delete this classifier…")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Type Keys to confirm")).to_be_focused()
    page.keyboard.type("Keys")
    press_until(page, "Tab", "button:focus", name="Delete it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Classifiers", exact=True)).to_be_focused()
