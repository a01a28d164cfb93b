"""Console and Grafana dashboard name the same things alike."""

from __future__ import annotations

import json
import re

from ocelli_api.lifecycle import Lifecycle
from ocelli_gateway.console_files import FOLDER
from tests.charts.releases import CHART

DASHBOARD = json.loads((CHART / "dashboards" / "ocelli.json").read_text())
TITLES = [panel["title"] for panel in DASHBOARD["panels"]]


def test_the_console_has_the_states_that_the_dashboard_counts() -> None:
    (words,) = re.findall(r"const WORDS = \{(.*)\};", (FOLDER / "status.js").read_text())
    assert dict(re.findall(r'(\w+): "(\w+)"', words)) == {state.value: state.value.capitalize() for state in Lifecycle}


def test_panels_of_progress_have_the_names_of_the_page() -> None:
    names = [title.removeprefix("Training: ").capitalize() for title in TITLES if title.startswith("Training: ")]
    page = (FOLDER / "pages" / "training.js").read_text()
    assert names
    assert [name for name in names if f'pair("{name}", ' not in page] == []
