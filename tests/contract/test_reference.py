"""The generated reference pages match the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def load_generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


GENERATOR = load_generator()


@pytest.mark.parametrize("page", sorted(GENERATOR.PAGES))
def test_the_page_is_what_make_reference_writes(page: str) -> None:
    assert (FOLDER / page).read_text() == GENERATOR.PAGES[page](), "run `make reference`"


def test_every_failure_has_a_sentence_and_a_remedy() -> None:
    failures = GENERATOR.find_failures()
    assert set(failures) == set(GENERATOR.member_docstrings(GENERATOR.REASONS["Stalled"]))
    assert [reason for reason, texts in failures.items() if not all(texts)] == []


@pytest.mark.parametrize("condition", sorted(GENERATOR.REASONS))
def test_every_reason_is_documented(condition: str) -> None:
    texts = GENERATOR.member_docstrings(GENERATOR.REASONS[condition])
    assert [reason for reason, text in texts.items() if not text] == []
