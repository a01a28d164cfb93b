"""One Pod on the node, until its last status.

Owns the order (volumes, init containers, containers, the end), the Pod's deadline, and that the API server has the Pod's
current status. `container.py` knows how a container runs, and `status.py` what a status contains.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from datetime import UTC, datetime

import aiohttp

from ocelli_local.api_client import ApiClient, ApiError
from ocelli_local.manifest import Manifest
from ocelli_local.process_node.container import Container
from ocelli_local.process_node.container_log import ContainerLog
from ocelli_local.process_node.environment import PodNetwork
from ocelli_local.process_node.events import EventType
from ocelli_local.process_node.pod_objects import ObjectUnavailableError, PodObjects
from ocelli_local.process_node.refusals import find_refusals
from ocelli_local.process_node.services import NodeServices, PodServices
from ocelli_local.process_node.status import PodEnd, PodFacts, build_pod_status, format_time, status_differs
from ocelli_local.process_node.volumes import PodVolumes

logger = logging.getLogger(__name__)

VOLUME_RETRY_LIMIT_SECONDS = 5.0
VOLUME_REFRESH_SECONDS = 60.0
# These owners replace failed Pods, with Pods that would be refused as well: a refused Pod of theirs waits instead of failing.
OWNERS_THAT_REPLACE = {"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"}
REFUSED_REASON = "RefusedByProcessNode"
LOOPBACK_ADDRESS = "127.0.0.1"


class PodRunner:
    """Runs one Pod in a task of its own: `run`. `update` takes the Pod as the API server has it."""

    def __init__(self, pod: Manifest, client: ApiClient, node: NodeServices) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._client = client
        self._node = node
        self._host_address = node.options.loopback.infrastructure_address
        self._path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self._address: str | None = None
        self._folder = node.options.folder / "pods" / self.uid[:13]
        self._start_time = pod.get("status", {}).get("startTime") or format_time(datetime.now(UTC))
        self._deletion = asyncio.Event()
        self._vanished = asyncio.Event()
        self._end: PodEnd | None = None
        self._disruption: str | None = None
        self._stopped = False
        self._reporting = True
        self._dirty = asyncio.Event()
        self._push_lock = asyncio.Lock()
        self._pushed_version = 0
        self._desired: Manifest | None = None
        self._volumes: PodVolumes | None = None
        self._init: list[Container] = []
        self._containers: list[Container] = []
        self._container_tasks: list[asyncio.Task[None]] = []

    # --- called by the node

    def update(self, pod: Manifest) -> None:
        """The Pod has changed on the API server. If its status is no longer the node's, it is written again."""
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            if self._deletion.is_set() and pod["metadata"].get("deletionGracePeriodSeconds") == 0:
                self.kill()
            self._deletion.set()
        is_newer = int(pod["metadata"]["resourceVersion"]) >= self._pushed_version
        if is_newer and self._desired is not None and status_differs(self._build_status(), pod.get("status", {})):
            self._dirty.set()

    def vanish(self) -> None:
        """The Pod no longer exists on the API server."""
        self._vanished.set()
        self._deletion.set()
        self.kill()

    def kill(self) -> None:
        for container in self._all_containers:
            container.kill()

    def find_log(self, name: str, *, previous: bool) -> ContainerLog | None:
        container = next((container for container in self._all_containers if container.name == name), None)
        return container.find_log(previous=previous) if container is not None else None

    async def abandon(self, *, grace_seconds: float) -> None:
        """The node stops: end the processes without reporting it, so that the next start finds the Pod unchanged.

        No preStop hook runs: it gives clients time to turn to other Pods, and all of them stop.
        """
        stopping = (container.stop(grace_seconds=grace_seconds, hook=False) for container in self._all_containers)
        await asyncio.gather(*stopping)

    def stop_reporting(self) -> None:
        """Write no status from now on."""
        self._reporting = False

    @property
    def _all_containers(self) -> list[Container]:
        return [*self._init, *self._containers]

    # --- running

    async def run(self) -> None:
        """Returns when the Pod is deleted, or nothing is left to do before its deletion."""
        pusher = asyncio.create_task(self._push_changes(), name=f"status of {self._path}")
        try:
            self._make_containers()
            if self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                self._restore()
                await self._deletion.wait()
            else:
                await self._live()
            await self._finish()
        finally:
            pusher.cancel()
            if self._address is not None:
                self._node.options.loopback.release_pod_address(self._address)
            if self._reporting:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def _live(self) -> None:
        refusals = find_refusals(self.pod)
        if refusals:
            await self._refuse(refusals)
            return
        self._restore()
        work = asyncio.create_task(self._work(), name=f"work of {self._path}")
        deletion = asyncio.create_task(self._deletion.wait())
        try:
            await asyncio.wait([work, deletion], timeout=self._seconds_left(), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._deletion.is_set():
                self._end = PodEnd(
                    reason="DeadlineExceeded",
                    message="Pod was active on the node longer than the specified deadline",
                )
                self._event("Normal", "DeadlineExceeded", self._end.message)
                await self._stop_containers(self._grace_seconds())
                self._dirty.set()
            elif work.done():
                work.result()
            if not self._deletion.is_set():
                await deletion
            if self._running_containers() or not work.done():
                self._event("Normal", "Killing", "Stopping the Pod's containers")
                await self._stop_containers(self._grace_seconds())
        finally:
            for task in (work, deletion, *self._container_tasks):
                task.cancel()
            await asyncio.gather(work, *self._container_tasks, return_exceptions=True)

    async def _work(self) -> None:
        """Volumes, init containers, containers; returns when no container will run again."""
        assert self._volumes is not None
        self._dirty.set()
        await self._prepare_volumes(self._volumes)
        refresher = asyncio.create_task(self._refresh_volumes(self._volumes))
        try:
            if not await self._initialize():
                return
            for container in self._containers:
                if not container.has_run:
                    container.wait_with("ContainerCreating")
            tasks = [self._start(container) for container in self._containers]
            await asyncio.gather(*tasks)
            # Sidecars are no longer needed.
            await asyncio.gather(*(container.stop(grace_seconds=self._grace_seconds()) for container in self._init))
        finally:
            refresher.cancel()
            self._dirty.set()

    async def _initialize(self) -> bool:
        """Run the init containers in turn; False if one failed for good."""
        for container in self._init:
            if is_sidecar(container.spec):
                task = self._start(container)
                started = asyncio.create_task(container.became_started.wait())
                await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
                started.cancel()
                continue
            await self._start(container)
            if container.exit_code != 0:
                return False
        return True

    def _start(self, container: Container) -> asyncio.Task[None]:
        name = f"container {container.name} of {self._path}"
        task = asyncio.create_task(container.run(), name=name)
        self._container_tasks.append(task)
        return task

    async def _finish(self) -> None:
        """The last status, then the deletion that the API server waits for."""
        if self._vanished.is_set() or not self._reporting:
            return
        self._stopped = True
        await self._push()
        # A finalizer may delay the deletion.
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        delay = 0.05
        while not self._vanished.is_set():
            try:
                await self._client.delete(self._path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                logger.warning("pod not deleted, retrying: pod=%s error=%s", self._path, error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                logger.warning("pod not deleted, retrying: pod=%s error=%r", self._path, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _refuse(self, refusals: list[str]) -> None:
        metadata = self.pod["metadata"]
        message = f"Pod {metadata['namespace']}/{metadata['name']}: {'; '.join(refusals)}"
        self._event("Warning", REFUSED_REASON, message)
        owners = {owner["kind"] for owner in metadata.get("ownerReferences", []) if owner.get("controller")}
        if owners & OWNERS_THAT_REPLACE:
            for container in self._containers:
                container.wait_with(REFUSED_REASON, message)
        else:
            self._end = PodEnd(reason=REFUSED_REASON, message=message)
        self._dirty.set()
        await self._deletion.wait()

    def _make_containers(self) -> None:
        spec, metadata = self.pod["spec"], self.pod["metadata"]
        if spec.get("hostNetwork"):
            address = LOOPBACK_ADDRESS
        else:
            address = self._address = self._node.options.loopback.take_pod_address()
        network = PodNetwork(pod_address=address, host_address=self._host_address)
        objects = PodObjects(self._client, self.pod)
        self._network = network
        self._volumes = PodVolumes(self.pod, self._folder / "volumes", objects, network, self._node.allocatable)
        services = PodServices(
            node=self._node,
            pod=self.pod,
            network=network,
            volumes=self._volumes,
            objects=objects,
            folder=self._folder,
            log_folder=self._node.options.log_folder / f"{metadata['namespace']}_{metadata['name']}_{self.uid[:13]}",
            on_change=self._dirty.set,
        )
        policy = spec.get("restartPolicy", "Always")
        init_policy = "Never" if policy == "Never" else "OnFailure"
        waits = bool(spec.get("initContainers"))
        self._init = [
            Container(
                entry,
                services,
                restart_policy="Always" if is_sidecar(entry) else init_policy,
                waits_for_init=True,
            )
            for entry in spec.get("initContainers", [])
        ]
        self._containers = [
            Container(entry, services, restart_policy=policy, waits_for_init=waits) for entry in spec["containers"]
        ]

    def _restore(self) -> None:
        """Continue from the status reported before a restart of the node."""
        status = self.pod.get("status", {})
        known = {
            entry["name"]: entry for entry in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        }
        lost = [c.name for c in self._all_containers if c.name in known and c.restore(known[c.name])]
        if lost and self.pod["spec"].get("restartPolicy") == "Never":
            self._disruption = f"The node was restarted and lost the Pod's processes: {', '.join(lost)}"

    async def _prepare_volumes(self, volumes: PodVolumes) -> None:
        delay = 0.05
        while True:
            try:
                await volumes.prepare()
                return
            except ObjectUnavailableError as error:
                # The root certificate of a new namespace takes a moment: an Event is written only if an object stays missing.
                if delay > 0.5:
                    self._event("Warning", "FailedMount", str(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, VOLUME_RETRY_LIMIT_SECONDS)

    async def _refresh_volumes(self, volumes: PodVolumes) -> None:
        while volumes.need_refresh:
            await asyncio.sleep(VOLUME_REFRESH_SECONDS)
            try:
                await volumes.refresh()
            except (ApiError, OSError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("volumes not refreshed: pod=%s error=%s", self._path, error)

    async def _stop_containers(self, grace_seconds: float) -> None:
        """Containers first, then sidecars, within one grace period."""
        deadline = time.monotonic() + grace_seconds
        sidecars = [container for container in self._init if is_sidecar(container.spec)]
        others = [container for container in self._all_containers if container not in sidecars]
        for group in (others, sidecars):
            left = max(0.0, deadline - time.monotonic())
            await asyncio.gather(*(container.stop(grace_seconds=left) for container in group))

    def _running_containers(self) -> list[Container]:
        return [container for container in self._all_containers if container.exit_code is None]

    def _grace_seconds(self) -> float:
        asked = self.pod["metadata"].get("deletionGracePeriodSeconds")
        return float(asked if asked is not None else self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _seconds_left(self) -> float | None:
        limit: float | None = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return None
        started = datetime.fromisoformat(self._start_time.replace("Z", "+00:00"))
        return max(0.0, limit - (datetime.now(UTC) - started).total_seconds())

    # --- the status on the API server

    async def _push_changes(self) -> None:
        delay = 0.1
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._push()
                delay = 0.1
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                logger.warning("status not written, retrying: pod=%s error=%s", self._path, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                self._dirty.set()

    async def _push(self) -> None:
        async with self._push_lock:
            if not self._reporting:
                return
            status = self._build_status()
            self._desired = status
            try:
                answer = await self._client.patch(f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": status})
            except ApiError as error:
                # Deleted, or another Pod of the same name: the watch reports it.
                if error.status in (404, 409):
                    return
                raise
            self._pushed_version = int(answer["metadata"]["resourceVersion"])
            self.pod["status"] = answer["status"]

    def _build_status(self) -> Manifest:
        runs_here = self._end is None or self._end.reason != REFUSED_REASON
        return build_pod_status(
            PodFacts(
                pod=self.pod,
                now=datetime.now(UTC),
                start_time=self._start_time,
                pod_address=self._network.pod_address if runs_here else None,
                host_address=self._host_address,
                init_statuses=[container.build_status() for container in self._init],
                container_statuses=[container.build_status() for container in self._containers],
                sidecar_names=frozenset(container.name for container in self._init if is_sidecar(container.spec)),
                stopped=self._stopped,
                end=self._end,
                disruption=self._disruption,
            )
        )

    def _event(self, kind: EventType, reason: str, message: str) -> None:
        self._node.events.record(self.pod, kind, reason, message)


def is_sidecar(container: Manifest) -> bool:
    return container.get("restartPolicy") == "Always"
