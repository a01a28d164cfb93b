"""What the tests of the operator's asynchronous parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())
