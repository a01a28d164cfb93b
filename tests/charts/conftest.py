"""Helm is built before the first test: a first build takes a minute or two, which is longer than a test should."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.charts.releases import HELM
from tests.go_programs import GoMissingError


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if any("helm" in getattr(item, "fixturenames", ()) for item in session.items):
        # Where there is no Go the tests say so themselves.
        with contextlib.suppress(GoMissingError):
            HELM.find_or_build(os.environ)


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm; the tests that need it are skipped where it can't be built."""
    try:
        return HELM.find_or_build(os.environ)
    except GoMissingError as error:
        pytest.skip(str(error))
