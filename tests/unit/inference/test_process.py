"""The program as Kubernetes runs it: environment, probes, signals, exit codes, termination message."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ocelli_api.pods import INFERENCE_PORT, INTERNAL_PORT, Environment
from ocelli_api.prediction import PREDICTIONS_PATH, REVISION_HEADER
from tests.unit.inference.artifacts import CLASSIFIER_ID, NAMESPACE, REVISION, install_artifact, make_jpeg
from tests.unit.inference.gates import until

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

START_SECONDS = 60.0
EXIT_SECONDS = 40.0
CLIENTS = 8


@dataclass(frozen=True, kw_only=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    internal_url: str
    termination_message: Path
    log: Path

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.internal_url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        pytest.fail(f"not ready within {START_SECONDS:.0f} seconds: {self.log.read_text()}")


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return install_artifact(tmp_path_factory.mktemp("store"))


@contextmanager
def start_server(folder: Path, store_url: str, **changes: str) -> Iterator[Server]:
    # Each server has its own loopback address, as each Pod has its own IP: all use the same port.
    address = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
    environment = {
        Environment.STORE_URL: store_url,
        Environment.CLASSIFIER: "team-a/dogs",
        Environment.NAMESPACE: NAMESPACE,
        Environment.CLASSIFIER_ID: CLASSIFIER_ID,
        Environment.REVISION: REVISION,
        Environment.BIND_ADDRESS: address,
        Environment.TERMINATION_MESSAGE_PATH: str(folder / "termination-message"),
        **changes,
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ocelli_inference"], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        yield Server(
            process=process,
            url=f"http://{address}:{INFERENCE_PORT}",
            internal_url=f"http://{address}:{INTERNAL_PORT}",
            termination_message=folder / "termination-message",
            log=log,
        )
    finally:
        process.kill()
        process.wait()


class Clients:
    """Clients that predict one image after the other over connections that they keep."""

    def __init__(self, client: httpx.AsyncClient, image: bytes) -> None:
        self.statuses: list[list[int]] = [[] for _ in range(CLIENTS)]
        self.stopped = False
        self._client = client
        self._image = image

    async def run(self) -> None:
        await asyncio.gather(*(self._predict_until_stopped(statuses) for statuses in self.statuses))

    def fewest_answers(self) -> int:
        return min(len(statuses) for statuses in self.statuses)

    async def _predict_until_stopped(self, statuses: list[int]) -> None:
        while not self.stopped:
            answer = await self._client.post(PREDICTIONS_PATH, content=self._image, headers={REVISION_HEADER: REVISION})
            statuses.append(answer.status_code)


async def test_terminated_server_answers_every_request_and_exits_0(tmp_path: Path, store_url: str) -> None:
    with start_server(tmp_path, store_url) as server:
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=START_SECONDS) as client:
            clients = Clients(client, make_jpeg(1, height=720, width=1080))
            running = asyncio.create_task(clients.run())
            await until(lambda: running.done() or clients.fewest_answers() >= 2)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (await client.get(f"{server.internal_url}/readyz")).status_code != 503:
                    pass
            # Gateways notice it a moment late: until then they send requests.
            late = clients.fewest_answers() + 3
            await until(lambda: running.done() or clients.fewest_answers() >= late)
            clients.stopped = True
            await running
        assert {status for statuses in clients.statuses for status in statuses} == {200}
        assert await asyncio.to_thread(server.process.wait, EXIT_SECONDS) == 0


def test_a_missing_artifact_ends_the_process_with_a_message(tmp_path: Path, store_url: str) -> None:
    with start_server(tmp_path, store_url, **{Environment.REVISION: "ffffffffff"}) as server:
        assert server.process.wait(START_SECONDS) == 1
        message = server.termination_message.read_text()
        assert message.startswith("Classifier team-a/dogs, revision ffffffffff: ")
        assert "artifact.json" in message


def test_a_missing_variable_ends_the_process_with_a_message(tmp_path: Path, store_url: str) -> None:
    with start_server(tmp_path, store_url, **{Environment.CLASSIFIER_ID: ""}) as server:
        assert server.process.wait(START_SECONDS) == 1
        assert "OCELLI_CLASSIFIER_ID is not set" in server.termination_message.read_text()


def test_an_address_in_use_ends_the_process_with_a_message(tmp_path: Path, store_url: str) -> None:
    (tmp_path / "second").mkdir()
    with start_server(tmp_path, store_url) as first:
        first.wait_until_ready()
        address = first.url.removeprefix("http://").split(":")[0]
        with start_server(tmp_path / "second", store_url, **{Environment.BIND_ADDRESS: address}) as second:
            assert second.process.wait(START_SECONDS) == 1
            assert f"cannot listen on {address} port {INFERENCE_PORT}" in second.termination_message.read_text()


def test_an_oversized_body_is_answered_before_it_is_read_to_its_end(tmp_path: Path, store_url: str) -> None:
    with start_server(tmp_path, store_url) as server:
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}{PREDICTIONS_PATH}", content=bytes(11 * 1024 * 1024), timeout=START_SECONDS)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "TooLarge")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="on a GPU, PyTorch is the engine")
def test_no_torch_is_imported_on_a_cpu(tmp_path: Path, store_url: str) -> None:
    with start_server(tmp_path, store_url) as server:
        server.wait_until_ready()
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "libtorch" not in mapped
