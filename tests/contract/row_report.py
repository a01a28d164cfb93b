"""The result of a test run for the REST contract: the number of rows of each part, and how many passed all their tests.

A test names the rows that it shows with `@pytest.mark.contract_row(ID, …)`; ids are those of `contract_rows`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.contract.contract_rows import CONTRACT, read_contract_rows

_PROPERTY = "contract_row"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract_row(id, ...): rows of docs/v3-api.md that the test shows")
    config.pluginmanager.register(RowReport(), "contract-row-report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # A property, because it is passed from the workers of a parallel run to the process that writes the report.
        item.user_properties += [(_PROPERTY, row) for row in rows_of(item)]


def rows_of(item: pytest.Item) -> list[str]:
    """The rows that a test is marked with."""
    return [row for marker in item.iter_markers("contract_row") for row in marker.args]


class RowReport:
    """Collects the results of each row."""

    def __init__(self) -> None:
        self._tried: set[str] = set()
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rows = {value for name, value in report.user_properties if name == _PROPERTY}
        if report.when == "call" and not report.skipped:
            self._tried |= rows
        if report.failed:
            self._failed |= rows

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._tried and not self._failed:
            return
        rows = read_contract_rows(CONTRACT.read_text())
        passed = self._tried - self._failed
        counts = Counter(row.part for row in rows)
        met = Counter(row.part for row in rows if row.identity in passed)
        terminalreporter.section("rows of the REST contract (docs/v3-api.md)")
        for part, count in sorted(counts.items()):
            terminalreporter.write_line(f"part {part}: {count} rows, {met[part]} pass")
        terminalreporter.write_line(f"in all: {counts.total()} rows, {met.total()} pass")
        missing = [row.identity for row in rows if row.identity not in passed]
        if missing and not self._failed and len(missing) < counts.total() / 2:
            terminalreporter.write_line(f"not shown by this run: {', '.join(missing)}")
