"""One run of a container: its process, probes, hooks and end.

Owns how a process is started, attended, asked to stop and killed. It must not know whether the container runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from ocelli_local.manifest import Manifest
from ocelli_local.process_node.container_log import ContainerLog, read_last_text
from ocelli_local.process_node.events import EventType
from ocelli_local.process_node.memory import MemoryLimit
from ocelli_local.process_node.output import OutputReader
from ocelli_local.process_node.probes import ProbeTarget, run_action, watch_probe
from ocelli_local.process_node.quantities import parse_quantity
from ocelli_local.process_node.run_setup import RunSetup
from ocelli_local.process_node.services import PodServices
from ocelli_local.process_node.status import format_time

TERMINATION_MESSAGE_LIMIT_BYTES = 4096
TERMINATION_LOG_LIMIT_BYTES = 2048
TERMINATION_LOG_LIMIT_LINES = 80
COMMAND_OUTPUT_LIMIT_BYTES = 1000
# The time that the kubelet gives a container whose preStop hook took all of the grace period.
LEAST_GRACE_SECONDS = 2.0
HOOK_TIMEOUT_SECONDS = 600.0


class ContainerRun:
    """Starts the process. Call `begin`, `watch`, `wait`, and always `close`.

    `on_change` is called when `ready` or `started` changes.
    """

    def __init__(self, services: PodServices, setup: RunSetup, log: ContainerLog, on_change: Callable[[], None]) -> None:
        self.ready = False
        self.started = False
        self.started_at = datetime.now(UTC)
        self._spec = setup.container
        self._services = services
        self._setup = setup
        self._log = log
        self._on_change = on_change
        self._stopping = False
        self._memory_exceeded = False
        self._probes: list[asyncio.Task[None]] = []
        self._termination: asyncio.Task[None] | None = None
        setup.termination_file.write_bytes(b"")
        ports = {port["name"]: port["containerPort"] for port in self._spec.get("ports", []) if "name" in port}
        self._target = ProbeTarget(address=services.network.pod_address, ports=ports, run_command=self._run_command)
        self._output = OutputReader(log.write)
        arguments = setup.arguments
        self._process = self._output.start_process(
            services.node.wrapper.wrap(arguments.argv), arguments.env, setup.working_folder
        )

    async def begin(self) -> None:
        """Limit the memory and run the postStart hook."""
        self._limit_memory()
        if not await self._run_hook("postStart", HOOK_TIMEOUT_SECONDS):
            self._terminate_in_background(self._grace_seconds())

    def watch(self) -> None:
        """Start the probes."""
        if "startupProbe" in self._spec:
            self._probes.append(asyncio.create_task(self._watch("startup")))
        else:
            self._become_started()

    async def wait(self) -> Manifest:
        """The fields of the `terminated` state, when the process has ended."""
        code = await self._process.wait()
        await self._output.drain()
        self._log.close()
        self.ready = self.started = False
        terminated = {
            "exitCode": 137 if self._memory_exceeded else code,
            "reason": "OOMKilled" if self._memory_exceeded else "Completed" if code == 0 else "Error",
            "startedAt": format_time(self.started_at),
        }
        message = self._read_termination_message(failed=code != 0)
        return {**terminated, "message": message} if message else terminated

    async def stop(self, *, grace_seconds: float, hook: bool = True) -> None:
        """Returns when the process has ended. `hook`: whether a preStop hook runs first."""
        self._stopping = True
        await self._terminate(grace_seconds, hook=hook)
        await self._process.wait()

    def kill(self) -> None:
        self._stopping = True
        self._process.kill_session()

    def close(self) -> None:
        """Leave nothing of the run, also after an error or a cancellation."""
        self._process.kill_session()
        self._services.node.memory.remove(self._process.pid)
        for task in (*self._probes, self._termination):
            if task is not None:
                task.cancel()
        self._output.close()
        self._log.close()

    def _read_termination_message(self, *, failed: bool) -> str:
        try:
            with open(self._setup.termination_file, "rb") as file:
                message = file.read(TERMINATION_MESSAGE_LIMIT_BYTES).decode(errors="replace")
        except OSError:
            message = ""
        if not message and failed and self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return read_last_text(
                self._log.path, limit_bytes=TERMINATION_LOG_LIMIT_BYTES, limit_lines=TERMINATION_LOG_LIMIT_LINES
            )
        return message

    def _limit_memory(self) -> None:
        limit = self._spec.get("resources", {}).get("limits", {}).get("memory")
        if limit is None:
            return
        limit_bytes = int(parse_quantity(limit))

        def on_exceeded(used: int) -> None:
            self._memory_exceeded = True
            message = (
                f"container {self._spec['name']} used {used >> 20} MiB, its memory limit is {limit_bytes >> 20} MiB; "
                "raise the limit"
            )
            self._event("Warning", "OOMKilling", message)
            self._process.kill_session()

        self._services.node.memory.add(MemoryLimit(pid=self._process.pid, limit_bytes=limit_bytes, on_exceeded=on_exceeded))

    # --- ending

    def _grace_seconds(self) -> float:
        return float(self._services.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _terminate_in_background(self, grace_seconds: float) -> None:
        if self._termination is None:
            self._termination = asyncio.create_task(self._terminate(grace_seconds))

    async def _terminate(self, grace_seconds: float, *, hook: bool = True) -> None:
        """Run preStop, send SIGTERM, and SIGKILL at the end of the grace period."""
        deadline = time.monotonic() + grace_seconds
        if hook and "preStop" in self._spec.get("lifecycle", {}) and grace_seconds > 0 and self._process.running:
            await self._run_hook("preStop", grace_seconds)
            deadline = max(deadline, time.monotonic() + LEAST_GRACE_SECONDS)
        if grace_seconds > 0 and self._process.running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._signal_main_process()
                    await self._process.wait()
        self._process.kill_session()

    async def _signal_main_process(self) -> None:
        name = self._spec.get("lifecycle", {}).get("stopSignal", "SIGTERM")
        # In its first milliseconds, the wrapper has not started the command yet.
        while (main := self._services.node.wrapper.main_process(self._process.pid)) is None:
            if not self._process.running:
                return
            await asyncio.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, getattr(signal, name, signal.SIGTERM))

    # --- hooks and probes

    async def _run_hook(self, name: Literal["postStart", "preStop"], timeout_seconds: float) -> bool:
        """False if the hook failed. It ends when the process does."""
        hook = self._spec.get("lifecycle", {}).get(name)
        if hook is None:
            return True
        action = asyncio.create_task(run_action(hook, self._target, timeout_seconds=timeout_seconds))
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait([action, ended], return_when=asyncio.FIRST_COMPLETED)
            if not action.done() or action.result().success:
                return True
        finally:
            action.cancel()
            ended.cancel()
        title = f"{name[0].upper()}{name[1:]}Hook"
        self._event("Warning", f"Failed{title}", f"{title} failed: {action.result().message}")
        return False

    def _become_started(self) -> None:
        self.started = True
        if "readinessProbe" in self._spec:
            self._probes.append(asyncio.create_task(self._watch("readiness")))
        else:
            self.ready = True
        if "livenessProbe" in self._spec:
            self._probes.append(asyncio.create_task(self._watch("liveness")))
        self._on_change()

    async def _watch(self, kind: Literal["startup", "readiness", "liveness"]) -> None:
        probe = self._spec[f"{kind}Probe"]
        # The shortest period of a probe is a second: a user who waits for a server would notice it.
        async for verdict, result in watch_probe(probe, self._target, eager=kind == "startup"):
            if kind == "liveness" and self._stopping:
                return
            if not result.success:
                self._event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {result.message}")
            if kind == "readiness":
                if verdict is not None and verdict != self.ready and self._process.running:
                    self.ready = verdict
                    self._on_change()
            elif verdict is False:
                self._restart_unhealthy(probe, kind)
                return
            elif verdict and kind == "startup":
                self._become_started()
                return

    def _restart_unhealthy(self, probe: Manifest, kind: str) -> None:
        if not self._stopping:
            self._event("Normal", "Killing", f"Container {self._spec['name']} failed {kind} probe, will be restarted")
            self._terminate_in_background(probe.get("terminationGracePeriodSeconds", self._grace_seconds()))

    async def _run_command(self, argv: Sequence[str]) -> tuple[int, str]:
        """Run another command with the container's environment; its exit code and output. Killed if cancelled."""
        words = [self._setup.translation.translate(word) for word in argv]
        content = bytearray()
        output = OutputReader(content.extend)
        process = output.start_process(
            self._services.node.wrapper.wrap(words), self._setup.arguments.env, self._setup.working_folder
        )
        try:
            code = await process.wait()
            await output.drain()
            return code, bytes(content[:COMMAND_OUTPUT_LIMIT_BYTES]).decode(errors="replace").strip()
        finally:
            process.kill_session()
            output.close()

    def _event(self, kind: EventType, reason: str, message: str) -> None:
        self._services.record_event(kind, reason, message, container=self._spec["name"])
