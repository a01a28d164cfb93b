"""`ocelli manifest` and `ocelli doctor` with a real cluster: the operator trains what one prints; kubectl answers the other."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.product.command_line import run_ocelli
from tests.product.instance import Ocelli

pytestmark = pytest.mark.cluster


def test_the_operator_trains_the_manifest_of_a_folder(ocelli: Ocelli, tmp_path: Path) -> None:
    for name in ("zero", "one"):
        with zipfile.ZipFile(ocelli.few_samples / f"{name}.zip") as archive:
            archive.extractall(tmp_path / "digits" / name)
    out = ocelli.samples / "from-a-folder"
    options = ("--name", "from-a-folder", "--url-prefix", "file:///from-a-folder", "--out", str(out))
    done = run_ocelli(ocelli, "manifest", str(tmp_path / "digits"), *options, home=tmp_path)
    assert done.returncode == 0, done.stderr
    ocelli.kubectl("apply", "-f", "-", input_text=done.stdout)
    ocelli.kubectl("wait", "--for=condition=Ready", "classifier/from-a-folder", "--timeout=100s")
    ocelli.kubectl("delete", "classifier", "from-a-folder", "--wait=false")


def test_doctor_reads_what_kubectl_prints(ocelli: Ocelli, tmp_path: Path) -> None:
    (tmp_path / "kubectl").symlink_to(ocelli.kubectl_command[0])
    context = ocelli.kubectl("config", "current-context").strip()
    done = run_ocelli(ocelli, "doctor", "--kube-context", context, "-o", "json", home=tmp_path, path=str(tmp_path))
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    checks = ("address", "log-in", "version", "API", "cluster", "CRD", "operator", "gateway", "GPUs")
    assert {check: found[check]["level"] for check in checks} == dict.fromkeys(checks, "ok"), found
