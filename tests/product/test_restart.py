"""`make run` stops, is killed, and starts again: nothing is left running, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.product.instance import CHECKOUT, Ocelli, connect, start_ocelli, stop_ocelli, wait_for

pytestmark = pytest.mark.cluster


def create_and_wait(ocelli: Ocelli) -> str:
    with ocelli.client() as client:
        files = {f"{name}_positive_examples": (ocelli.samples / f"{name}.zip").read_bytes() for name in ("zero", "one")}
        identity: str = client.post("/v3/classifiers", data={"name": "kept"}, files=files).json()["classifier_id"]
        wait_for("ready", lambda: client.get(f"/v3/classifiers/{identity}").json()["status"] == "ready", 120)
    return identity


def classify(ocelli: Ocelli, identity: str) -> httpx.Response:
    with ocelli.client() as client:
        image = (ocelli.samples / "test-one.png").read_bytes()
        return client.post("/v3/classify", data={"classifier_ids": identity}, files={"images_file": image})


def processes_that_mention(text: str) -> list[int]:
    """Processes whose command line or environment names this text."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if text.encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_state_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "run.log"
    first = connect(state, start_ocelli(state, log))
    identity = create_and_wait(first)
    scores = classify(first, identity).json()
    assert stop_ocelli(first.process) == 0
    second = connect(state, start_ocelli(state, log))
    wait_for("it answers again", lambda: classify(second, identity).status_code == 200)
    assert classify(second, identity).json() == scores
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait()
    wait_for("everything is gone", lambda: not processes_that_mention(str(state)), 2)
    third = connect(state, start_ocelli(state, log))
    wait_for("it answers after the kill", lambda: classify(third, identity).status_code == 200)
    assert classify(third, identity).json() == scores
    assert stop_ocelli(third.process) == 0


def test_the_demo_plays_the_whole_tutorial_on_a_cluster_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ocelli_quickstart", "demo"],
        cwd=CHECKOUT,
        env={**os.environ, "STATE_DIR": str(tmp_path / "none"), "KUBECONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_taken_port_is_refused_with_a_remedy(tmp_path: Path, ocelli: Ocelli) -> None:
    port = ocelli.address.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "ocelli_quickstart", "run"],
        cwd=CHECKOUT,
        env={**os.environ, "STATE_DIR": str(tmp_path / "state"), "PORT": port},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "set PORT to another one" in done.stderr) == (1, True)


def test_start_with_other_settings_is_ready_only_when_they_hold(tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "run.log"
    stop_ocelli(start_ocelli(state, log))
    changed = connect(state, start_ocelli(state, log, OCELLI_QUOTA_CLASSIFIERS="1"))
    try:
        pods = json.loads(changed.kubectl("-n", "ocelli-system", "get", "pods", "-o", "json"))["items"]
        variables = [
            {"name": "OCELLI_QUOTA_CLASSIFIERS", "value": "1"} in pod["spec"]["containers"][0]["env"]
            for pod in pods
            if pod["metadata"]["name"].startswith("ocelli-gateway") and "deletionTimestamp" not in pod["metadata"]
        ]
        assert variables == [True]
    finally:
        stop_ocelli(changed.process)
