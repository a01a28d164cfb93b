"""Pages for everybody: what axe-core finds, the keyboard alone, narrow windows and both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.photographs import write_folders
from tests.console.test_new_page import choose_folder
from tests.console.trained import TrainedClassifier
from tests.console.window import NARROW, WIDE, Window, open_window
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance

AXE = Path(__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
PAGES = {
    "#/classifiers": ".row .badge",
    "#/new": ".drop",
    "#/classifiers/ID/training": ".metrics",
    "#/classifiers/ID/quality": "#judged-images [role=option]",
    "#/classifiers/ID/data": "[role=option]",
    "#/classifiers/ID/quick-test": "main h2",
    "#/classifiers/ID/history": ".revision",
    "#/classifiers/ID/use": "[role=tab]",
    "#/classifiers/ID/add": ".drop",
    "#/no/such": ".notice",
}
"""Addresses, and what is shown there once all is read."""


@pytest.fixture(scope="session")
def axe() -> str:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test` installs it where npm is")
    return AXE.read_text()


def find_violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found: list[Any] = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [f"{item['id']}: {node['target']} {node['failureSummary']}" for item in found for node in item["nodes"]]


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide and light", "narrow and dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    browser: Browser, gateway: GatewayInstance, shapes: TrainedClassifier, axe: str, size: tuple[int, int], dark: bool
) -> None:
    found = {}
    with open_window(browser, gateway.address, size=size, dark=dark) as window:
        window.open()
        expect(window.page.get_by_role("heading", name="Ocelli")).to_be_visible()
        found["log-in"] = find_violations(window.page, axe)
        window.fill_log_in(USER, PASSWORD)
        for address, shown in PAGES.items():
            window.go(address.replace("ID", shapes.classifier_id))
            expect(window.page.locator(shown).first).to_be_visible()
            found[address] = find_violations(window.page, axe)
            wide = window.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found[address].append(f"{wide} pixels wider than the window")
        assert window.faults == []
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_axe_finds_nothing_where_examples_and_dialogs_are_shown(window: Window, axe: str, tmp_path: Path) -> None:
    window.log_in("#/new")
    page = window.page
    folders = write_folders(tmp_path / "data", 9, negatives=10)
    (folders / "box" / "notes.txt").write_text("no image")
    choose_folder(page, folders)
    expect(page.get_by_text("1 file cannot be used")).to_be_visible()
    assert find_violations(page, axe) == []
    page.get_by_role("navigation", name="Console").get_by_role("link", name="Classifiers").click()
    expect(page.get_by_role("dialog", name="Leave this page?")).to_be_visible()
    assert find_violations(page, axe) == []


def test_first_stop_of_the_keyboard_skips_the_header(window: Window) -> None:
    window.log_in()
    window.page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    window.page.keyboard.press("Tab")
    expect(window.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    window.page.keyboard.press("Enter")
    expect(window.page.locator("main")).to_be_focused()


def test_theme_follows_the_system_until_somebody_chooses(browser: Browser, gateway: GatewayInstance) -> None:
    with open_window(browser, gateway.address, dark=True) as window:
        window.open()
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = window.page.evaluate(ground)
        window.page.get_by_role("button", name="Use light colours").click()
        light = window.page.evaluate(ground)
        assert light != dark
        window.page.reload()
        expect(window.page.get_by_role("button", name="Use dark colours")).to_be_visible()
        assert window.page.evaluate(ground) == light
