"""Clients of each generation of IBM's SDKs, against `make run`: each runs the whole life of a classifier.

Each has its own environment, locked with hashes (`tests/long/clients`, installed by `make .venv/.clients`), and each step
of its life is a test. Required changes and limits are in docs/migrating.md. The last SDKs that had the service:
`tests/product/test_official_sdks.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.long.ageing_tokens import serving_old_tokens
from tests.product.conftest import FETCHED_ADDRESS
from tests.product.instance import CHECKOUT, Ocelli, running_ocelli

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

CLIENTS_FOLDER = Path(__file__).resolve().parent / "clients"
INSTALLED = CHECKOUT / ".venv" / "clients"
TIMEOUT_SECONDS = 900
INSTALL = "run `make .venv/.clients`"
STEPS = (
    "create",
    "poll",
    "list",
    "classify_file",
    "classify_threshold",
    "classify_zip",
    "classify_url",
    "classify_url_error",
    "retrain",
    "core_ml",
    "delete",
)
API_KEY = ("apikey", 200)
REFRESH_TOKEN = ("refresh_token", 200)


@dataclass(frozen=True, kw_only=True)
class Client:
    """One generation of one language's SDK."""

    language: str
    generation: str
    renews_with: tuple[str, int] | None
    """How it requests a new token, and the answer's status; None: it uses the API key without tokens."""
    lacks: tuple[str, ...] = ()
    """Steps that it does not support."""

    @property
    def steps(self) -> list[str]:
        return [step for step in STEPS if step not in self.lacks]

    def __str__(self) -> str:
        return f"{self.language} {self.generation}"


CLIENTS = (
    Client(language="python", generation="1.7", renews_with=REFRESH_TOKEN),
    Client(language="python", generation="2.10", renews_with=REFRESH_TOKEN),
    Client(language="python", generation="4.7", renews_with=API_KEY),
    Client(language="node", generation="2.42", renews_with=None, lacks=("core_ml",)),
    Client(language="node", generation="4.0", renews_with=REFRESH_TOKEN),
    Client(language="node", generation="4.5", renews_with=API_KEY),
    Client(language="java", generation="8.6", renews_with=API_KEY),
)


@dataclass(frozen=True, kw_only=True)
class Life:
    """The result of one client's life."""

    errors: dict[str, str | None]
    """By step: its error, or None."""
    grants: list[tuple[str, int]]


@pytest.fixture(scope="module")
def ocelli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocelli]:
    folder = tmp_path_factory.mktemp("ocelli")
    with running_ocelli(folder, OCELLI_GATEWAY_URL_ALLOWED_NETWORKS=f"{FETCHED_ADDRESS}/32") as running:
        yield running


@pytest.fixture(scope="module")
def web_server(ocelli: Ocelli) -> Iterator[str]:
    """Address of a web server with the sample images."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(ocelli.samples))
    server = ThreadingHTTPServer((FETCHED_ADDRESS, 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{FETCHED_ADDRESS}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def life_of(ocelli: Ocelli, web_server: str) -> Callable[[Client], Life]:
    """A client's life, which runs when it is first requested."""
    lives: dict[str, Life] = {}

    def find(client: Client) -> Life:
        if str(client) not in lives:
            lives[str(client)] = live(client, ocelli, web_server)
        return lives[str(client)]

    return find


def command_of(client: Client) -> list[str]:
    """The command of its program. Skips the test if its runtime is not installed."""
    name, folder = client.language, INSTALLED / f"{client.language}-{client.generation}"
    if name == "python":
        assert folder.is_dir(), f"the SDK is not installed; {INSTALL}"
        return [str(folder / "bin" / "python"), str(CLIENTS_FOLDER / "python" / "steps.py")]
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    if name == "node":
        assert (CLIENTS_FOLDER / "node" / client.generation / "node_modules").is_dir(), f"the SDK is not installed; {INSTALL}"
        return ["node", str(CLIENTS_FOLDER / "node" / "steps.js")]
    if shutil.which("javac") is None or shutil.which("mvn") is None:
        pytest.skip("javac and Maven, which install the Java SDK, are not installed here")
    assert (folder / "classes").is_dir(), f"the SDK is not installed; {INSTALL}"
    # Its gson reads and writes fields of the classes of Java itself.
    opened = "--add-opens=java.base/java.lang=ALL-UNNAMED"
    return ["java", opened, "-cp", f"{folder / 'classes'}:{folder}/*", "Steps"]


def live(client: Client, ocelli: Ocelli, web_server: str) -> Life:
    command = command_of(client)
    with serving_old_tokens(ocelli) as tokens:
        options = {
            "address": ocelli.address,
            "tokenAddress": tokens.address,
            "apiKey": ocelli.password,
            "samples": str(ocelli.samples),
            "imageURL": f"{web_server}/test-one.png",
            "missingURL": f"{web_server}/missing.png",
            "generation": client.generation,
            "steps": client.steps,
        }
        done = subprocess.run(
            [*command, json.dumps(options)],
            cwd=CLIENTS_FOLDER / client.language / client.generation,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors: dict[str, str | None] = {line["step"]: line["error"] for line in lines}
    return Life(
        errors=errors or {"create": f"it ended with {done.returncode}: {done.stdout}{done.stderr}"}, grants=tokens.grants
    )


@pytest.mark.parametrize(("client", "step"), [(client, step) for client in CLIENTS for step in client.steps], ids=str)
def test_client_runs_the_step(life_of: Callable[[Client], Life], client: Client, step: str) -> None:
    errors = life_of(client).errors
    assert step in errors, f"not reached: {errors}"
    assert errors[step] is None, errors[step]


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_the_client_renews_a_token_that_expires_soon(life_of: Callable[[Client], Life], client: Client) -> None:
    grants = life_of(client).grants
    if client.renews_with is None:
        assert grants == []
    else:
        assert grants[:2] == [API_KEY, client.renews_with]
