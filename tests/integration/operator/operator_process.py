"""An operator as a separate process, with the ServiceAccount and the rights that it has in a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 30.0


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class OperatorProcess:
    """One operator. `start` after `kill` starts another one with the same name."""

    kubeconfig: Path
    namespace: str
    log: Path
    environment: dict[str, str]
    identity: str = "operator-1"
    metrics_port: int = field(default_factory=find_free_port)
    health_port: int = field(default_factory=find_free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting; see `wait_until_leading`."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OCELLI_", "KUBE"))},
            "KUBECONFIG": str(self.kubeconfig),
            "OCELLI_NAMESPACES": self.namespace,
            "OCELLI_SOURCES_ALLOWED_NETWORKS": "127.0.0.0/8",
            "OCELLI_METRICS_PORT": str(self.metrics_port),
            "OCELLI_HEALTH_PORT": str(self.health_port),
            "POD_NAME": self.identity,
            "POD_NAMESPACE": self.namespace,
            **self.environment,
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ocelli_operator"], env=environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> int:
        """Stop it like a kubelet. Returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def metric(self, name: str) -> float:
        """The value of a metric, by its name with labels; 0 if it is absent."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def health(self) -> int:
        """The HTTP status of the liveness endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/healthz", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def is_up(self) -> bool:
        try:
            self.metric("ocelli_leader")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def is_leading(self) -> bool:
        try:
            return self.metric("ocelli_leader") == 1.0
        except (urllib.error.URLError, ConnectionError):
            return False

    def wait_until_leading(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_leading():
            assert time.monotonic() < deadline, f"the operator does not lead:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.05)
