"""Helm, built before the first test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.charts.releases import HELM
from tests.go_programs import build_before_tests, find_or_skip


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session, {"helm": HELM})


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_or_skip(HELM)
