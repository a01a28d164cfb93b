"""Refusals while a classifier is created: a used-up quota is reported at once, and a limited rate is waited for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.console.photographs import write_folders
from tests.console.test_new_page import CREATED, choose_folder, count_puts, create
from tests.console.window import open_window
from tests.gateway_harness.stage import OTHER_USER, Stage
from tests.gateway_harness.v3_client import V3Client, connect

PASSWORD = "other"


@pytest.fixture(scope="module")
def full(stage: Stage) -> Iterator[V3Client]:
    """A client of a tenant that may have one classifier, and of a gateway of its own."""
    client = connect(stage.start_gateway(quota_classifiers=1), stage, OTHER_USER, PASSWORD)
    yield client
    client.http.close()


@pytest.fixture
def new(browser: Browser, full: V3Client, tmp_path: Path) -> Iterator[Page]:
    """The page of a new classifier, with two classes to send."""
    with open_window(browser, str(full.http.base_url).rstrip("/")) as window:
        window.log_in("#/new?name=Second", user=OTHER_USER, password=PASSWORD)
        choose_folder(window.page, write_folders(tmp_path / "data"))
        expect(window.page.get_by_text("Ready: 24 images")).to_be_visible(timeout=CREATED)
        yield window.page
        assert window.faults == []


@pytest.fixture
def first(full: V3Client) -> Iterator[str]:
    """The only classifier that the tenant may have."""
    classifier_id = full.created("First")
    yield classifier_id
    full.delete(classifier_id)


def test_quota_of_classifiers_is_said_at_once_and_not_tried_again(new: Page, first: str) -> None:
    asked: list[str] = []
    new.on("request", lambda request: asked.append(request.url) if request.url.endswith("/ocelli/v1/uploads") else None)
    create(new)
    alert = new.get_by_role("alert")
    expect(alert).to_contain_text("The quota of classifiers is used up: 1 of 1; delete one that you no longer need.")
    expect(alert).to_contain_text("Everything that you chose stays on this page")
    expect(new.get_by_text("Trying again")).to_be_hidden()
    expect(new.get_by_label("Name")).to_have_value("Second")
    expect(new.get_by_text("Ready: 24 images")).to_be_visible()
    # The button is there again: nothing waits any longer.
    expect(new.get_by_role("button", name="Create and train")).to_be_enabled()
    assert len(asked) == 1


def test_quota_that_is_used_up_meanwhile_costs_nothing_that_was_sent(new: Page, full: V3Client) -> None:
    def use_up(route: Route) -> None:
        if route.request.method == "POST" and not taken:
            taken.append(full.created("Meanwhile"))
        route.continue_()

    taken: list[str] = []
    new.route("**/ocelli/v1/classifiers", use_up)
    create(new)
    alert = new.get_by_role("alert")
    expect(alert).to_contain_text("The quota of classifiers is used up: 1 of 1", timeout=CREATED)
    with new.expect_popup() as opened:
        alert.get_by_role("link", name="Open the classifiers in another tab").click()
    expect(opened.value).to_have_url(re.compile("#/classifiers"))
    full.delete(taken[0])
    puts = count_puts(new)
    new.get_by_role("button", name="Try again").click()
    expect(new.get_by_role("heading", name="Second")).to_be_visible(timeout=CREATED)
    assert puts() == []
    full.delete(new.url.split("/")[-1])


def test_rate_that_refills_is_waited_out(new: Page, full: V3Client) -> None:
    def refuse_once(route: Route) -> None:
        if refused:
            return route.continue_()
        refused.append(route.request.url)
        body = {"code": 429, "error": "The quota of uploads is used up: 1 MB per hour.", "error_id": "limit_exceeded"}
        return route.fulfill(status=429, json=body, headers={"Retry-After": "2"})

    refused: list[str] = []
    new.route("**/ocelli/v1/uploads/*/*", refuse_once)
    create(new)
    expect(new.get_by_text("The quota of uploads is used up: 1 MB per hour. What is already stored is kept.")).to_be_visible()
    expect(new.get_by_role("heading", name="Second")).to_be_visible(timeout=CREATED)
    full.delete(new.url.split("/")[-1])


@pytest.mark.parametrize("status", [400, 413, 500])
def test_other_refusals_are_not_tried_again_by_themselves(new: Page, status: int) -> None:
    def refuse(route: Route) -> None:
        seen.append(route.request.url)
        route.fulfill(status=status, json={"code": status, "error": "No.", "error_id": "internal_error"})

    seen: list[str] = []
    new.route("**/ocelli/v1/uploads/*/*", refuse)
    create(new)
    alert = new.get_by_role("alert")
    expect(alert).to_contain_text("Everything that you chose stays on this page", timeout=CREATED)
    expect(alert.get_by_role("button", name="Try again")).to_be_enabled()
    assert len(seen) == 1
