"""One image has one score: in v3, alone and in a zip, in `ocelli classify`, and in the quick test of the console."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.console.window import open_window
from tests.product.classifiers import create, wait_for_status
from tests.product.command_line import run_ocelli
from tests.product.instance import Ocelli

pytestmark = pytest.mark.cluster

Scores = dict[str, str]
"""The digits of each class's score, as they are written."""


@pytest.fixture(scope="module")
def classifier_id(ocelli: Ocelli) -> str:
    with ocelli.client() as client:
        created = create(client, ocelli, "same scores")
        wait_for_status(client, created)
    return created


@pytest.fixture
def image(ocelli: Ocelli) -> Path:
    return ocelli.samples / "test-one.png"


@pytest.fixture
def alone(client: httpx.Client, classifier_id: str, image: Path) -> Scores:
    return ask_v3(client, classifier_id, image)


def ask_v3(client: httpx.Client, classifier_id: str, file: Path) -> Scores:
    form = {"classifier_ids": classifier_id, "threshold": "0"}
    return read_scores(client.post("/v3/classify", data=form, files={"images_file": (file.name, file.read_bytes())}).text)


def read_scores(text: str) -> Scores:
    return dict(re.findall(r'"class": ?"(\w+)",\s*"score": ?([^,}\s]+)', text))


def test_in_a_zip_it_is_the_same(
    client: httpx.Client, classifier_id: str, image: Path, alone: Scores, ocelli: Ocelli, tmp_path: Path
) -> None:
    together = tmp_path / "two.zip"
    with zipfile.ZipFile(together, "w") as archive:
        archive.write(ocelli.samples / "test-zero.png", "a.png")
        archive.write(image, "b.png")
    form = {"classifier_ids": classifier_id, "threshold": "0"}
    answer = client.post("/v3/classify", data=form, files={"images_file": (together.name, together.read_bytes())})
    assert [read_scores(part) for part in answer.text.split('"image":')][1] == alone


def test_in_the_command_line_it_is_the_same(
    ocelli: Ocelli, classifier_id: str, image: Path, alone: Scores, tmp_path: Path
) -> None:
    done = run_ocelli(ocelli, "classify", str(image), "-c", classifier_id, "--threshold", "0", "-o", "json", home=tmp_path)
    assert read_scores(done.stdout) == alone, done.stderr


def test_in_the_quick_test_it_is_the_same(
    browser: Browser, ocelli: Ocelli, classifier_id: str, image: Path, alone: Scores
) -> None:
    with open_window(browser, ocelli.address) as window:
        window.log_in(f"#/classifiers/{classifier_id}/quick-test", user=ocelli.user, password=ocelli.password)
        window.page.get_by_label("Drop images here").set_input_files(image)
        rows = window.page.get_by_role("article", name=image.name).locator(".score-bars tbody tr")
        expect(rows).to_have_count(len(alone))
        assert {row.locator("th").inner_text(): row.locator(".digits").inner_text() for row in rows.all()} == alone
