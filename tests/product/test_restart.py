"""`make run` is stopped, killed and started again: no process is left, and no state is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.few_samples import write_few_samples
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import CHECKOUT, Ocelli, connect, start_ocelli, stop_ocelli, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


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


@dataclass(frozen=True, kw_only=True)
class Life:
    """Observations of an instance that is stopped, started with another setting, killed, and started again."""

    scores: object
    """What its classifier answers before the first stop."""
    exit_codes: list[int]
    setting_held: list[bool]
    """For each gateway Pod: whether it had the other setting as soon as the start was complete."""
    scores_after_stop: object
    left_by_the_kill: list[int]
    """Processes that still ran two seconds later."""
    scores_after_kill: object


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    folder = tmp_path_factory.mktemp("restart")
    state, log = folder / "state", folder / "run.log"
    first = connect(state, start_ocelli(state, log))
    write_few_samples(first.samples, first.few_samples)
    with first.client() as client:
        identity = create(client, first)
        wait_for_status(client, identity)
    scores = classify(first, identity).json()
    exit_codes = [stop_ocelli(first.process)]
    second = connect(state, start_ocelli(state, log, OCELLI_QUOTA_CLASSIFIERS="1"))
    setting_held = gateways_have(second, {"name": "OCELLI_QUOTA_CLASSIFIERS", "value": "1"})
    wait_for("it answers again", lambda: classify(second, identity).status_code == 200)
    scores_after_stop = classify(second, identity).json()
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait()
    left = wait_until_gone(str(state), 2)
    third = connect(state, start_ocelli(state, log, OCELLI_QUOTA_CLASSIFIERS="1"))
    wait_for("it answers after the kill", lambda: classify(third, identity).status_code == 200)
    scores_after_kill = classify(third, identity).json()
    exit_codes.append(stop_ocelli(third.process))
    return Life(
        scores=scores,
        exit_codes=exit_codes,
        setting_held=setting_held,
        scores_after_stop=scores_after_stop,
        left_by_the_kill=left,
        scores_after_kill=scores_after_kill,
    )


def gateways_have(ocelli: Ocelli, variable: dict[str, str]) -> list[bool]:
    pods = json.loads(ocelli.kubectl("-n", "ocelli-system", "get", "pods", "-o", "json"))["items"]
    return [
        variable in pod["spec"]["containers"][0]["env"]
        for pod in pods
        if pod["metadata"]["name"].startswith("ocelli-gateway") and "deletionTimestamp" not in pod["metadata"]
    ]


def wait_until_gone(text: str, timeout_seconds: float) -> list[int]:
    """The processes that mention the text and still run after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while (found := processes_that_mention(text)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_state_survives_a_restart(life: Life) -> None:
    assert life.scores_after_stop == life.scores


def test_state_survives_a_kill(life: Life) -> None:
    assert life.scores_after_kill == life.scores


def test_a_kill_leaves_no_process_behind(life: Life) -> None:
    assert life.left_by_the_kill == []


def test_an_interrupted_instance_exits_with_zero(life: Life) -> None:
    assert life.exit_codes == [0, 0]


def test_a_start_with_other_settings_is_ready_only_once_they_apply(life: Life) -> None:
    assert life.setting_held == [True]


def test_the_demo_runs_the_whole_tutorial_on_its_own_cluster(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ocelli_quickstart", "demo"],
        cwd=CHECKOUT,
        # The demo uses one built-in classifier; the others would only compete for the processor.
        env={**os.environ, "STATE_DIR": str(tmp_path / "none"), "KUBECONFIG": "/dev/null", "BUILT_INS": "default"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_taken_port_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "ocelli_quickstart", "run"],
            cwd=CHECKOUT,
            env={**os.environ, "STATE_DIR": str(tmp_path / "state"), "PORT": str(taken.getsockname()[1])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, "set PORT to another port" in done.stderr) == (1, True)
