"""What the tests of the operator's asynchronous parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_storage.object_store import ObjectStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.from_url((tmp_path / "store").as_uri())
