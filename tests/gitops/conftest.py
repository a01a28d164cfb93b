"""The health program, built before the first test."""

from __future__ import annotations

import pytest

from tests.gitops.health_program import HEALTH_PROGRAM
from tests.go_programs import build_before_tests, find_or_skip


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session, {"health_program": HEALTH_PROGRAM})


@pytest.fixture(scope="session")
def health_program() -> None:
    find_or_skip(HEALTH_PROGRAM)
