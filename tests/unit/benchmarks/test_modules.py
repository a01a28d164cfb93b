"""Benchmarks are not collected as tests: a name that moved would break them unnoticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests import benchmarks

FOLDER = Path(benchmarks.__file__ or "").parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"{benchmarks.__name__}.{name}")
