"""The product as users run it: one `make run` for each test worker."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.product.instance import Ocelli, connect, start_ocelli, stop_ocelli


@pytest.fixture(scope="session")
def ocelli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocelli]:
    """The instance of this test worker."""
    folder = tmp_path_factory.mktemp("ocelli")
    log = folder / "run.log"
    process = start_ocelli(folder / "state", log)
    try:
        yield connect(folder / "state", process)
    finally:
        stop_ocelli(process)


@pytest.fixture
def client(ocelli: Ocelli) -> Iterator[httpx.Client]:
    with ocelli.client() as client:
        yield client
