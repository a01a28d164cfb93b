"""One gateway and one trained classifier for all tests of the console; a browser for each module, a window for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.console.browser import needed_browser
from tests.console.line import Line
from tests.console.trained import TrainedClassifier, noise_zip, shape_zips
from tests.console.window import Window, open_window
from tests.gateway_harness.stage import GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, connect


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with needed_browser() as running:
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
    """A window, logged out. The test fails if a script fails, or if the page sends a request to another host."""
    with open_window(browser, gateway.address) as opened:
        yield opened
        assert opened.faults == []


@pytest.fixture
def page(window: Window) -> Page:
    """The page of a window in which anna has logged in."""
    window.log_in()
    return window.page
