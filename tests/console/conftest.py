"""One browser, one gateway and one trained classifier for the pages' tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.console.trained import TrainedClassifier, noise_zip, shape_zips
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, connect


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage(folder=tmp_path_factory.mktemp("console") / "stage")
    yield built
    built.close()


@pytest.fixture(scope="session")
def gateway(stage: Stage) -> GatewayInstance:
    return stage.start_gateway()


@pytest.fixture(scope="session")
def client(gateway: GatewayInstance, stage: Stage) -> Iterator[V3Client]:
    connected = connect(gateway, stage)
    yield connected
    connected.http.close()


@pytest.fixture(scope="session")
def shapes(client: V3Client) -> TrainedClassifier:
    return TrainedClassifier.create(client, "Shapes", shape_zips(), noise_zip())


@pytest.fixture(scope="session")
def log_in() -> Callable[[Page], None]:
    """Fill in the form of the log-in."""

    def fill(page: Page) -> None:
        page.get_by_label("User name").fill(USER)
        page.get_by_role("textbox", name="Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Log out").wait_for()

    return fill


@pytest.fixture
def page(browser: Browser, gateway: GatewayInstance, log_in: Callable[[Page], None]) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{gateway.address}/console/")
    log_in(page)
    yield page
    context.close()
