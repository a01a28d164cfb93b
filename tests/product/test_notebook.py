"""The notebook of the documentation, run from its first cell to its last against a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.product.instance import CHECKOUT, Ocelli

NOTEBOOK = CHECKOUT / "docs" / "notebooks" / "first-classifier.ipynb"
# What a notebook server does with figures: keep them.
SAVE_FIGURES = """
for number in plt.get_fignums():
    plt.figure(number).savefig(f"figure-{number}.png")
"""


def cells(kind: str) -> list[dict[str, object]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_outputs_are_not_committed() -> None:
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells("code")] == [([], None)] * len(cells("code"))


@pytest.mark.cluster
def test_every_cell_runs_and_both_plots_are_drawn(ocelli: Ocelli, tmp_path: Path) -> None:
    program = "\n".join("".join(cell["source"]) for cell in cells("code"))  # type: ignore[arg-type]
    (tmp_path / "notebook.py").write_text(program + SAVE_FIGURES)
    variables = {
        "OCELLI_URL": ocelli.address,
        "OCELLI_USER": ocelli.user,
        "OCELLI_PASSWORD": ocelli.password,
        "OCELLI_SAMPLES": str(ocelli.samples),
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        # Without a screen `show` does nothing, and warns of it.
        "PYTHONWARNINGS": "ignore:FigureCanvasAgg:UserWarning",
    }
    done = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy " in done.stdout
    assert "test-zero.png" in done.stdout
    for figure in ("figure-1.png", "figure-2.png"):
        with Image.open(tmp_path / figure) as image:
            assert len(image.convert("RGB").getcolors(maxcolors=1_000_000) or ()) > 10
