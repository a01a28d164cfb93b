"""Every command of the pages is run by a test, or listed here with the reason."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.documented_commands import CHECKOUT, PAGES, sections_with_blocks

NOT_RUN = {
    ("README.md", "Try it"): "`make run` is what the product tests start; `make test` is this run",
    ("README.md", "Install it"): "`make e2e CLUSTER=kind` does the same with its own names of images",
    ("CONTRIBUTING.md", "The first change in fifteen minutes"): "they make the environment that this test runs in",
    ("docs/cli.md", ""): "`make .venv/.dev` installs the same package",
    ("docs/gitops.md", "Argo CD"): "needs Argo CD; tests/gitops runs the health check that the patch installs",
    ("docs/install.md", ""): "`make e2e CLUSTER=kind` does the same with its own names of images",
    ("docs/install.md", "Images"): "needs a registry; `make e2e CLUSTER=kind` builds and loads the images",
    ("docs/running-locally.md", ""): "`make run` and `make demo` are what the product tests start",
    ("docs/tutorial.md", "Built-in classifiers"): "the demo, which a product test runs, sends the same request",
}
SECTIONS = [(page, title, blocks) for page in PAGES for title, blocks in sections_with_blocks(page)]
USE = re.compile(r'bash_blocks\(\s*"([^"]+)", "([^"]*)"\s*\)')


def test_every_section_with_commands_is_run_by_a_test_or_listed() -> None:
    run = {use for path in (CHECKOUT / "tests").rglob("test_*.py") for use in USE.findall(path.read_text())}
    assert sorted(run | NOT_RUN.keys()) == sorted((page, title) for page, title, _ in SECTIONS)
    assert not run & NOT_RUN.keys()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(("page", "title", "blocks"), SECTIONS, ids=[f"{page} {title}" for page, title, _ in SECTIONS])
def test_commands_can_be_pasted(page: str, title: str, blocks: list[str]) -> None:
    for block in blocks:
        parsed = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert (parsed.returncode, parsed.stderr) == (0, "")
