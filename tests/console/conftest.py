"""One gateway, one browser and one trained classifier for all tests of the console; each test has a window of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.browser import MISSING, find_browser, running_browser
from tests.console.line import Line
from tests.console.trained import TrainedClassifier, noise_zip, shape_zips
from tests.console.window import DEADLINE_MILLISECONDS, Window, open_window
from tests.gateway_harness.stage import GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, connect


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    if program is None:
        pytest.skip(MISSING)
    # For machines that do much else at the same time.
    expect.set_options(timeout=DEADLINE_MILLISECONDS)
    with running_browser(program) as running:
        yield running


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


@pytest.fixture
def line(gateway: GatewayInstance) -> Iterator[Line]:
    """A connection to the gateway that can be cut."""
    opened = Line(port=gateway.port)
    yield opened
    opened.close()


@pytest.fixture
def window(browser: Browser, gateway: GatewayInstance) -> Iterator[Window]:
    """A window with nobody logged in. At the end nothing may have failed in the page, nor been asked of another host."""
    with open_window(browser, gateway.address) as opened:
        yield opened
        assert opened.faults == []


@pytest.fixture
def page(window: Window) -> Page:
    """The page of a window in which anna has logged in."""
    window.log_in()
    return window.page
