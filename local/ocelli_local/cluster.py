"""One local cluster, from claiming its addresses to the last process stopped.

Owns the order of start and stop, the lock on the state folder, and the file that describes the running cluster to other
processes. The composition root: it creates the control plane and the node, which do not know each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ocelli_local.access import ClusterAccess
from ocelli_local.addresses import LoopbackRange
from ocelli_local.api_client import ApiClient, ApiError
from ocelli_local.binaries import BinaryStore
from ocelli_local.certificates import Subject
from ocelli_local.child_process import CLUSTER_MARKER, kill_leftovers
from ocelli_local.control_plane import (
    KUBELET_CLIENT_NAME,
    ControlPlane,
    ControlPlaneOptions,
    component_environment,
)
from ocelli_local.process_node.backoff import RestartBackoff
from ocelli_local.process_node.node import ProcessNode
from ocelli_local.process_node.services import NodeOptions
from ocelli_local.progress import Report

logger = logging.getLogger(__name__)


class ClusterError(Exception):
    """The cluster can't run here; the message contains the reason and the remedy."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How a cluster is run.

    With `durable`, writes are flushed to disk; without it, a crash of the machine (not of the cluster) may lose the state.
    The node offers `extended_resources` in addition to CPU and memory, e.g. `{"nvidia.com/gpu": "1"}`, without any device
    behind them. `passthrough` names variables of the runner's environment that every container gets, `container_env`
    adds others; a container's own `env` takes precedence over both. `restart_backoff` is the kubelet's by default.
    `stop_grace_seconds` is the time between SIGTERM and SIGKILL when the whole cluster stops.
    """

    state_dir: Path
    durable: bool = True
    node_name: str = "local"
    node_labels: Mapping[str, str] = field(default_factory=dict)
    extended_resources: Mapping[str, str] = field(default_factory=dict)
    passthrough: tuple[str, ...] = ()
    container_env: Mapping[str, str] = field(default_factory=dict)
    restart_backoff: RestartBackoff = field(default_factory=RestartBackoff)
    stop_grace_seconds: float = 2.0
    start_timeout_seconds: float = 60.0


class LocalCluster:
    """A cluster in this process's event loop: `async with LocalCluster(options) as cluster`. Its attributes are set inside.

    When the block ends, containers, node and control plane are stopped. Objects are kept in the state folder.
    """

    access: ClusterAccess
    control_plane: ControlPlane

    def __init__(self, options: ClusterOptions, *, report: Report = print) -> None:
        self.options = options
        self.state_dir = options.state_dir.absolute()
        self._report = report
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> LocalCluster:
        """Returns when the node is schedulable and the default ServiceAccount exists."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        require_linux()
        programs = await BinaryStore(os.environ).find_or_install(self._report)
        # The start timeout does not include the installation of the programs, which may take minutes.
        started = time.monotonic()
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stack.enter_context(lock_state_folder(self.state_dir))
        marker = (CLUSTER_MARKER, build_marker(self.state_dir))
        leftovers = kill_leftovers("=".join(marker))
        if leftovers:
            logger.warning("killed processes of an earlier run: count=%d", len(leftovers))
        loopback = LoopbackRange.claim(str(self.state_dir))
        self._stack.callback(loopback.release)
        # Where the kernel does not allow user namespaces, processes of containers may be left.
        self._stack.callback(kill_leftovers, "=".join(marker))
        self.control_plane = ControlPlane(
            ControlPlaneOptions(
                state_dir=self.state_dir,
                programs=programs,
                loopback=loopback,
                durable=self.options.durable,
                env=component_environment(os.environ, marker),
            )
        )
        self._stack.push_async_callback(self.control_plane.stop)
        await self.control_plane.start(deadline_seconds=self.options.start_timeout_seconds)
        self.access = ClusterAccess(self.control_plane.admin_kubeconfig, kubectl=programs["kubectl"], folder=self.state_dir)
        self._stack.push_async_callback(self.access.close)
        node = self._build_node(marker, loopback)
        self._stack.push_async_callback(node.stop, grace_seconds=self.options.stop_grace_seconds)
        await node.start()
        await self._wait_until_ready(started + self.options.start_timeout_seconds)
        self._stack.callback(self._write_description().unlink, missing_ok=True)
        logger.info("cluster started: seconds=%.1f", time.monotonic() - started)

    def _build_node(self, marker: tuple[str, str], loopback: LoopbackRange) -> ProcessNode:
        certificates = self.control_plane.certificates
        name = self.options.node_name
        user = Subject(name=f"system:node:{name}", groups=["system:nodes"])
        serving = Subject(name=f"system:node:{name}", serves=[loopback.infrastructure_address, "127.0.0.1"])
        passed = {name: os.environ[name] for name in self.options.passthrough if name in os.environ}
        return ProcessNode(
            NodeOptions(
                name=name,
                folder=self.state_dir / "node",
                log_folder=self.state_dir / "logs" / "pods",
                loopback=loopback,
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

    async def _wait_until_ready(self, deadline: float) -> None:
        client = self.access.client
        missing = ""
        while time.monotonic() < deadline:
            node = await client.get(f"/api/v1/nodes/{self.options.node_name}")
            if node["spec"].get("taints"):
                missing = "the node is not ready"
            else:
                try:
                    await client.get("/api/v1/namespaces/default/serviceaccounts/default")
                    return
                except ApiError as error:
                    if error.status != 404:
                        raise
                    missing = "the default ServiceAccount does not exist"
            await asyncio.sleep(0.02)
        log = self.control_plane.components["kube-controller-manager"].log
        raise ClusterError(f"the cluster did not become ready in time: {missing}; see {log}")

    def _write_description(self) -> Path:
        description = {
            "runner": os.getpid(),
            "server": self.control_plane.api_address.url,
            "kubeconfig": str(self.access.kubeconfig),
            "kubectl": str(self.access.kubectl_path),
            "logs": str(self.state_dir / "logs"),
            "components": {name: component.pid for name, component in self.control_plane.components.items()},
        }
        path = self.state_dir / "cluster.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(description, indent=1))
        temporary.replace(path)
        return path


def build_marker(state_dir: Path) -> str:
    """Identifies this cluster's processes. It is derived from the folder, so that the next start knows it."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]


def lock_state_folder(state_dir: Path) -> TextIO:
    lock = open(state_dir / "lock", "a")  # noqa: SIM115 (held until the cluster stops)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ClusterError(
            f"a cluster is already running on {state_dir}; use it, stop it with `ocelli-local down`, "
            "or choose another --state-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def require_linux() -> None:
    if sys.platform != "linux":
        raise ClusterError(
            f"the local cluster runs on Linux only, and this is {sys.platform}: it needs pidfd, /proc and all of "
            "127.0.0.0/8; use a Linux machine or virtual machine, or a real cluster"
        )
