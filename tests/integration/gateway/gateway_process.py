"""A gateway as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

USER = "anna"
PASSWORD = "password"
START_SECONDS = 30.0


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class GatewayProcess:
    """One replica."""

    kubeconfig: Path
    store: Path
    credentials: Path
    log: Path
    settings: dict[str, str]
    port: int = field(default_factory=find_free_port)
    internal_port: int = field(default_factory=find_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens; see `wait_until_healthy`."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OCELLI_", "KUBE"))},
            "KUBECONFIG": str(self.kubeconfig),
            "OCELLI_STORE_URL": self.store.as_uri(),
            "OCELLI_CREDENTIALS_FOLDER": str(self.credentials),
            "OCELLI_GATEWAY_HOST": "127.0.0.1",
            "OCELLI_GATEWAY_PORT": str(self.port),
            "OCELLI_GATEWAY_INTERNAL_PORT": str(self.internal_port),
            # Tests of the drain need it.
            "OCELLI_GATEWAY_DRAIN_SECONDS": "0",
            **self.settings,
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ocelli_gateway"], env=environment, stdout=output, stderr=output
            )
        self._wait("it answers /livez", lambda: httpx.get(f"{self.address}/livez").status_code == 200)

    def health(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.internal_port}/healthz", timeout=10)

    def wait_until_healthy(self) -> None:
        self._wait("it is healthy", lambda: self.health().status_code == 200)

    def wait_until_closed(self) -> None:
        """Returns when it takes no new connections."""

        def closed() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) != 0

        self._wait("it takes no new connections", closed)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, auth=(USER, PASSWORD), params={"version": "2018-03-19"}, timeout=60)

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def _wait(self, what: str, condition: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.log.read_text()}"
            time.sleep(0.02)
