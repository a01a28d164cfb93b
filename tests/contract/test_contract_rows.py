"""Every row of the REST contract has a test, and tests name existing rows only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.contract.contract_rows import CONTRACT, read_contract_rows

TESTS = Path(__file__).resolve().parents[1]
ROWS = {row.identity for row in read_contract_rows(CONTRACT.read_text())}


def marked_rows() -> set[str]:
    """The rows that tests are marked with, and those of the tables that tests are made of."""
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        text = file.read_text()
        if "contract_row" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("contract_row"):
                found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ROWS" and isinstance(node.value, ast.Dict):
                found |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    return found


def test_every_row_has_a_test() -> None:
    assert sorted(ROWS - marked_rows()) == []


def test_tests_name_existing_rows_only() -> None:
    assert sorted(marked_rows() - ROWS) == []


def test_rows_are_found_in_tables_lists_and_sections() -> None:
    for identity in ("C2/retrain: unknown ID", "0.4/Megabytes are 1024 × 1024 bytes", "B7", "A3/ready", "A4/Refused"):
        assert identity in ROWS


def test_two_rows_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of one id"):
        read_contract_rows("# Part D: x\n\n1. Twice\n2. Twice\n")
