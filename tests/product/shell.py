"""A shell for the commands of the pages, as a reader's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.product.instance import CHECKOUT, Ocelli, wait_for

CLASSIFIER_ID = re.compile(r'"classifier_id": ?"(digits_\d+)"')
SHELL = 'set -eu; curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
"""A refused request ends the shell with an error."""


class Shell:
    """Runs commands with the variables that the pages ask for, in an empty folder."""

    def __init__(self, ocelli: Ocelli, folder: Path) -> None:
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        (tools / "kubectl").symlink_to(ocelli.kubectl_command[0])
        (folder / "crds").symlink_to(CHECKOUT / "crds")
        (folder / ".state").symlink_to(ocelli.state_dir)
        self.variables = {
            **os.environ,
            "KUBECONFIG": str(ocelli.state_dir / "kubeconfig"),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "OCELLI": ocelli.address,
            "AUTH": f"{ocelli.user}:{ocelli.password}",
            "SAMPLES": str(ocelli.samples),
        }

    def run(self, commands: str) -> str:
        # What a reader fills in is a variable of this test.
        filled_in = re.sub(r"^export (?!KUBECONFIG).*$", "", commands, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-c", SHELL + filled_in],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def take_id(self, answer: str) -> None:
        found = CLASSIFIER_ID.search(answer)
        assert found, answer
        self.variables["ID"] = found.group(1)

    def wait_until_ready(self) -> None:
        show = 'curl -u "$AUTH" "$OCELLI/v3/classifiers/$ID?version=2018-03-19"'
        wait_for("the classifier is ready", lambda: json.loads(self.run(show))["status"] == "ready", timeout_seconds=120)
