"""The recipes of CONTRIBUTING.md name the files of the examples that they give."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("crds", "cluster", "operator", "serving", "local", "charts", "docs/reference", "tools")
SUFFIXES = {".py", ".yaml", ".json", ".tpl", ".md", ".html"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    example: re.Pattern[str]
    files: frozenset[str]


def read_recipes() -> dict[str, Recipe]:
    recipes = {}
    for section in (CHECKOUT / "CONTRIBUTING.md").read_text().split("\n### ")[1:]:
        title, _, text = section.partition("\n")
        example = re.search(r"^Example: `(.*)`$", text, re.MULTILINE)
        if example is not None:
            files = re.findall(r"^- `([^`]+)`:", text, re.MULTILINE)
            recipes[title] = Recipe(example=re.compile(example[1]), files=frozenset(files))
    return recipes


RECIPES = read_recipes()


def test_there_is_a_recipe_for_each_common_change() -> None:
    assert {
        "A spec field",
        "A reason of a condition",
        "A scheme of sources",
        "An endpoint",
        "A setting",
        "A backbone",
    } <= RECIPES.keys()


@pytest.mark.parametrize("title", sorted(RECIPES))
def test_the_files_of_a_recipe_are_those_of_its_example(title: str) -> None:
    recipe = RECIPES[title]
    files = [path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*") if path.suffix in SUFFIXES]
    found = {str(path.relative_to(CHECKOUT)) for path in files if recipe.example.search(path.read_text())}
    assert found == recipe.files
