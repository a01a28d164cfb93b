"""Servers are replaced many times under load from clients that keep their connections: no request is lost.

The gateway, the inference server and the store are separate processes that are stopped as in Kubernetes: new connections go
elsewhere, then SIGTERM follows. `OCELLI_DRAINS` sets how often each is replaced, `OCELLI_DRAINS_SEED` repeats a run's pauses.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from ocelli_api.prediction import PREDICTIONS_PATH, REVISION_HEADER
from ocelli_local import SyncClusterAccess
from tests.integration.gateway.gateway_process import PASSWORD, USER, GatewayProcess
from tests.integration.store.store_process import running_store_process
from tests.unit.inference.artifacts import REVISION, install_artifact, make_jpeg
from tests.unit.inference.test_process import start_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

DRAINS = int(os.environ.get("OCELLI_DRAINS", "50"))
SEED = int(os.environ.get("OCELLI_DRAINS_SEED", "0")) or random.randrange(1, 1_000_000)
CLIENTS = 8
PAUSES_SECONDS = (0.0, 0.003, 0.03, 0.3, 1.5)
"""Pauses before a connection is used again: shorter than every drain."""
SERVING_SECONDS = 1.0
"""How long a server has all clients before the next one replaces it."""
EXIT_SECONDS = 40.0


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


class Server(Protocol):
    """One server process."""

    address: str
    """`host:port`."""

    def stop(self) -> int:
        """Stop it as Kubernetes does; returns the exit code."""


@dataclass(frozen=True, kw_only=True)
class Process:
    address: str
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(EXIT_SECONDS)


class Load:
    """Clients that send requests in sequence, each over a connection that it keeps until the server closes it."""

    def __init__(self, requests: Callable[[int], Request]) -> None:
        self.address = ""
        """Where new connections go."""
        self.answers = 0
        self.failures: list[str] = []
        self._requests = requests
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(random.Random(SEED + index),)) for index in range(CLIENTS)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(EXIT_SECONDS)

    def _send(self, chance: random.Random) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ended.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(self.address, timeout=30)
            request = self._requests(chance.randrange(1_000_000))
            try:
                connection.request(request.method, request.path, request.body or None, request.headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{request.method} {request.path}: {error!r}")
                connection.close()
                connection = None
                continue
            self.answers += 1
            if answer.status != request.status:
                self.failures.append(f"{request.method} {request.path}: {answer.status} {text[:200]!r}")
            if answer.will_close:
                connection.close()
                connection = None
            self._ended.wait(chance.choice(PAUSES_SECONDS))
        if connection is not None:
            connection.close()


def replace_under_load(name: str, start: Callable[[], Server], requests: Callable[[int], Request]) -> None:
    """Replace a server `DRAINS` times; no request may be lost."""
    load = Load(requests)
    server = start()
    load.address = server.address
    with load.running():
        for _ in range(DRAINS):
            successor = start()
            time.sleep(SERVING_SECONDS)
            load.address = successor.address
            assert server.stop() == 0
            assert load.failures == []
            server = successor
    print(f"\n{name}: {DRAINS} drains, {load.answers} answers, {len(load.failures)} lost, seed {SEED}")
    assert server.stop() == 0
    assert load.failures == []
    assert load.answers > DRAINS * CLIENTS


def test_no_request_to_a_gateway_is_lost(start_gateway: Callable[..., GatewayProcess], namespace: str) -> None:
    credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    authorized = {"Authorization": f"Basic {credentials}"}
    boundary = "boundary"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="images_file"; filename="a.jpg"\r\n\r\n'.encode()
        + make_jpeg(1, height=40, width=40)
        + f"\r\n--{boundary}--\r\n".encode()
    )

    @dataclass(frozen=True)
    class Gateway:
        address: str
        gateway: GatewayProcess

        def stop(self) -> int:
            return self.gateway.stop()

    def start() -> Server:
        gateway = start_gateway(namespace, OCELLI_GATEWAY_DRAIN_SECONDS="15")
        gateway.wait_until_healthy()
        return Gateway(f"127.0.0.1:{gateway.port}", gateway)

    def requests(number: int) -> Request:
        if number % 2:
            return Request(method="GET", path="/v3/classifiers?version=2018-03-19", headers=authorized)
        headers = {**authorized, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        # Colours need no model, so the gateway answers without an inference server.
        return Request(method="POST", path="/v3/classify?version=2018-03-19", body=form, headers=headers)

    replace_under_load("gateway", start, requests)


def test_no_request_to_an_inference_server_is_lost(tmp_path: Path) -> None:
    store_url = install_artifact(tmp_path / "store")
    image = make_jpeg(1, height=72, width=108)
    prediction = Request(method="POST", path=PREDICTIONS_PATH, body=image, headers={REVISION_HEADER: REVISION})
    with ExitStack() as processes:

        def start() -> Server:
            server = processes.enter_context(start_server(tmp_path, store_url))
            server.wait_until_ready()
            return Process(address=urlsplit(server.url).netloc, process=server.process)

        replace_under_load("inference server", start, lambda _number: prediction)


def test_no_request_to_a_store_is_lost(local_cluster: SyncClusterAccess, namespace: str, tmp_path: Path) -> None:
    with running_store_process(local_cluster, namespace, tmp_path) as store, ExitStack() as processes:
        token = store.save_token(namespace, "default").read_text().strip()
        authorized = {"Authorization": f"Bearer {token}"}
        folder = f"tenants/{namespace}/artifacts/dogs_1/0123456789"
        numbers = itertools.count()

        def start() -> Server:
            another = store.start_another(tmp_path / f"volume-{next(numbers)}")
            processes.callback(another.process.kill)
            return Process(address=urlsplit(another.url).netloc, process=another.process)

        def requests(number: int) -> Request:
            if number % 2:
                return Request(method="GET", path=f"/list?prefix={folder}", headers=authorized)
            path = f"/objects/{folder}/{number % 10}"
            return Request(method="PUT", path=path, body=bytes(10_000), headers=authorized, status=204)

        replace_under_load("store", start, requests)
