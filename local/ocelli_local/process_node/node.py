"""The node: it registers itself, renews its Lease, and runs the Pods that are bound to it.

Owns the Node object, its Lease, and one `PodRunner` for each Pod. It must not know what happens in a Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from ocelli_local.addresses import find_free_port
from ocelli_local.api_client import ApiClient, ApiError, WatchExpiredError
from ocelli_local.manifest import Manifest
from ocelli_local.process_node.events import EventRecorder
from ocelli_local.process_node.log_server import LogServer
from ocelli_local.process_node.memory import MemoryWatch
from ocelli_local.process_node.pod_runner import PodRunner
from ocelli_local.process_node.process_wrapper import ProcessWrapper
from ocelli_local.process_node.services import NodeOptions, NodeServices
from ocelli_local.process_node.status import format_time

logger = logging.getLogger(__name__)

KUBELET_PORT = 23810
HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 40
RELIST_SECONDS = 0.2
POD_LIMIT = 110
KEPT_LOG_FOLDERS = 300
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RETRY_ERRORS = (ApiError, aiohttp.ClientError, OSError, TimeoutError)


class ProcessNode:
    """Owns `client`, and closes it."""

    def __init__(self, options: NodeOptions, client: ApiClient) -> None:
        self._options = options
        self._client = client
        self._path = f"/api/v1/nodes/{options.name}"
        self._runners: dict[str, PodRunner] = {}
        self._runner_tasks: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._address = options.loopback.infrastructure_address
        self._port = find_free_port(self._address, KUBELET_PORT)
        self._allocatable = {**read_machine_resources(options.folder), **options.extended_resources}
        self._services = NodeServices(
            options=options,
            wrapper=ProcessWrapper(),
            memory=MemoryWatch(),
            events=EventRecorder(client, options.name),
            allocatable=self._allocatable,
        )
        self._log_server = LogServer(options, self._port, self._find_pod)

    async def start(self) -> None:
        """Returns when the node is registered and its log server listens."""
        if not self._services.wrapper.uses_namespaces:
            logger.warning("user namespaces are not allowed here: processes that containers leave are killed at the next start")
        await self._log_server.start()
        await self._register()
        self._services.events.start()
        self._tasks = [
            asyncio.create_task(self._send_heartbeats(), name="node heartbeats"),
            asyncio.create_task(self._watch_pods(), name="pods of the node"),
        ]

    async def stop(self, *, grace_seconds: float) -> None:
        """Stop all containers without reporting it: at the next start the Pods are unchanged."""
        await cancel_all(self._tasks)
        runners, tasks = list(self._runners.values()), list(self._runner_tasks.values())
        # The runners no longer report, restart or delete anything, but still attend their containers.
        stopping = asyncio.gather(*(runner.abandon(grace_seconds=grace_seconds) for runner in runners))
        for runner in runners:
            runner.stop_reporting()
        await stopping
        await cancel_all(tasks)
        await self._services.memory.stop()
        await self._services.events.stop()
        await self._log_server.stop()
        await self._client.close()

    # --- the Node object

    async def _register(self) -> None:
        labels = {
            "kubernetes.io/hostname": self._options.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": ARCHITECTURES.get(platform.machine(), platform.machine()),
            **self._options.labels,
        }
        try:
            await self._client.create(
                "/api/v1/nodes",
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": self._options.name, "labels": labels},
                    "status": self._build_node_status(),
                },
            )
        except ApiError as error:
            if error.status != 409:
                raise
            await self._client.patch(self._path, {"metadata": {"labels": labels}})
            # Remove resources that the node no longer offers.
            before = (await self._client.get(self._path))["status"].get("capacity", {})
            gone = {name: None for name in before if name not in self._allocatable}
            status = self._build_node_status()
            for field in ("capacity", "allocatable"):
                status[field] = {**status[field], **gone}
            await self._client.patch(f"{self._path}/status", {"status": status})

    def _build_node_status(self) -> Manifest:
        now = format_time(datetime.now(UTC))
        conditions = [
            ("Ready", "True", "ProcessNodeReady", "the process node accepts Pods"),
            *(
                (f"{resource}Pressure", "False", "NotMeasured", "the process node does not evict")
                for resource in ("Memory", "Disk", "PID")
            ),
        ]
        return {
            "capacity": dict(self._allocatable),
            "allocatable": dict(self._allocatable),
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._options.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
                "operatingSystem": "linux",
                "osImage": "this machine",
                "kernelVersion": platform.release(),
                "kubeletVersion": "v1.37.0-process-node",
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "process://1",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
            "conditions": [
                {"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now}
                for kind, status, reason, message in conditions
            ],
        }

    async def _send_heartbeats(self) -> None:
        while True:
            try:
                await self._renew_lease()
                # A Lease alone does not make a lost node ready again.
                await self._client.patch(f"{self._path}/status", {"status": self._build_node_status()})
                await asyncio.sleep(HEARTBEAT_SECONDS)
            except RETRY_ERRORS as error:
                logger.warning("heartbeat failed, retrying: error=%s", error)
                await asyncio.sleep(0.5)

    async def _renew_lease(self) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._options.name},
            "spec": {
                "holderIdentity": self._options.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self._options.name}"
        await self._client.apply(path, lease, field_manager="process-node")

    # --- Pods

    async def _watch_pods(self) -> None:
        selector = {"fieldSelector": f"spec.nodeName={self._options.name}"}
        while True:
            try:
                listed = await self._client.get("/api/v1/pods", selector)
                version = listed["metadata"]["resourceVersion"]
                self._take_list(listed["items"])
                while True:
                    async for event in self._client.watch("/api/v1/pods", resource_version=version, query=selector):
                        version = event.object["metadata"]["resourceVersion"]
                        if event.type in ("ADDED", "MODIFIED"):
                            self._take_pod(event.object)
                        elif event.type == "DELETED":
                            self._drop_pod(event.object["metadata"]["uid"])
            except WatchExpiredError:
                continue
            except TimeoutError as error:
                # A watch without events ends like this.
                logger.info("watch of pods ended, listing again: error=%r", error)
                await asyncio.sleep(RELIST_SECONDS)
            except RETRY_ERRORS as error:
                logger.warning("watch of pods ended, listing again: error=%r", error)
                await asyncio.sleep(RELIST_SECONDS)
            except Exception:
                # Without a watch the node would miss all changes.
                logger.exception("watch of pods failed, listing again")
                await asyncio.sleep(RELIST_SECONDS)

    def _take_list(self, pods: list[Manifest]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._runners) - present:
            self._drop_pod(uid)
        for pod in pods:
            self._take_pod(pod)
        existing = {uid[:13] for uid in present}
        # Folders of existing Pods contain their emptyDirs.
        for folder in (self._options.folder / "pods").glob("*"):
            if folder.name not in existing:
                shutil.rmtree(folder, ignore_errors=True)

    def _take_pod(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._runners:
            self._runners[uid].update(pod)
            return
        runner = PodRunner(pod, self._client, self._services)
        self._runners[uid] = runner
        runner.update(pod)
        self._runner_tasks[uid] = asyncio.create_task(self._run_pod(runner), name=f"pod {uid}")

    async def _run_pod(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        except Exception:
            name = f"{runner.pod['metadata']['namespace']}/{runner.pod['metadata']['name']}"
            logger.exception("pod runner failed: pod=%s", name)
            message = f"Pod {name}: an internal error of the process node; its log contains the traceback"
            self._services.events.record(runner.pod, "Warning", "ProcessNodeError", message)
            runner.kill()
        finally:
            self._runner_tasks.pop(runner.uid, None)
            self._prune_logs()

    def _drop_pod(self, uid: str) -> None:
        runner = self._runners.pop(uid, None)
        if runner is not None:
            runner.vanish()

    def _find_pod(self, namespace: str, name: str) -> PodRunner | None:
        for runner in self._runners.values():
            metadata = runner.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return runner
        return None

    def _prune_logs(self) -> None:
        """The newest logs of deleted Pods are kept in the state folder."""
        with contextlib.suppress(OSError):
            folders = sorted(self._options.log_folder.iterdir(), key=lambda folder: folder.stat().st_mtime)
            existing = {uid[:13] for uid in self._runners}
            for folder in folders[:-KEPT_LOG_FOLDERS]:
                if folder.name.rpartition("_")[2] not in existing:
                    shutil.rmtree(folder, ignore_errors=True)


async def cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def read_machine_resources(folder: Path) -> dict[str, str]:
    """CPU, memory, disk and Pods that this machine offers as a node."""
    folder.mkdir(parents=True, exist_ok=True)
    memory_kib = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = int(line.split()[1])
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib}Ki",
        "ephemeral-storage": str(shutil.disk_usage(folder).total),
        "pods": str(POD_LIMIT),
    }
