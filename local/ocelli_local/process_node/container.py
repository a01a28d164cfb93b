"""One container of a Pod: its state, its runs one after another, and their logs.

Owns when the container runs again, and its reported status. It must not know the Pod's phase or other containers.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

from ocelli_local.manifest import Manifest
from ocelli_local.process_node.backoff import RestartDelays
from ocelli_local.process_node.container_log import ContainerLog
from ocelli_local.process_node.container_run import ContainerRun
from ocelli_local.process_node.environment import ContainerConfigError
from ocelli_local.process_node.events import EventType
from ocelli_local.process_node.pod_objects import ObjectUnavailableError
from ocelli_local.process_node.run_setup import RunSetup, build_run_setup
from ocelli_local.process_node.services import PodServices
from ocelli_local.process_node.status import build_container_status, format_time

RETRY_SECONDS = 1.0
LOST_MESSAGE = "The container could not be located when the node started again"


class Container:
    """`restart_policy` is the container's own: Always, OnFailure or Never. `waits_for_init` is for its first state only."""

    def __init__(self, spec: Manifest, services: PodServices, *, restart_policy: str, waits_for_init: bool = False) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.restart_policy = restart_policy
        self.became_started = asyncio.Event()
        self._services = services
        self._state: Manifest = {"waiting": {"reason": "PodInitializing" if waits_for_init else "ContainerCreating"}}
        self._last_state: Manifest = {}
        self._restart_count = 0
        self._delays = RestartDelays(services.node.options.restart_backoff)
        self._run: ContainerRun | None = None
        self._logs: dict[int, ContainerLog] = {}
        self._stopping = asyncio.Event()
        self._ended_before = False

    @property
    def exit_code(self) -> int | None:
        """Of the run that just ended; None while waiting or running."""
        terminated = self._state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    @property
    def has_run(self) -> bool:
        return "waiting" not in self._state or bool(self._last_state)

    def build_status(self) -> Manifest:
        return build_container_status(
            self.spec,
            self._state,
            last_state=self._last_state,
            restart_count=self._restart_count,
            ready=self._run is not None and self._run.ready,
            started=self._run is not None and self._run.started,
        )

    def find_log(self, *, previous: bool) -> ContainerLog | None:
        """The log of the current (or last) run, or of the run before it; None if there was no such run."""
        number = self._restart_count - (1 if previous else 0)
        if number in self._logs:
            return self._logs[number]
        path = self._log_path(number)
        return ContainerLog.stored(path) if number >= 0 and path.exists() else None

    def restore(self, status: Manifest) -> bool:
        """Continue from the status reported before the node's restart. True if a running process was lost."""
        self._restart_count = status.get("restartCount", 0)
        self._last_state = status.get("lastState") or {}
        state = status["state"]
        if "terminated" in state:
            self._state = {"terminated": state["terminated"]}
        elif "running" in state:
            self._state = {
                "terminated": {
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": LOST_MESSAGE,
                    "startedAt": state["running"].get("startedAt"),
                    "finishedAt": format_time(datetime.now(UTC)),
                    "containerID": status.get("containerID", ""),
                }
            }
        # Otherwise it never ran, or waits for its next run.
        self._ended_before = "terminated" in self._state
        return "running" in state

    def wait_with(self, reason: str, message: str = "") -> None:
        """Report why the container does not run yet."""
        waiting = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        if self._state != waiting:
            self._set_state(waiting)

    async def run(self) -> None:
        """Returns when the container will not run again."""
        delay = 0.0
        ran_before = self._ended_before
        while not self._stopping.is_set():
            if ran_before:
                if not self._restarts():
                    return
                self._last_state = self._state
                if delay > 0:
                    self._wait_in_backoff(delay)
                    if await self._stopping_within(delay):
                        return
                # The count belongs to runs: it rises when the next one starts.
                self._restart_count += 1
            began = time.monotonic()
            if not await self._run_once():
                return
            delay = self._delays.next_delay(ran_for_seconds=time.monotonic() - began)
            ran_before = True

    async def stop(self, *, grace_seconds: float, hook: bool = True) -> None:
        """End the container for good; returns when its process has ended."""
        self._stopping.set()
        if self._run is not None:
            await self._run.stop(grace_seconds=grace_seconds, hook=hook)

    def kill(self) -> None:
        """End immediately; `stop` returns then."""
        self._stopping.set()
        if self._run is not None:
            self._run.kill()

    def _restarts(self) -> bool:
        return self.restart_policy == "Always" or (self.restart_policy == "OnFailure" and self.exit_code != 0)

    def _wait_in_backoff(self, delay: float) -> None:
        metadata = self._services.pod["metadata"]
        message = (
            f"back-off {delay:g}s restarting failed container={self.name} "
            f"pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        )
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {metadata['name']}")
        self._set_state({"waiting": {"reason": "CrashLoopBackOff", "message": message}})

    async def _stopping_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _run_once(self) -> bool:
        """One run, from its setup to its exit code. False if the container was stopped before it started."""
        setup = await self._prepare()
        if setup is None or self._stopping.is_set():
            return False
        problem = setup.find_problem()
        if problem is not None:
            terminated = {
                "exitCode": 128,
                "reason": "StartError",
                "message": problem,
                "startedAt": format_time(datetime.now(UTC)),
            }
            self._event("Warning", "Failed", f"Error: {problem}")
            self._terminate(terminated)
            return True
        run = self._run = ContainerRun(self._services, setup, self._open_log(), self._on_run_change)
        try:
            await run.begin()
            self._event("Normal", "Started", f"Started container {self.name}")
            self._set_state({"running": {"startedAt": format_time(run.started_at)}})
            run.watch()
            self._terminate(await run.wait())
        finally:
            run.close()
            self._run = None
        return True

    async def _prepare(self) -> RunSetup | None:
        while not self._stopping.is_set():
            try:
                return await build_run_setup(self.spec, self._services, self._restart_count)
            except (ContainerConfigError, ObjectUnavailableError) as error:
                self.wait_with("CreateContainerConfigError", str(error))
                self._event("Warning", "Failed", f"Error: {error}")
            if await self._stopping_within(RETRY_SECONDS):
                return None
        return None

    def _open_log(self) -> ContainerLog:
        log = self._logs[self._restart_count] = ContainerLog(self._log_path(self._restart_count))
        # As on a kubelet: the logs of the current run and of the run before it.
        for number in [number for number in self._logs if number < self._restart_count - 1]:
            self._logs.pop(number).delete()
        return log

    def _log_path(self, number: int) -> Path:
        return self._services.log_folder / self.name / f"{number}.log"

    def _on_run_change(self) -> None:
        if self._run is not None and self._run.started:
            self.became_started.set()
        self._services.on_change()

    def _terminate(self, terminated: Manifest) -> None:
        uid = self._services.pod["metadata"]["uid"]
        self._set_state(
            {
                "terminated": {
                    **terminated,
                    "finishedAt": format_time(datetime.now(UTC)),
                    "containerID": f"process://{uid}-{self.name}-{self._restart_count}",
                }
            }
        )

    def _set_state(self, state: Manifest) -> None:
        self._state = state
        self._services.on_change()

    def _event(self, kind: EventType, reason: str, message: str) -> None:
        self._services.record_event(kind, reason, message, container=self.name)
