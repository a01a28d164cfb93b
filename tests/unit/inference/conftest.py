"""Fixtures of the inference server's tests."""

from __future__ import annotations

import pytest

from ocelli_inference.metrics import Metrics


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()
