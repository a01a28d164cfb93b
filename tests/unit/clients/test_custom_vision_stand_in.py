"""The stand-in of Custom Vision, read by Microsoft's own client of that API: both find the same project."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.clients.custom_vision_stand_in import KEY, StandInImage, identifier, running_stand_in

CHECKOUT = Path(__file__).resolve().parents[3]
PYTHON = CHECKOUT / ".venv" / "sdk" / "bin" / "python"
STEPS = CHECKOUT / "tests" / "sdk" / "custom_vision_steps.py"


@pytest.mark.slow
def test_microsofts_client_reads_the_stand_in() -> None:
    with running_stand_in() as stand_in:
        stand_in.add("husky", range(300))
        stand_in.add("Negative", range(400, 410))
        stand_in.images.append(StandInImage(500, ("husky",), regions=True))
        stand_in.untagged = 3
        command = [str(PYTHON), str(STEPS), stand_in.address, KEY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "project": [identifier("project"), "Dogs", "Multiclass"],
            "domain": "Classification",
            "tags": [["husky", "Regular", 301], ["Negative", "Negative", 10]],
            "images": [[image.image_id, list(image.tags), int(image.regions)] for image in stand_in.images],
            "address": f"{stand_in.address}/blobs/0?sv=2017-04-17&sig=not-for-logs",
            "tagged": 311,
            "untagged": 3,
        }
