"""The program that judges objects is built before the first test: a first build may take longer than any test may."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.gitops.health_program import HEALTH_PROGRAM
from tests.go_programs import GoMissingError


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if any("health_program" in getattr(item, "fixturenames", ()) for item in session.items):
        # Where there is no Go the tests say so themselves.
        with contextlib.suppress(GoMissingError):
            HEALTH_PROGRAM.find_or_build(os.environ)


@pytest.fixture(scope="session")
def health_program() -> None:
    """The tests that need the program are skipped where it can't be built."""
    try:
        HEALTH_PROGRAM.find_or_build(os.environ)
    except GoMissingError as error:
        pytest.skip(str(error))
