"""The browser of the console's tests: Chromium from the PATH, or the one that Playwright has installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEADLINE_MILLISECONDS = 20_000
MISSING = "no Chromium is installed: run `make browser`, or put chromium on the PATH"


def find_browser() -> Path | None:
    """The browser's program; None where there is none."""
    on_path = next((found for name in NAMES if (found := shutil.which(name)) is not None), None)
    if on_path is not None:
        return Path(on_path)
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return own if own.exists() else None


@contextmanager
def needed_browser() -> Iterator[Browser]:
    """The browser; skips the tests where there is none, and fails them in CI.

    While it runs, no other event loop can run in this thread: end it before tests of other modules begin.
    """
    program = find_browser()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    if program is None:
        pytest.skip(MISSING)
    # For machines that do much else at the same time.
    expect.set_options(timeout=DEADLINE_MILLISECONDS)
    with running_browser(program) as running:
        yield running


@contextmanager
def running_browser(program: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright, program)
        yield browser
        browser.close()


def launch(playwright: Playwright, program: Path) -> Browser:
    # Chromium's sandbox needs rights that containers do not have; it only opens pages of the test's own server.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=program, args=arguments)
