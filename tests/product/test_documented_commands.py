"""The commands of README, tutorial and exports, pasted into a shell as a reader would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.product.instance import CHECKOUT, Ocelli, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the pages have curl commands, and curl is not installed"),
]

BASH_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLASSIFIER_ID = re.compile(r'"classifier_id": ?"(digits_\d+)"')
SHELL = 'set -eu; curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
"""A refused request ends the shell with an error."""


def bash_blocks(section: str) -> list[str]:
    return BASH_BLOCK.findall(section)


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second level."""
    _, *parts = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


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


@pytest.fixture
def shell(ocelli: Ocelli, tmp_path: Path) -> Shell:
    return Shell(ocelli, tmp_path)


def test_the_readmes_commands_lead_from_a_zip_to_an_answer(shell: Shell) -> None:
    create, classify = bash_blocks(sections(CHECKOUT / "README.md")["From a zip to an answer"])
    shell.take_id(shell.run(create))
    shell.wait_until_ready()
    (classifier,) = json.loads(shell.run(classify))["images"][0]["classifiers"]
    assert [item["class"] for item in classifier["classes"]] == ["one"]
    shell.run('curl -X DELETE -u "$AUTH" "$OCELLI/v3/classifiers/$ID?version=2018-03-19"')


def test_the_commands_of_tutorial_and_exports_work_from_create_to_delete(shell: Shell) -> None:
    create, classify, others, by_address = bash_blocks(
        sections(CHECKOUT / "docs" / "tutorial.md")["A classifier of your own, by REST"]
    )
    assert "url=$IMAGE" in by_address, "needs a public address, and tests reach none"
    create, _, show = create.partition("# Use the classifier_id")
    shell.take_id(shell.run(create))
    shell.run(f"# {show}")
    shell.wait_until_ready()
    shell.run(classify)
    retrain, marker, rest = others.partition("# Several classifiers")
    assert '"status":"retraining"' in shell.run(retrain).replace(" ", "")
    shell.wait_until_ready()
    exports = sections(CHECKOUT / "docs" / "exports.md")
    for title in ("Core ML", "ONNX"):
        (download,) = bash_blocks(exports[title])
        shell.run(download)
    shell.run(marker + rest)
    assert all((shell.folder / name).stat().st_size > 0 for name in ("digits.mlmodel", "birds.mlmodel", "birds.onnx"))


def test_the_tutorials_manifest_becomes_ready(shell: Shell) -> None:
    (commands,) = bash_blocks(sections(CHECKOUT / "docs" / "tutorial.md")["A classifier of your own, by manifest"])
    assert "Served" in shell.run(commands)
    shell.run("kubectl --kubeconfig .state/kubeconfig delete -f crds/examples/digits.yaml")
