"""The console and the Grafana dashboard name the same thing by the same word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ocelli_api.lifecycle import Lifecycle
from ocelli_gateway.console_files import FOLDER

DASHBOARD = Path(__file__).parents[2] / "charts" / "ocelli" / "dashboards" / "ocelli.json"
TITLES = [panel["title"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
WORDS = [
    ("Classifiers by state", "State", "pages/classifiers.js"),
    ("Failed revisions an hour by reason", "Failed", "status.js"),
    ("Revisions that await approval or are refused, by reason", "Awaits approval", "status.js"),
    ("Training: done", "Done", "pages/training.js"),
    ("Training: time left", "Time left", "pages/training.js"),
]
"""A panel, and the word of the console for what it shows."""


def test_states_are_those_of_the_metric() -> None:
    words = re.search(r"const WORDS = \{(.*)\};", (FOLDER / "status.js").read_text())
    assert words is not None
    named = dict(re.findall(r'(\w+): "(\w+)"', words[1]))
    assert named == {str(state): str(state).capitalize() for state in Lifecycle}


@pytest.mark.parametrize(("title", "word", "module"), WORDS)
def test_a_panel_has_the_word_of_the_console(title: str, word: str, module: str) -> None:
    assert title in TITLES
    assert f'"{word}"' in (FOLDER / module).read_text()
    stems = {text.lower().rstrip("s") for text in re.findall(r"\w+", title)}
    assert {text.lower().rstrip("s") for text in word.split()} <= stems
