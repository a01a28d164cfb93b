"""The node: registered, alive, and running the Pods that are bound to it.

Owns the Node object, its Lease, and one `PodRunner` for each Pod. What happens in a Pod is the runner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from ocelli_local.addresses import LoopbackRange, find_free_port
from ocelli_local.api_client import ApiClient, ApiError, WatchExpiredError
from ocelli_local.certificates import KeyPair
from ocelli_local.kubeconfig import ApiAddress
from ocelli_local.manifests import Manifest, format_time
from ocelli_local.process_node.backoff import RestartBackoff
from ocelli_local.process_node.container import NodeServices
from ocelli_local.process_node.events import EventRecorder
from ocelli_local.process_node.log_server import LogServer, LogServerOptions
from ocelli_local.process_node.memory import MemoryWatch
from ocelli_local.process_node.pod_runner import PodPlace, PodRunner
from ocelli_local.process_node.process_wrapper import ProcessWrapper

logger = logging.getLogger(__name__)
KUBELET_PORT = 23810
HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 40
RELIST_SECONDS = 0.2
POD_LIMIT = 110
KEPT_LOG_FOLDERS = 300
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RETRY_ERRORS = (ApiError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    name: str
    folder: Path
    log_folder: Path
    loopback: LoopbackRange
    api_address: ApiAddress
    labels: Mapping[str, str]
    extended_resources: Mapping[str, str]
    container_env: Mapping[str, str]
    marker: tuple[str, str]
    restart_backoff: RestartBackoff
    serving_certificate: KeyPair
    allowed_client_name: str


class ProcessNode:
    """Takes over `client`, and closes it."""

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
        self._memory = MemoryWatch()
        self._events = EventRecorder(client, options.name)
        self._services = NodeServices(
            wrapper=ProcessWrapper(),
            memory=self._memory,
            events=self._events,
            api_address=options.api_address,
            allocatable=self._allocatable,
            container_env=options.container_env,
            marker=options.marker,
            restart_backoff=options.restart_backoff,
        )
        self._log_server = LogServer(
            LogServerOptions(
                address=self._address,
                port=self._port,
                certificate=options.serving_certificate,
                client_authority=options.api_address.authority,
                allowed_client_name=options.allowed_client_name,
            ),
            self._find_pod,
        )

    async def start(self) -> None:
        """Returns when the node is registered and its log server listens."""
        # Folders of Pods that went while the node was down; those of living Pods hold their emptyDirs.
        self._options.folder.mkdir(parents=True, exist_ok=True)
        if not self._services.wrapper.uses_namespaces:
            logger.warning("user namespaces are not allowed here: what containers leave behind is killed at next start")
        await self._log_server.start()
        await self._register()
        self._events.start()
        self._tasks = [
            asyncio.create_task(self._send_heartbeats(), name="node heartbeats"),
            asyncio.create_task(self._watch_pods(), name="pods of the node"),
        ]

    async def stop(self, *, grace_seconds: float) -> None:
        """End every container and report nothing of it: the next start finds the Pods as they were."""
        await cancel_all(self._tasks)
        runners, tasks = list(self._runners.values()), list(self._runner_tasks.values())
        # The runners must not report, restart or delete anything any more, but their containers have to be attended.
        stopping = asyncio.gather(*(runner.abandon(grace_seconds=grace_seconds) for runner in runners))
        for runner in runners:
            runner.stop_reporting()
        await stopping
        await cancel_all(tasks)
        await self._memory.stop()
        await self._events.stop()
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
            # A resource that the node had before and has no more must go.
            before = (await self._client.get(self._path))["status"].get("capacity", {})
            gone = {name: None for name in before if name not in self._allocatable}
            status = self._build_node_status()
            for field in ("capacity", "allocatable"):
                status[field] = {**status[field], **gone}
            await self._client.patch(f"{self._path}/status", {"status": status})

    def _build_node_status(self) -> Manifest:
        now = format_time(datetime.now(UTC))
        conditions = [
            ("Ready", "True", "ProcessNodeReady", "the process node takes Pods"),
            ("MemoryPressure", "False", "NotMeasured", "the process node does not evict"),
            ("DiskPressure", "False", "NotMeasured", "the process node does not evict"),
            ("PIDPressure", "False", "NotMeasured", "the process node does not evict"),
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
                # A Lease alone does not bring back a node that was taken for lost.
                await self._client.patch(f"{self._path}/status", {"status": self._build_node_status()})
                await asyncio.sleep(HEARTBEAT_SECONDS)
            except RETRY_ERRORS as error:
                logger.warning("heartbeat failed, trying again: error=%s", error)
                await asyncio.sleep(0.5)

    async def _renew_lease(self) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        spec = {
            "holderIdentity": self._options.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": format_time(datetime.now(UTC), timespec="microseconds"),
        }
        try:
            await self._client.patch(f"{leases}/{self._options.name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._client.create(
                leases,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self._options.name},
                    "spec": spec,
                },
            )

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
                # A quiet watch ends so; nobody has to do anything.
                logger.info("watch of pods ended, listing again: error=%r", error)
                await asyncio.sleep(RELIST_SECONDS)
            except RETRY_ERRORS as error:
                logger.warning("watch of pods ended, listing again: error=%r", error)
                await asyncio.sleep(RELIST_SECONDS)
            except Exception:
                # A watch that ended silently would leave the node blind.
                logger.exception("watch of pods failed, listing again")
                await asyncio.sleep(RELIST_SECONDS)

    def _take_list(self, pods: list[Manifest]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._runners) - present:
            self._drop_pod(uid)
        for pod in pods:
            self._take_pod(pod)
        living = {uid[:13] for uid in present}
        for folder in self._pods_folder.glob("*"):
            if folder.name not in living:
                shutil.rmtree(folder, ignore_errors=True)

    def _take_pod(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._runners:
            self._runners[uid].update(pod)
            return
        place = PodPlace(
            folder=self._pods_folder,
            log_folder=self._options.log_folder,
            loopback=self._options.loopback,
            host_address=self._address,
        )
        runner = PodRunner(pod, client=self._client, node=self._services, place=place)
        self._runners[uid] = runner
        runner.update(pod)
        self._runner_tasks[uid] = asyncio.create_task(self._run_pod(runner), name=f"pod {uid}")

    async def _run_pod(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        except Exception:
            name = f"{runner.pod['metadata']['namespace']}/{runner.pod['metadata']['name']}"
            logger.exception("pod runner failed: pod=%s", name)
            message = f"Pod {name}: the process node failed on it; its log has the traceback"
            self._events.record(runner.pod, "Warning", "ProcessNodeError", message)
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

    @property
    def _pods_folder(self) -> Path:
        return self._options.folder / "pods"

    def _prune_logs(self) -> None:
        """Logs of Pods that are gone stay readable in the state folder, the newest of them."""
        with contextlib.suppress(OSError):
            folders = sorted(self._options.log_folder.iterdir(), key=lambda folder: folder.stat().st_mtime)
            living = {uid[:13] for uid in self._runners}
            for folder in folders[:-KEPT_LOG_FOLDERS]:
                if folder.name.rpartition("_")[2] not in living:
                    shutil.rmtree(folder, ignore_errors=True)


async def cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def read_machine_resources(folder: Path) -> dict[str, str]:
    """What this machine has, as a node offers it."""
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
