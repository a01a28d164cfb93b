"""The embedded store as a separate process, with a real API server that reviews tokens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from ocelli_local import SyncClusterAccess
from ocelli_storage.embedded_store import EmbeddedStore

CHECKOUT = Path(__file__).resolve().parents[3]
ADMINISTRATOR = "operator"
VOLUME = "volume"
READY_SECONDS = 60.0
REVIEWER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "test-store"},
    "rules": [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}],
}
"""Only the rights of the chart."""


@dataclass(frozen=True, kw_only=True)
class StoreProcess:
    """A store whose administrator is the ServiceAccount `operator` of the namespace."""

    cluster: SyncClusterAccess
    namespace: str
    folder: Path
    url: str
    internal_url: str
    environment: dict[str, str]
    """Its settings without its ports."""
    process: subprocess.Popen[bytes]

    def start_another(self, volume: Path) -> StoreProcess:
        """A second process that is ready; the caller stops it. It has its own volume."""
        url, internal_url, process = _start({**self.environment, "OCELLI_STORE_FOLDER": str(volume)})
        another = replace(self, url=url, internal_url=internal_url, process=process)
        another.wait_until_ready()
        return another

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.internal_url}/readyz").status_code == 200:
                    return
            assert self.process.poll() is None, f"the store ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "the store is not ready in time"
            time.sleep(0.02)

    def stand_still(self) -> None:
        """Pause it: it accepts connections and answers none, as with a hanging volume."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def volume(self) -> Path:
        return self.folder / VOLUME

    def save_token(self, namespace: str, account: str, audience: str = "ocelli-store") -> Path:
        """A file with a token, as in a projected volume."""
        done = self.cluster.kubectl("create", "token", account, f"--namespace={namespace}", f"--audience={audience}")
        file = self.folder / f"token-{namespace}-{account}"
        file.write_text(done.stdout)
        return file

    def open_as(self, namespace: str, account: str = "default", audience: str = "ocelli-store") -> EmbeddedStore:
        """A client of the store with that ServiceAccount."""
        return EmbeddedStore(self.url, self.save_token(namespace, account, audience))

    def open_as_administrator(self) -> EmbeddedStore:
        return self.open_as(self.namespace, ADMINISTRATOR)


@contextmanager
def running_store_process(cluster: SyncClusterAccess, namespace: str, folder: Path, **settings: str) -> Iterator[StoreProcess]:
    """A store with its ServiceAccounts in a namespace of the test's own; upper-case keyword arguments are settings."""
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        for name in ("store", ADMINISTRATOR)
    ]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"test-store-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-store"},
        "subjects": [{"kind": "ServiceAccount", "name": "store", "namespace": namespace}],
    }
    cluster.apply([*accounts, REVIEWER, binding])
    environment = {
        "KUBECONFIG": str(cluster.service_account_kubeconfig(namespace, "store")),
        "OCELLI_STORE_FOLDER": str(folder / VOLUME),
        "OCELLI_STORE_ADMINISTRATORS": f"system:serviceaccount:{namespace}:{ADMINISTRATOR}",
        "OCELLI_STORE_HOST": "127.0.0.1",
        **settings,
    }
    url, internal_url, process = _start(environment)
    try:
        yield StoreProcess(
            cluster=cluster,
            namespace=namespace,
            folder=folder,
            url=url,
            internal_url=internal_url,
            environment=environment,
            process=process,
        )
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(timeout=30) == 0
        cluster.delete(binding)


def _start(environment: dict[str, str]) -> tuple[str, str, subprocess.Popen[bytes]]:
    """A process on free ports, its address and that of its probes."""
    with socket.create_server(("127.0.0.1", 0)) as probe, socket.create_server(("127.0.0.1", 0)) as internal_probe:
        port, internal_port = probe.getsockname()[1], internal_probe.getsockname()[1]
    every = {
        **os.environ,
        **environment,
        "OCELLI_STORE_PORT": str(port),
        "OCELLI_STORE_INTERNAL_PORT": str(internal_port),
    }
    process = subprocess.Popen([sys.executable, "-m", "ocelli_store"], env=every, cwd=CHECKOUT)
    return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{internal_port}", process
