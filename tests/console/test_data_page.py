"""The page of the data report: what was read and left out, and images to look at, before and after a training."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.keyboard import apply_corrections, press_until
from tests.console.trained import TrainedClassifier
from tests.gateway_harness.stage import Stage
from tests.gateway_harness.v3_client import V3Client


@pytest.fixture
def report(client: V3Client, shapes: TrainedClassifier) -> Any:
    return client.http.get(f"/ocelli/v1/classifiers/{shapes.classifier_id}/revisions/served/data").json()


@pytest.fixture
def data(page: Page, shapes: TrainedClassifier) -> Page:
    page.goto(page.url.split("#")[0] + f"#/classifiers/{shapes.classifier_id}/data")
    expect(page.get_by_role("heading", name="Images", exact=True)).to_be_visible()
    return page


def test_each_class_has_its_counts(data: Page, report: Any) -> None:
    for item in report["sets"]:
        row = data.get_by_role("row").filter(
            has=data.get_by_role("rowheader", name=item["class"] or "negative examples", exact=True)
        )
        expect(row.get_by_role("cell")).to_have_text(
            [str(item["images"]), str(item["skipped_count"]), str(item["duplicates_count"])]
        )


def test_files_that_were_left_out_have_their_reason(data: Page, report: Any) -> None:
    [skipped] = [file for item in report["sets"] for file in item["skipped"]]
    row = data.get_by_role("row").filter(has_text=skipped["name"])
    expect(row).to_contain_text(skipped["reason"])
    expect(row).to_contain_text("ring")


def test_each_kind_of_finding_shows_its_images(data: Page, report: Any) -> None:
    kinds = {
        "Suspected label errors": "suspected_label_errors",
        "Near duplicates": "near_duplicates",
        "Unlike their class": "outliers",
    }
    for text, name in kinds.items():
        if not report.get(f"{name}_count"):
            continue
        data.get_by_role("button", name=f"{text} ({report[f'{name}_count']})").click()
        shown = {tile.get_attribute("data-image") for tile in data.get_by_role("option").all()}
        assert {item["image"] for item in report[name]} <= shown


def test_the_chosen_kind_is_in_the_address(data: Page, report: Any) -> None:
    last = data.get_by_role("group", name="Kind of images").get_by_role("button").last
    last.click()
    expect(last).to_have_attribute("aria-pressed", "true")
    assert "found=" in data.url


@pytest.fixture
def restored(stage: Stage, shapes: TrainedClassifier) -> Iterator[TrainedClassifier]:
    """The classifier of all tests, which is as before afterwards."""
    before = copy.deepcopy(stage.classifier(shapes.classifier_id))
    yield shapes
    stage.put_classifier(before)


def test_findings_are_corrected_and_retrained_with_the_keyboard_only(
    data: Page, report: Any, restored: TrainedClassifier, stage: Stage
) -> None:
    suspects = [item["image"] for item in report["suspected_label_errors"]]
    press_until(data, "Tab", "button:focus", name=f"Suspected label errors ({len(suspects)})")
    data.keyboard.press("Enter")
    correct_focused_image(data, "Move to box")
    press_until(data, "Tab", ".corrections-bar button:focus", name="Undo")
    data.keyboard.press("Enter")
    expect(data.get_by_role("region", name="Pending corrections")).to_be_hidden()
    press_until(data, "Shift+Tab", ".finding-tabs button:focus")
    # Selected still: the next Space would deselect it.
    press_until(data, "Tab", ".correction-tools button:focus", name="Drop")
    data.keyboard.press("Enter")
    apply_corrections(data)
    expect(data).to_have_url(re.compile("/training"))
    assert stage.classifier(restored.classifier_id)["spec"]["corrections"] == [{"image": suspects[0], "class": ""}]


def correct_focused_image(data: Page, tool: str) -> None:
    """Select the first image of the findings, and press a tool for it."""
    press_until(data, "Tab", "[role=option]:focus")
    data.keyboard.press("Space")
    expect(data.locator("[role=option]:focus")).to_have_attribute("aria-selected", "true")
    press_until(data, "Shift+Tab", ".correction-tools button:focus", name=tool)
    data.keyboard.press("Enter")
    expect(data.get_by_role("region", name="Pending corrections")).to_contain_text("1 image")
