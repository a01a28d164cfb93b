"""The product as users run it: one `make run` per test worker."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from tests.console.browser import needed_browser
from tests.few_samples import write_few_samples
from tests.product.instance import Ocelli, running_ocelli

FETCHED_ADDRESS = "127.77.0.1"
"""Address of the tests' web servers: a private one, which the instance allows by its settings."""


@pytest.fixture(scope="package")
def ocelli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocelli]:
    """The instance of this test worker. It is stopped after the last test of this folder: its many servers are never idle."""
    folder = tmp_path_factory.mktemp("ocelli")
    with running_ocelli(folder, OCELLI_GATEWAY_URL_ALLOWED_NETWORKS=f"{FETCHED_ADDRESS}/32") as running:
        write_few_samples(running.samples, running.few_samples)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with needed_browser() as running:
        yield running


@pytest.fixture
def client(ocelli: Ocelli) -> Iterator[httpx.Client]:
    with ocelli.client() as client:
        yield client
