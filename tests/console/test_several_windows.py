"""Several windows of one browser: it opens six connections to a host over all of them, and a stream of events holds one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.window import Window, open_window
from tests.gateway_harness.stage import GatewayInstance
from tests.gateway_harness.v3_client import V3Client

WINDOWS = 6
STREAMS = 3
# Each name is one window; the first of them connects after the others. Messages between windows take a moment.
CONNECT_AGAIN = """async () => {
    const { StreamPlaces } = await import(new URL("stream-places.js", document.querySelector("script[type=module]").src));
    const lost = [];
    const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
    const windows = [];
    for (const name of ["used first", "second", "third", "fourth"]) {
        windows.push({ name, places: new StreamPlaces() });
        await wait(20);
    }
    for (const { name, places } of [...windows.slice(1), windows[0]]) places.take(() => lost.push(name));
    for (let tries = 0; lost.length === 0 && tries < 200; tries++) await wait(50);
    await wait(200);
    return lost;
}"""


@pytest.fixture
def windows(browser: Browser, gateway: GatewayInstance) -> Iterator[list[Page]]:
    """Windows of one browser that show the list, in the order in which they were opened."""
    with open_window(browser, gateway.address) as first:
        pages = [first.page, *(first.page.context.new_page() for _ in range(WINDOWS - 1))]
        for page in pages:
            Window(page=page, address=gateway.address).log_in()
            expect(page.locator(".list .row, .list .empty").first).to_be_visible()
        yield pages
        assert first.faults == []


def test_each_of_six_windows_shows_the_list_and_its_changes(windows: list[Page], client: V3Client) -> None:
    classifier_id = client.created("Curlews")
    for page in windows:
        expect(page.get_by_role("link", name="Curlews")).to_be_visible()
    client.delete(classifier_id)


def test_windows_used_last_are_live_and_a_window_is_live_again_once_it_is_used(windows: list[Page]) -> None:
    words = ["updated every 5 s"] * (WINDOWS - STREAMS) + ["live"] * STREAMS
    for page, word in zip(windows, words, strict=True):
        expect(page.locator(".live")).to_have_text(word)
    windows[0].evaluate("dispatchEvent(new Event('focus'))")
    expect(windows[0].locator(".live")).to_have_text("live")
    expect(windows[WINDOWS - STREAMS].locator(".live")).to_have_text("updated every 5 s")


def test_window_that_connects_again_takes_no_place_of_windows_that_were_used_later(window: Window) -> None:
    window.open()
    window.page.get_by_label("User name").wait_for()
    assert window.page.evaluate(CONNECT_AGAIN) == ["used first"]


def test_window_is_live_again_once_others_are_closed(windows: list[Page]) -> None:
    for page in windows[1:]:
        page.close()
    expect(windows[0].locator(".live")).to_have_text("live")


def test_each_of_six_browsers_shows_the_list(browser: Browser, gateway: GatewayInstance, client: V3Client) -> None:
    classifier_id = client.created("Godwits")
    with ExitStack() as opened:
        for _ in range(WINDOWS):
            window = opened.enter_context(open_window(browser, gateway.address))
            window.log_in()
            expect(window.page.get_by_role("link", name="Godwits")).to_be_visible()
            expect(window.page.locator(".live")).to_have_text("live")
    client.delete(classifier_id)
