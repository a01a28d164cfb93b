"""The page of use: its programs are run as they are copied, and give what the API answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ocelli_cluster.resources import CLASSIFIERS
from tests.console.window import Window
from tests.gateway_harness.images import png
from tests.gateway_harness.stage import NAMESPACE, PASSWORD, Stage
from tests.gateway_harness.v3_client import V3Client

SCORES = {"heron": 0.8130000000000001, "owl": 0.52}


@pytest.fixture
def use(window: Window, client: V3Client, stage: Stage) -> Iterator[Page]:
    classifier_id = client.ready("Wading birds", SCORES)
    window.log_in(f"#/classifiers/{classifier_id}/use")
    expect(window.page.get_by_role("heading", name="Endpoint")).to_be_visible()
    yield window.page
    name = stage.classifier(classifier_id)["metadata"]["name"]
    stage.call(lambda: stage.cluster.remove(CLASSIFIERS, NAMESPACE, name))


def program(page: Page, name: str) -> str:
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("region", name=name, exact=True).inner_text()


def run(command: list[str], folder: Path) -> str:
    (folder / "photo.jpg").write_bytes(png())
    environment = {**os.environ, "OCELLI_API_KEY": PASSWORD}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_command_classifies_an_image(use: Page, tmp_path: Path) -> None:
    answer = run(["bash", "-c", program(use, "curl")], tmp_path)
    assert '"class":"heron","score":0.813' in answer


def test_python_program_prints_the_scores(use: Page, tmp_path: Path) -> None:
    (tmp_path / "classify.py").write_text(program(use, "Python"))
    assert run([sys.executable, "classify.py"], tmp_path).split()[::2] == ["heron", "owl"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_node_program_prints_the_scores(use: Page, tmp_path: Path) -> None:
    (tmp_path / "classify.mjs").write_text(program(use, "Node"))
    assert run(["node", "classify.mjs"], tmp_path).split()[::2] == ["heron", "owl"]


def test_copy_button_copies_the_program(use: Page) -> None:
    use.context.grant_permissions(["clipboard-read", "clipboard-write"])
    use.get_by_role("button", name="Copy: curl").click()
    expect(use.get_by_role("button", name="Copy: curl")).to_have_text("Copied")
    assert use.evaluate("navigator.clipboard.readText()").startswith('curl -u "apikey:$OCELLI_API_KEY"')


def test_manifest_is_that_of_the_classifier(use: Page) -> None:
    expect(use.get_by_role("region", name="Manifest")).to_contain_text(
        re.compile(r"kind: Classifier.*displayName: Wading birds", re.S)
    )


def test_model_that_does_not_exist_is_said_in_words(use: Page) -> None:
    use.get_by_role("button", name="Download ONNX").click()
    expect(use.get_by_role("alert")).to_contain_text(re.compile("ONNX|onnx"))


def test_model_is_downloaded_with_the_name_of_the_classifier(use: Page) -> None:
    use.route("**/core_ml_model?**", lambda route: route.fulfill(body=b"model"))
    with use.expect_download() as started:
        use.get_by_role("button", name="Download Core ML").click()
    assert re.fullmatch(r"Wadingbirds_\d+\.mlmodel", started.value.suggested_filename)
    assert Path(started.value.path()).read_bytes() == b"model"
