"""One container of a Pod: its runs one after the other, its probes, hooks and state.

Owns when a process is started, asked to end, killed and started again, and what is reported of it. It must not know of
its Pod's phase or of other containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ocelli_local.child_process import ChildProcess, Command
from ocelli_local.kubeconfig import ApiAddress, Credentials, build_kubeconfig, save_kubeconfig
from ocelli_local.manifests import Manifest, format_time
from ocelli_local.process_node.backoff import RestartBackoff, RestartDelays
from ocelli_local.process_node.container_log import ContainerLog, read_last_text
from ocelli_local.process_node.environment import (
    ContainerConfigError,
    ContainerPaths,
    EnvironmentInput,
    PathTranslation,
    PodNetwork,
    ProcessArguments,
    build_process_arguments,
    referenced_objects,
)
from ocelli_local.process_node.events import EventRecorder, EventType
from ocelli_local.process_node.memory import MemoryLimit, MemoryWatch
from ocelli_local.process_node.pod_objects import ObjectUnavailableError, PodObjects
from ocelli_local.process_node.probes import ProbeResult, ProbeTarget, run_action, watch_probe
from ocelli_local.process_node.process_wrapper import ProcessWrapper
from ocelli_local.process_node.quantities import parse_quantity
from ocelli_local.process_node.status import build_container_status
from ocelli_local.process_node.volumes import PodVolumes, read_named_objects

logger = logging.getLogger(__name__)
TERMINATION_MESSAGE_LIMIT_BYTES = 4096
TERMINATION_LOG_LIMIT_BYTES = 2048
TERMINATION_LOG_LIMIT_LINES = 80
PATH_AFTER_INTERPRETER = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RETRY_SECONDS = 1.0
# What the kubelet leaves a container after its preStop hook took all of the grace period.
LEAST_GRACE_SECONDS = 2.0
HOOK_TIMEOUT_SECONDS = 600.0
DRAIN_SECONDS = 0.5
LOST_MESSAGE = "The container could not be located when the node started again"


@dataclass(frozen=True, kw_only=True)
class NodeServices:
    """What a node offers every container."""

    wrapper: ProcessWrapper
    memory: MemoryWatch
    events: EventRecorder
    api_address: ApiAddress
    allocatable: Mapping[str, str]
    container_env: Mapping[str, str]
    marker: tuple[str, str]
    restart_backoff: RestartBackoff


@dataclass(frozen=True, kw_only=True)
class PodServices:
    """What a Pod offers each of its containers."""

    node: NodeServices
    pod: Manifest
    network: PodNetwork
    volumes: PodVolumes
    objects: PodObjects
    folder: Path
    log_folder: Path
    on_change: Callable[[], None]


@dataclass(kw_only=True)
class Run:
    """One process of a container."""

    process: ChildProcess
    arguments: ProcessArguments
    folder: Path
    log: ContainerLog
    output: OutputReader
    termination_file: Path
    started_at: datetime
    probes: list[asyncio.Task[None]] = field(default_factory=list)
    termination: asyncio.Task[None] | None = None
    memory_exceeded: bool = False


class Container:
    """`restart_policy` is the container's own: Always, OnFailure or Never. `waits_for_init` only words the first state."""

    def __init__(self, spec: Manifest, services: PodServices, *, restart_policy: str, waits_for_init: bool = False) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.restart_policy = restart_policy
        self.became_started = asyncio.Event()
        self._services = services
        self._state: Manifest = {"waiting": {"reason": "PodInitializing" if waits_for_init else "ContainerCreating"}}
        self._last_state: Manifest = {}
        self._restart_count = 0
        self._ready = False
        self._started: bool | None = False
        self._delays = RestartDelays(services.node.restart_backoff)
        self._run: Run | None = None
        self._logs: dict[int, ContainerLog] = {}
        self._stopping = asyncio.Event()
        self._ended_before = False

    # --- what others ask

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
            ready=self._ready,
            started=self._started,
        )

    def find_log(self, *, previous: bool) -> ContainerLog | None:
        """The log of the current (or last) run, or of the one before it; None if there is no such run."""
        number = self._restart_count - (1 if previous else 0)
        if number in self._logs:
            return self._logs[number]
        path = self._log_path(number)
        return ContainerLog.stored(path) if number >= 0 and path.exists() else None

    def restore(self, status: Manifest) -> bool:
        """Go on from what was reported before the node's restart. True if a running process was lost."""
        self._restart_count = status.get("restartCount", 0)
        self._last_state = status.get("lastState") or {}
        if "terminated" in status["state"]:
            self._state = {"terminated": status["state"]["terminated"]}
            self._ended_before = True
            return False
        if "running" not in status["state"]:
            # It never ran, or waits for its next run.
            return False
        self._state = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": LOST_MESSAGE,
                "startedAt": status["state"]["running"].get("startedAt"),
                "finishedAt": format_time(datetime.now(UTC)),
                "containerID": status.get("containerID", ""),
            }
        }
        self._ended_before = True
        return True

    def wait_with(self, reason: str, message: str = "") -> None:
        """Report why the container does not run yet."""
        waiting = {"reason": reason, **({"message": message} if message else {})}
        if self._state.get("waiting") != waiting:
            self._state = {"waiting": waiting}
            self._services.on_change()

    # --- running

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

    async def stop(self, *, grace_seconds: float) -> None:
        """End the container for good; returns when its process is gone."""
        self._stopping.set()
        if self._run is not None:
            run = self._run
            await self._terminate(run, grace_seconds)
            await run.process.wait()

    def kill(self) -> None:
        """End at once; what `stop` waits for happens then."""
        self._stopping.set()
        if self._run is not None:
            self._run.process.kill_session()

    def _restarts(self) -> bool:
        if self._stopping.is_set():
            return False
        return self.restart_policy == "Always" or (self.restart_policy == "OnFailure" and self.exit_code != 0)

    def _wait_in_backoff(self, delay: float) -> None:
        metadata = self._services.pod["metadata"]
        message = (
            f"back-off {delay:g}s restarting failed container={self.name} "
            f"pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        )
        self._state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {metadata['name']}")
        self._services.on_change()

    async def _stopping_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _run_once(self) -> bool:
        """One run, from environment to exit code. False if there was none, because the container is to stop."""
        arguments = await self._prepare_arguments()
        if arguments is None or self._stopping.is_set():
            return False
        termination_file = self._termination_file()
        problem = find_start_problem(arguments, self._working_folder())
        if problem is not None:
            self._finish_without_process(problem)
            return True
        run = self._start_process(arguments, termination_file)
        self._run = run
        try:
            await self._attend(run)
        finally:
            # On every way out, an error's or a cancellation's too, nothing of the run stays.
            run.process.kill_session()
            self._services.node.memory.remove(run.process.pid)
            for probe in run.probes:
                probe.cancel()
            if run.termination is not None:
                run.termination.cancel()
            run.output.close()
            run.log.close()
            self._run = None
        return True

    async def _prepare_arguments(self) -> ProcessArguments | None:
        while not self._stopping.is_set():
            try:
                return await self._build_arguments()
            except (ContainerConfigError, ObjectUnavailableError) as error:
                self.wait_with("CreateContainerConfigError", str(error))
                self._event("Warning", "Failed", f"Error: {error}")
            if await self._stopping_within(RETRY_SECONDS):
                return None
        return None

    async def _build_arguments(self) -> ProcessArguments:
        services = self._services
        config_maps, secrets = referenced_objects([self.spec])
        objects = await read_named_objects(services.objects, list(config_maps), list(secrets))
        services.volumes.make_sub_paths(self.spec)
        return build_process_arguments(
            EnvironmentInput(
                pod=services.pod,
                container=self.spec,
                network=services.network,
                objects=objects,
                paths=self._paths(),
                allocatable=services.node.allocatable,
                defaults=self._default_environment(),
            )
        )

    def _paths(self) -> ContainerPaths:
        volumes = self._services.volumes
        mounted = {mount["name"] for mount in self.spec.get("volumeMounts", [])}
        return ContainerPaths(
            mounts=volumes.mounts(self.spec),
            volumes={name: path for name, path in volumes.paths.items() if name in mounted},
            termination_message=self._termination_file(),
        )

    def _default_environment(self) -> dict[str, str]:
        node = self._services.node
        home, temporary = self._folder() / "home", self._folder() / "tmp"
        for folder in (home, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        mounts_tmp = any(mount["mountPath"].rstrip("/") == "/tmp" for mount in self.spec.get("volumeMounts", []))
        env = {
            "PATH": f"{os.path.dirname(sys.executable)}:{PATH_AFTER_INTERPRETER}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            # A translated path where the Pod has a volume there.
            "TMPDIR": "/tmp" if mounts_tmp else str(temporary),
            "HOSTNAME": self._services.pod["spec"].get("hostname") or self._services.pod["metadata"]["name"],
            **node.container_env,
            node.marker[0]: node.marker[1],
        }
        token_file = self._services.volumes.token_file(self.spec)
        if token_file is not None:
            env["KUBECONFIG"] = str(self._save_kubeconfig(token_file))
        return env

    def _save_kubeconfig(self, token_file: Path) -> Path:
        return save_kubeconfig(
            self._folder() / "kubeconfig",
            build_kubeconfig(
                self._services.node.api_address,
                Credentials(token_file=token_file),
                namespace=self._services.pod["metadata"]["namespace"],
            ),
        )

    def _folder(self) -> Path:
        return self._services.folder / "containers" / self.name

    def _termination_file(self) -> Path:
        return self._folder() / f"termination-log-{self._restart_count}"

    def _log_path(self, number: int) -> Path:
        return self._services.log_folder / self.name / f"{number}.log"

    def _working_folder(self) -> Path:
        asked = self.spec.get("workingDir")
        if not asked:
            return self._folder() / "home"
        return Path(PathTranslation.for_container(self.spec, self._paths()).translate(asked))

    def _start_process(self, arguments: ProcessArguments, termination_file: Path) -> Run:
        termination_file.write_bytes(b"")
        log = ContainerLog(self._log_path(self._restart_count))
        self._logs[self._restart_count] = log
        # As on a kubelet: the logs of the current run and of the one before.
        for number in [number for number in self._logs if number < self._restart_count - 1]:
            self._logs.pop(number).delete()
        folder = self._working_folder()
        output = OutputReader(log.write)
        return Run(
            process=self._start_captured(arguments.argv, arguments.env, folder, output),
            arguments=arguments,
            folder=folder,
            log=log,
            output=output,
            termination_file=termination_file,
            started_at=datetime.now(UTC),
        )

    def _start_captured(self, argv: Sequence[str], env: Mapping[str, str], folder: Path, output: OutputReader) -> ChildProcess:
        """Start a wrapped command whose output goes to the reader; raises OSError where it can't be started."""
        reading, writing = os.pipe()
        try:
            process = ChildProcess.start(
                Command(argv=self._services.node.wrapper.wrap(argv), env=env, folder=folder, stdout=writing, stderr=writing)
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        output.start(reading)
        return process

    async def _attend(self, run: Run) -> None:
        """From the started process to its reported end."""
        self._limit_memory(run)
        post_start = self.spec.get("lifecycle", {}).get("postStart")
        if post_start is not None and not await self._run_post_start(run, post_start):
            self._terminate_in_background(run, self._grace_seconds())
        self._state = {"running": {"startedAt": format_time(run.started_at)}}
        self._event("Normal", "Started", f"Started container {self.name}")
        if "startupProbe" in self.spec:
            run.probes.append(asyncio.create_task(self._watch_startup(run)))
        else:
            self._become_started(run)
        self._services.on_change()
        code = await run.process.wait()
        await run.output.drain()
        run.log.close()
        self._ready, self._started = False, False
        self._state = {"terminated": self._build_terminated(run, code)}
        self._services.on_change()

    def _build_terminated(self, run: Run, code: int) -> Manifest:
        reason = "OOMKilled" if run.memory_exceeded else "Completed" if code == 0 else "Error"
        terminated = {
            "exitCode": 137 if run.memory_exceeded else code,
            "reason": reason,
            "startedAt": format_time(run.started_at),
            "finishedAt": format_time(datetime.now(UTC)),
            "containerID": f"process://{self._services.pod['metadata']['uid']}-{self.name}-{self._restart_count}",
        }
        message = self._read_termination_message(run, failed=code != 0)
        return {**terminated, "message": message} if message else terminated

    def _read_termination_message(self, run: Run, *, failed: bool) -> str:
        try:
            with open(run.termination_file, "rb") as file:
                message = file.read(TERMINATION_MESSAGE_LIMIT_BYTES).decode(errors="replace")
        except OSError:
            message = ""
        if not message and failed and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return read_last_text(
                run.log.path, limit_bytes=TERMINATION_LOG_LIMIT_BYTES, limit_lines=TERMINATION_LOG_LIMIT_LINES
            )
        return message

    def _finish_without_process(self, problem: str) -> None:
        now = format_time(datetime.now(UTC))
        self._state = {
            "terminated": {
                "exitCode": 128,
                "reason": "StartError",
                "message": problem,
                "startedAt": now,
                "finishedAt": now,
                "containerID": f"process://{self._services.pod['metadata']['uid']}-{self.name}-{self._restart_count}",
            }
        }
        self._event("Warning", "Failed", f"Error: {problem}")
        self._services.on_change()

    def _limit_memory(self, run: Run) -> None:
        limit = self.spec.get("resources", {}).get("limits", {}).get("memory")
        if limit is None:
            return
        limit_bytes = int(parse_quantity(limit))

        def on_exceeded(used: int) -> None:
            run.memory_exceeded = True
            message = f"container {self.name} used {used >> 20} MiB, its limit is {limit_bytes >> 20} MiB; raise it"
            self._event("Warning", "OOMKilling", message)
            run.process.kill_session()

        self._services.node.memory.add(MemoryLimit(pid=run.process.pid, limit_bytes=limit_bytes, on_exceeded=on_exceeded))

    # --- ending

    def _grace_seconds(self) -> float:
        return float(self._services.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _terminate_in_background(self, run: Run, grace_seconds: float) -> None:
        if run.termination is None:
            run.termination = asyncio.create_task(self._terminate(run, grace_seconds))

    async def _terminate(self, run: Run, grace_seconds: float) -> None:
        """preStop, SIGTERM, and SIGKILL when the grace period is over."""
        deadline = time.monotonic() + grace_seconds
        pre_stop = self.spec.get("lifecycle", {}).get("preStop")
        if pre_stop is not None and grace_seconds > 0 and run.process.running:
            hook = asyncio.create_task(run_action(pre_stop, self._probe_target(run), timeout_seconds=grace_seconds))
            ended = asyncio.create_task(run.process.wait())
            await asyncio.wait([hook, ended], return_when=asyncio.FIRST_COMPLETED)
            if hook.done() and not hook.result().success:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {hook.result().message}")
            hook.cancel()
            ended.cancel()
            deadline = max(deadline, time.monotonic() + LEAST_GRACE_SECONDS)
        if grace_seconds > 0 and run.process.running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._signal_main_process(run)
                    await run.process.wait()
        run.process.kill_session()

    async def _signal_main_process(self, run: Run) -> None:
        name = self.spec.get("lifecycle", {}).get("stopSignal", "SIGTERM")
        number = getattr(signal, name, signal.SIGTERM)
        # In its first milliseconds the wrapper has not started the command yet.
        while (main := self._services.node.wrapper.main_process(run.process.pid)) is None:
            if not run.process.running:
                return
            await asyncio.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, number)

    # --- probes and hooks

    async def _run_post_start(self, run: Run, hook: Manifest) -> bool:
        action = asyncio.create_task(run_action(hook, self._probe_target(run), timeout_seconds=HOOK_TIMEOUT_SECONDS))
        ended = asyncio.create_task(run.process.wait())
        await asyncio.wait([action, ended], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not action.done():
            action.cancel()
            return True
        if not action.result().success:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {action.result().message}")
        return action.result().success

    def _become_started(self, run: Run) -> None:
        self._started = True
        self.became_started.set()
        if "readinessProbe" in self.spec:
            run.probes.append(asyncio.create_task(self._watch_readiness(run)))
        else:
            self._ready = True
        if "livenessProbe" in self.spec:
            run.probes.append(asyncio.create_task(self._watch_liveness(run)))
        self._services.on_change()

    async def _watch_startup(self, run: Run) -> None:
        probe = self.spec["startupProbe"]

        async def on_result(verdict: bool | None, result: ProbeResult) -> bool:
            if not result.success:
                self._event("Warning", "Unhealthy", f"Startup probe failed: {result.message}")
            if verdict:
                self._become_started(run)
            elif verdict is False:
                self._restart_unhealthy(run, probe, "startup")
            return verdict is None

        await watch_probe(probe, self._probe_target(run), on_result)

    async def _watch_readiness(self, run: Run) -> None:
        async def on_result(verdict: bool | None, result: ProbeResult) -> bool:
            if not result.success:
                self._event("Warning", "Unhealthy", f"Readiness probe failed: {result.message}")
            if verdict is not None and verdict != self._ready and run.process.running:
                self._ready = verdict
                self._services.on_change()
            return True

        await watch_probe(self.spec["readinessProbe"], self._probe_target(run), on_result)

    async def _watch_liveness(self, run: Run) -> None:
        probe = self.spec["livenessProbe"]

        async def on_result(verdict: bool | None, result: ProbeResult) -> bool:
            if self._stopping.is_set():
                return False
            if not result.success:
                self._event("Warning", "Unhealthy", f"Liveness probe failed: {result.message}")
            if verdict is False:
                self._restart_unhealthy(run, probe, "liveness")
            return verdict is not False

        await watch_probe(probe, self._probe_target(run), on_result)

    def _restart_unhealthy(self, run: Run, probe: Manifest, kind: str) -> None:
        if self._stopping.is_set():
            return
        self._event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
        self._terminate_in_background(run, probe.get("terminationGracePeriodSeconds", self._grace_seconds()))

    def _probe_target(self, run: Run) -> ProbeTarget:
        async def run_command(argv: Sequence[str], timeout_seconds: float) -> tuple[int, str]:
            return await self._run_beside(run, argv)

        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports", []) if "name" in port}
        return ProbeTarget(address=self._services.network.pod_address, ports=ports, run_command=run_command)

    async def _run_beside(self, run: Run, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command with the container's environment; its exit code and output. Killed if cancelled."""
        translation = PathTranslation.for_container(self.spec, self._paths())
        said = bytearray()
        output = OutputReader(said.extend)
        process = self._start_captured([translation.translate(word) for word in argv], run.arguments.env, run.folder, output)
        try:
            code = await process.wait()
            await output.drain()
            return code, bytes(said[:1000]).decode(errors="replace").strip()
        finally:
            process.kill_session()
            output.close()

    def _event(self, kind: EventType, reason: str, message: str) -> None:
        self._services.node.events.record(self._services.pod, kind, reason, message, container=self.name)


class OutputReader(asyncio.Protocol):
    """Hands what comes out of a pipe to `take`, until the last writer closed it or `close` is called."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._connecting: asyncio.Task[object] | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._ended = asyncio.get_running_loop().create_future()

    def start(self, descriptor: int) -> None:
        """Read from the pipe, and close it in the end."""
        connect = asyncio.get_running_loop().connect_read_pipe(lambda: self, os.fdopen(descriptor, "rb"))
        self._connecting = asyncio.create_task(connect)

    async def drain(self) -> None:
        """Returns when everything was read, and soon in any case: a grandchild may keep the pipe open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), DRAIN_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._ended.done():
            transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._ended.done():
            self._take(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def close(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        if self._transport is not None:
            self._transport.close()


def find_start_problem(arguments: ProcessArguments, folder: Path) -> str | None:
    """Why the command can't be started: a sentence, or None."""
    if not folder.is_dir():
        return f"workingDir {folder} does not exist on this machine; make it, or leave workingDir out"
    program = arguments.argv[0]
    found = shutil.which(folder / program if "/" in program else program, path=arguments.env.get("PATH", ""))
    if found is None:
        return f'exec: "{program}": executable file not found in $PATH of this machine; install it or correct command'
    return None
