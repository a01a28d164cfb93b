"""Programs for IBM's service, with its official SDKs, against `make run`: only host and credentials change.

Each SDK runs every step with every way to log in; each step is a test. One life of an SDK waits for its own trainings; the
others need a trained classifier only to classify with, and share one. The SDKs have their own environments (`make .venv/.sdk`),
like the programs that use them.
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

from tests.product.classifiers import TWO_CLASSES, create, wait_for_status
from tests.product.conftest import FETCHED_ADDRESS
from tests.product.instance import Ocelli

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
SDK_FOLDER = CHECKOUT / "tests" / "sdk"
PYTHON = CHECKOUT / ".venv" / "sdk" / "bin" / "python"
TIMEOUT_SECONDS = 300
CONCURRENT_LIVES = 2
SERVICE_NAMES = ("VISUAL_RECOGNITION", "WATSON_VISION_COMBINED")
"""Prefixes of the environment variables that the Python and the Node SDK read."""
WAIT_FOR_TRAININGS = {"python": "basic", "node": "iam"}
"""By SDK: the way to log in whose life waits for its trainings."""
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
Errors = dict[str, str | None]
"""By step: its error, or None."""


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
    """The address of an image of a one, on a web server that the gateway may fetch from."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(ocelli.few_samples))
    server = ThreadingHTTPServer((FETCHED_ADDRESS, 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{FETCHED_ADDRESS}:{server.server_port}/test-one.png"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def served_id(ocelli: Ocelli) -> str:
    """The id of a trained classifier with the classes zero and one."""
    with ocelli.client() as client:
        identity = create(client, ocelli, "shared", {**TWO_CLASSES, "negative_examples": "other-digits.zip"})
        wait_for_status(client, identity)
    return identity


@pytest.fixture(scope="module")
def lives(ocelli: Ocelli, image_url: str, served_id: str) -> Iterator[Callable[[str, str], Errors]]:
    """The errors of a life, by SDK and way to log in. The lives of an SDK start when the first of them is requested."""
    futures: dict[tuple[str, str], Future[Errors]] = {}
    with ThreadPoolExecutor(CONCURRENT_LIVES) as threads:

        def life_of(sdk: str, way: str) -> Errors:
            command = COMMANDS[sdk]()
            for other in WAYS:
                if (sdk, other) not in futures:
                    served = None if WAIT_FOR_TRAININGS[sdk] == other else served_id
                    futures[(sdk, other)] = threads.submit(live, command, ocelli, other, image_url, served)
            return futures[(sdk, way)].result()

        yield life_of


def live(command: list[str], ocelli: Ocelli, way: str, image_url: str, served_id: str | None) -> Errors:
    options = {
        "way": way,
        "address": ocelli.address,
        # For half of them, as in IBM's tutorial.
        "prefix": "/visual-recognition/api" if way in ("basic", "iam") else "",
        "user": ocelli.user,
        "password": ocelli.password,
        "apiKey": ocelli.password,
        "samples": str(ocelli.few_samples),
        "imageURL": image_url,
        "servedID": served_id,
    }
    variables = {"AUTH_TYPE": "iam", "APIKEY": ocelli.password, "AUTH_URL": ocelli.address, "URL": ocelli.address}
    environment = {**os.environ, **{f"{name}_{key}": value for name in SERVICE_NAMES for key, value in variables.items()}}
    given = environment if way == "environment" else dict(os.environ)
    done = subprocess.run(
        [*command, json.dumps(options)], env=given, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors: Errors = {line["step"]: line["error"] for line in lines}
    return errors or {"create": f"it ended with {done.returncode}: {done.stdout}{done.stderr}"}


@pytest.mark.contract_row("D/SDK parsing. Missing code, description or error_id in")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sdk", COMMANDS)
def test_sdk_runs_the_step(lives: Callable[[str, str], Errors], sdk: str, way: str, step: str) -> None:
    errors = lives(sdk, way)
    assert step in errors, f"not reached: {errors}"
    assert errors[step] is None, errors[step]
