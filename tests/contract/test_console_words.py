"""Console and Grafana dashboard name the same things alike."""

from __future__ import annotations

import json
import re

import pytest

from ocelli_api.lifecycle import Lifecycle
from ocelli_gateway.console_files import FOLDER
from tests.charts.releases import CHART

DASHBOARD = json.loads((CHART / "dashboards" / "ocelli.json").read_text())
TITLES = [panel["title"] for panel in DASHBOARD["panels"]]


def test_the_console_has_the_states_that_the_dashboard_counts() -> None:
    (words,) = re.findall(r"const WORDS = \{(.*)\};", (FOLDER / "status.js").read_text())
    assert dict(re.findall(r'(\w+): "(\w+)"', words)) == {state.value: state.value.capitalize() for state in Lifecycle}


@pytest.mark.parametrize("title", [title for title in TITLES if title.startswith("Training: ")])
def test_a_panel_of_progress_has_the_name_of_the_page(title: str) -> None:
    name = title.removeprefix("Training: ").capitalize()
    assert f'pair("{name}", ' in (FOLDER / "pages" / "training.js").read_text()
