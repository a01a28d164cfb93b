"""Programs written for IBM's service, with its official SDKs, against what `make run` starts: only host and credentials change.

Each way to log in lives the whole life of a classifier; each step of it is a test. The SDKs have environments of their own
(`make .venv/.sdk`), as the programs have that use them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.product.conftest import FETCHED_ADDRESS
from tests.product.instance import Ocelli

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
SDK_FOLDER = CHECKOUT / "tests" / "sdk"
PYTHON = CHECKOUT / ".venv" / "sdk" / "bin" / "python"
TIMEOUT_SECONDS = 300
LIVES_AT_ONCE = 2
SERVICE_NAMES = ("VISUAL_RECOGNITION", "WATSON_VISION_COMBINED")
"""Under which the Python and the Node SDK look for their settings in the environment."""
WAYS = ("basic", "basic apikey", "iam", "bearer", "environment", "api_key in the query")
STEPS = (
    "create",
    "poll",
    "list",
    "list_verbose",
    "classify_file",
    "classify_threshold",
    "classify_zip",
    "classify_url",
    "classify_owners",
    "classify_nothing",
    "retrain",
    "core_ml",
    "user_data",
    "delete",
)
Troubles = dict[str, str | None]
"""By step: what went wrong in it, or None."""


def python_command() -> list[str]:
    assert PYTHON.exists(), "the Python SDK is not installed; run `make .venv/.sdk`"
    return [str(PYTHON), str(SDK_FOLDER / "watson_steps.py")]


def node_command() -> list[str]:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    assert (SDK_FOLDER / "node" / "node_modules").is_dir(), "the Node SDK is not installed; run `make .venv/.sdk`"
    return ["node", str(SDK_FOLDER / "node" / "watson_steps.mjs")]


COMMANDS: dict[str, Callable[[], list[str]]] = {"python": python_command, "node": node_command}


@pytest.fixture(scope="module")
def image_url(ocelli: Ocelli) -> Iterator[str]:
    """Address of an image of a one on a web server that the gateway may fetch from."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(ocelli.few_samples))
    server = ThreadingHTTPServer((FETCHED_ADDRESS, 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{FETCHED_ADDRESS}:{server.server_port}/test-one.png"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def lives(ocelli: Ocelli, image_url: str) -> Iterator[Callable[[str, str], Troubles]]:
    """What became of each step of a life, which is lived when the first of its steps is asked for."""
    futures: dict[tuple[str, str], Future[Troubles]] = {}
    with ThreadPoolExecutor(LIVES_AT_ONCE) as threads:

        def life_of(sdk: str, way: str) -> Troubles:
            command = COMMANDS[sdk]()
            for other in WAYS:
                # All at once: most of a life is waiting for trainings.
                if (sdk, other) not in futures:
                    futures[(sdk, other)] = threads.submit(live, command, ocelli, other, image_url)
            return futures[(sdk, way)].result()

        yield life_of


def live(command: list[str], ocelli: Ocelli, way: str, image_url: str) -> Troubles:
    options = {
        "way": way,
        "address": ocelli.address,
        # Half of them as IBM's tutorial has it.
        "prefix": "/visual-recognition/api" if way in ("basic", "iam") else "",
        "user": ocelli.user,
        "password": ocelli.password,
        "apiKey": ocelli.password,
        "samples": str(ocelli.few_samples),
        "imageURL": image_url,
    }
    variables = {"AUTH_TYPE": "iam", "APIKEY": ocelli.password, "AUTH_URL": ocelli.address, "URL": ocelli.address}
    environment = {**os.environ, **{f"{name}_{key}": value for name in SERVICE_NAMES for key, value in variables.items()}}
    given = environment if way == "environment" else dict(os.environ)
    done = subprocess.run(
        [*command, json.dumps(options)], env=given, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    troubles: Troubles = {line["step"]: line["trouble"] for line in lines}
    return troubles or {"create": f"it ended with {done.returncode}: {done.stdout}{done.stderr}"}


@pytest.mark.contract_row("D/SDK parsing. Missing code, description or error_id in")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sdk", COMMANDS)
def test_the_sdk_does_the_step(lives: Callable[[str, str], Troubles], sdk: str, way: str, step: str) -> None:
    troubles = lives(sdk, way)
    assert step in troubles, f"it was not reached: {troubles}"
    assert troubles[step] is None, troubles[step]
