"""One gateway and one browser for all tests of the console; each test has a window and classifiers of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.console.browser import MISSING, find_browser, running_browser
from tests.console.window import Window, open_window
from tests.gateway_harness.stage import GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, connect


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    if program is None:
        pytest.skip(MISSING)
    with running_browser(program) as running:
        yield running


@pytest.fixture(scope="session")
def console_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage(folder=tmp_path_factory.mktemp("console"))
    yield built
    built.close()


@pytest.fixture(scope="session")
def console_gateway(console_stage: Stage) -> GatewayInstance:
    return console_stage.start_gateway()


@pytest.fixture(scope="session")
def console_client(console_gateway: GatewayInstance, console_stage: Stage) -> Iterator[V3Client]:
    connected = connect(console_gateway, console_stage)
    yield connected
    connected.http.close()


@pytest.fixture
def window(browser: Browser, console_gateway: GatewayInstance) -> Iterator[Window]:
    """A window with nobody logged in. At the end nothing may have failed in the page, nor been asked of another host."""
    with open_window(browser, console_gateway.address) as opened:
        yield opened
        assert opened.faults == []
