"""One local cluster, from claiming its addresses to the last process stopped.

Owns the order of start and stop, the lock on the state folder, and the file that tells other processes about the
running cluster. The composition root: it makes the control plane and the node, neither of which knows of the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeVar

from ocelli_local.access import ClusterAccess, Manifests
from ocelli_local.addresses import LoopbackRange
from ocelli_local.api_client import ApiClient, ApiError
from ocelli_local.binaries import BinaryStore, Report
from ocelli_local.certificates import Subject
from ocelli_local.child_process import CLUSTER_MARKER, kill_leftovers
from ocelli_local.control_plane import (
    KUBELET_CLIENT_NAME,
    ControlPlane,
    ControlPlaneOptions,
    component_environment,
)
from ocelli_local.manifests import Manifest
from ocelli_local.process_node.backoff import RestartBackoff
from ocelli_local.process_node.node import NodeOptions, ProcessNode

logger = logging.getLogger(__name__)

NODE_NAME = "local"
T = TypeVar("T")


class ClusterError(Exception):
    """The cluster can't run here; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How a cluster is run.

    `durable` writes are flushed to disk; without it, a crash of the machine (not of the cluster) may lose the state.
    `extended_resources` are offered by the node beside CPU and memory, e.g. `{"nvidia.com/gpu": "1"}`; nothing is
    behind them. `passthrough` names variables of the runner's environment that every container gets, `container_env`
    gives further ones; a container's own `env` wins over both. `restart_backoff` is the kubelet's by default.
    `stop_grace_seconds` is what containers have between SIGTERM and SIGKILL when the whole cluster stops.
    """

    state_dir: Path
    durable: bool = True
    node_name: str = NODE_NAME
    node_labels: Mapping[str, str] = field(default_factory=dict)
    extended_resources: Mapping[str, str] = field(default_factory=dict)
    passthrough: tuple[str, ...] = ()
    container_env: Mapping[str, str] = field(default_factory=dict)
    restart_backoff: RestartBackoff = field(default_factory=RestartBackoff)
    stop_grace_seconds: float = 2.0
    start_timeout_seconds: float = 60.0


class LocalCluster:
    """A cluster that lives in this process's event loop: `async with LocalCluster(options) as cluster`."""

    def __init__(self, options: ClusterOptions, *, report: Report = print) -> None:
        self.options = options
        self.state_dir = options.state_dir.absolute()
        self._report = report
        self._lock: TextIO | None = None
        self._loopback: LoopbackRange | None = None
        self._control_plane: ControlPlane | None = None
        self._node: ProcessNode | None = None
        self._access: ClusterAccess | None = None

    @property
    def access(self) -> ClusterAccess:
        if self._access is None:
            raise ClusterError("the cluster is not started; use `async with LocalCluster(...)`")
        return self._access

    @property
    def control_plane(self) -> ControlPlane:
        assert self._control_plane is not None
        return self._control_plane

    @property
    def node(self) -> ProcessNode:
        assert self._node is not None
        return self._node

    @property
    def kubeconfig(self) -> Path:
        return self.access.kubeconfig

    # --- using it: see `ClusterAccess`

    async def apply(self, manifests: Manifests, *, namespace: str = "default") -> list[Manifest]:
        return await self.access.apply(manifests, namespace=namespace)

    async def delete(self, manifests: Manifests, *, namespace: str = "default") -> None:
        await self.access.delete(manifests, namespace=namespace)

    async def get(self, api_version: str, kind: str, name: str, *, namespace: str = "default") -> Manifest | None:
        return await self.access.get(api_version, kind, name, namespace=namespace)

    async def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        return await self.access.service_account_kubeconfig(namespace, name)

    async def kubectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A coroutine, because the node that kubectl asks for logs lives in this very event loop."""
        return await self.access.kubectl(*arguments, check=check)

    async def wait_for(self, what: str, condition: Callable[[], Awaitable[T | None]], *, timeout_seconds: float = 30.0) -> T:
        return await self.access.wait_for(what, condition, timeout_seconds=timeout_seconds)

    # --- start and stop

    async def __aenter__(self) -> LocalCluster:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the node is schedulable and the default ServiceAccount is there."""
        require_linux()
        # Building takes minutes, and must not hold up the caller's loop. (It starts no process that has to outlive
        # its thread, so a thread is right here.)
        binaries = await asyncio.to_thread(BinaryStore(os.environ).find_or_build, self._report)
        # Only now: a first build takes many times longer than a start may.
        started = time.monotonic()
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock_state_folder(self.state_dir)
        marker = (CLUSTER_MARKER, build_marker(self.state_dir))
        leftovers = kill_leftovers("=".join(marker))
        if leftovers:
            logger.warning("killed what an earlier run left behind: count=%d", len(leftovers))
        self._loopback = LoopbackRange.claim(str(self.state_dir))
        self._control_plane = ControlPlane(
            ControlPlaneOptions(
                state_dir=self.state_dir,
                binaries=binaries,
                loopback=self._loopback,
                durable=self.options.durable,
                env=component_environment(os.environ, marker),
            )
        )
        await self._control_plane.start(deadline_seconds=self.options.start_timeout_seconds)
        self._access = ClusterAccess(self._control_plane.admin_kubeconfig, kubectl=binaries.kubectl, folder=self.state_dir)
        self._node = self._build_node(marker)
        await self._node.start()
        await self._wait_until_usable(started + self.options.start_timeout_seconds)
        self._write_description(binaries.kubectl)
        logger.info("cluster started: seconds=%.1f", time.monotonic() - started)

    async def stop(self) -> None:
        """Stop containers, node and control plane. Objects stay in the state folder."""
        description = self.state_dir / "cluster.json"
        if self._lock is not None:
            description.unlink(missing_ok=True)
        if self._node is not None:
            await self._node.stop(grace_seconds=self.options.stop_grace_seconds)
            self._node = None
        if self._access is not None:
            await self._access.close()
            self._access = None
        if self._control_plane is not None:
            await self._control_plane.stop()
            self._control_plane = None
        if self._lock is not None:
            # Where the kernel allows no namespaces, containers may have left something behind.
            kill_leftovers(f"{CLUSTER_MARKER}={build_marker(self.state_dir)}")
        if self._loopback is not None:
            self._loopback.release()
            self._loopback = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _build_node(self, marker: tuple[str, str]) -> ProcessNode:
        assert self._loopback is not None
        certificates = self.control_plane.certificates
        name = self.options.node_name
        user = Subject(name=f"system:node:{name}", groups=["system:nodes"])
        serving = Subject(name=f"system:node:{name}", serves=[self._loopback.infrastructure_address, "127.0.0.1"])
        passed = {name: os.environ[name] for name in self.options.passthrough if name in os.environ}
        return ProcessNode(
            NodeOptions(
                name=name,
                folder=self.state_dir / "node",
                log_folder=self.state_dir / "logs" / "pods",
                loopback=self._loopback,
                api_address=self.control_plane.api_address,
                labels=self.options.node_labels,
                extended_resources=self.options.extended_resources,
                container_env={**passed, **self.options.container_env},
                marker=marker,
                restart_backoff=self.options.restart_backoff,
                serving_certificate=certificates.api_authority.issue("node-serving", serving),
                allowed_client_name=KUBELET_CLIENT_NAME,
            ),
            ApiClient(
                self.control_plane.api_address,
                certificates.api_authority.issue("node", user),
                user_agent="ocelli-process-node",
            ),
        )

    async def _wait_until_usable(self, deadline: float) -> None:
        client = self.access.client
        missing = ""
        while time.monotonic() < deadline:
            node = await client.get(f"/api/v1/nodes/{self.options.node_name}")
            if node["spec"].get("taints"):
                missing = "the node is still tainted not-ready"
            else:
                try:
                    await client.get("/api/v1/namespaces/default/serviceaccounts/default")
                    return
                except ApiError as error:
                    if error.status != 404:
                        raise
                    missing = "the default ServiceAccount is not there"
            await asyncio.sleep(0.02)
        log = self.control_plane.components["kube-controller-manager"].log
        raise ClusterError(f"the cluster is not usable in time: {missing}; see {log}")

    def _write_description(self, kubectl: Path) -> None:
        description = {
            "runner": os.getpid(),
            "server": self.control_plane.api_address.url,
            "kubeconfig": str(self.kubeconfig),
            "kubectl": str(kubectl),
            "logs": str(self.state_dir / "logs"),
            "components": {name: component.pid for name, component in self.control_plane.components.items()},
        }
        path = self.state_dir / "cluster.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(description, indent=1))
        temporary.replace(path)


def build_marker(state_dir: Path) -> str:
    """What tells this cluster's processes from those of others: derived from the folder, so the next start knows it."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]


def lock_state_folder(state_dir: Path) -> TextIO:
    lock = open(state_dir / "lock", "a")  # noqa: SIM115 (held until the cluster stops)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ClusterError(
            f"a cluster is already running on {state_dir}; use it, stop it with `ocelli-local down`, "
            "or give another --state-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def require_linux() -> None:
    if sys.platform != "linux":
        raise ClusterError(
            f"the local cluster runs on Linux only, and this is {sys.platform}: it needs pidfd, /proc and the whole "
            "of 127.0.0.0/8; use a Linux machine or virtual machine, or point kubectl to a real cluster"
        )
