"""The commands of README, tutorial and exports, pasted into a shell as a reader would."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.documented_commands import bash_blocks
from tests.product.instance import Ocelli
from tests.product.shell import Shell

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the pages have curl commands, and curl is not installed"),
]


@pytest.fixture
def shell(ocelli: Ocelli, tmp_path: Path) -> Shell:
    return Shell(ocelli, tmp_path)


def test_the_readmes_commands_lead_from_a_zip_to_an_answer(shell: Shell) -> None:
    create, classify = bash_blocks("README.md", "From a zip to an answer")
    shell.take_id(shell.run(create))
    shell.wait_until_ready()
    (classifier,) = json.loads(shell.run(classify))["images"][0]["classifiers"]
    assert [item["class"] for item in classifier["classes"]] == ["one"]
    shell.run('curl -X DELETE -u "$AUTH" "$OCELLI/v3/classifiers/$ID?version=2018-03-19"')


def test_the_commands_of_tutorial_and_exports_work_from_create_to_delete(shell: Shell) -> None:
    create, classify, others, by_address = bash_blocks("docs/tutorial.md", "A classifier of your own, by REST")
    assert "url=$IMAGE" in by_address, "needs a public address, and tests reach none"
    create, _, show = create.partition("# Use the classifier_id")
    shell.take_id(shell.run(create))
    shell.run(f"# {show}")
    shell.wait_until_ready()
    shell.run(classify)
    retrain, marker, rest = others.partition("# Several classifiers")
    assert '"status":"retraining"' in shell.run(retrain).replace(" ", "")
    shell.wait_until_ready()
    for (download,) in (bash_blocks("docs/exports.md", "Core ML"), bash_blocks("docs/exports.md", "ONNX")):
        shell.run(download)
    (bill_of_materials,) = bash_blocks("docs/provenance.md", "What a model was made from")
    shell.run(bill_of_materials)
    assert json.loads((shell.folder / "birds.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    shell.run(marker + rest)
    assert all((shell.folder / name).stat().st_size > 0 for name in ("digits.mlmodel", "birds.mlmodel", "birds.onnx"))


def test_the_tutorials_manifest_becomes_ready(shell: Shell) -> None:
    (commands,) = bash_blocks("docs/tutorial.md", "A classifier of your own, by manifest")
    assert "Served" in shell.run(commands)
    (digest,) = bash_blocks("docs/provenance.md", "The same model")
    shown = shell.run(f"KUBECONFIG=.state/kubeconfig {digest.replace('clf birds', 'clf digits')}")
    assert re.search(r"\b[0-9a-f]{64}\b", shown)
    shell.run("kubectl --kubeconfig .state/kubeconfig delete -f crds/examples/digits.yaml")
