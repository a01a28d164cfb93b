"""The commands of docs/cli.md, run as programs: `ocelli` is on the PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.documented_commands import CHECKOUT, bash_blocks
from tests.gateway_harness.stage import PASSWORD, GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.photographs import image_bytes, write_images
from tests.unit.clients.trainings import after_creation


def test_the_first_classifier(stage: Stage, client: V3Client, gateway: GatewayInstance, tmp_path: Path) -> None:
    for number, name in enumerate(("beagle", "husky")):
        write_images(tmp_path / "photos" / name, range(20 * number, 20 * number + 10))
        write_images(tmp_path / "held-out" / name, range(20 * number + 10, 20 * number + 13))
    (tmp_path / "terrier.jpg").write_bytes(image_bytes(50))
    (tmp_path / "password.txt").write_text(f"{PASSWORD}\n")
    program = tmp_path / "ocelli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ocelli_cli "$@"\n')
    program.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GATEWAY": gateway.address,
        "PYTHONPATH": str(CHECKOUT / "clients"),
    }
    (commands,) = bash_blocks("docs/cli.md", "The first classifier")
    ended = after_creation(
        client, "dogs", lambda classifier_id: stage.finish_training(classifier_id, {"beagle": 0.9, "husky": 0.2})
    )
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    ended.result()
    assert (run.returncode, run.stderr) == (0, "")
    assert "Classifier dogs (dogs_" in run.stdout
    assert "Accuracy 50.0 % (" in run.stdout
