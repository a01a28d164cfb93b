"""One operating system process that the runner started.

Owns starting a process that ends with the runner, waiting for its end without a thread, and signals. It must not know
Kubernetes, containers, or the purpose of the process.

Two mechanisms ensure that no process outlives the runner. The kernel sends SIGKILL to each direct child when the *thread*
that started it ends (`setpriv --pdeathsig`), so processes are started on the event loop's thread, never in an executor.
And each child has `CLUSTER_MARKER` in its environment, so that `kill_leftovers` finds the remaining processes when the next
runner starts on the same state folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CLUSTER_MARKER = "OCELLI_LOCAL_CLUSTER"


class ChildProcess:
    """A started process. Any number of tasks may await `wait`, at any time."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = popen.pid
        self._popen = popen
        self._exit_code: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    def start(cls, argv: Sequence[str], *, env: Mapping[str, str], folder: Path, output: int) -> ChildProcess:
        """Start a process in a session of its own, with exactly this environment, in `folder`.

        `output` is the file descriptor of its standard output and standard error. Raises OSError if it can't be started.
        """
        setpriv = shutil.which("setpriv")
        dies_with_runner = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        return cls(
            subprocess.Popen(
                [*dies_with_runner, *argv],
                env=dict(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        )

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._popen.wait()
        if not self._exit_code.done():
            self._exit_code.set_result(code if code >= 0 else 128 - code)

    @property
    def running(self) -> bool:
        return not self._exit_code.done()

    async def wait(self) -> int:
        """The exit code; 128 + N if signal N ended the process."""
        return await asyncio.shield(self._exit_code)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process itself; it is not an error if it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_session(self) -> None:
        """SIGKILL for the process and its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, grace_seconds: float) -> int:
        """SIGTERM, then SIGKILL after `grace_seconds`; returns the exit code."""
        self.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace_seconds)
        except TimeoutError:
            self.kill_session()
            return await self.wait()


def find_marked_processes(marker: str) -> list[int]:
    """Process ids of all readable processes with `marker` (NAME=VALUE) in their environment."""
    wanted = marker.encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/environ", "rb") as environ:
                variables = environ.read().split(b"\0")
        except OSError:
            continue
        if wanted in variables and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def kill_leftovers(marker: str, *, timeout_seconds: float = 5.0) -> list[int]:
    """Kill the processes that an earlier runner of the same cluster left, and wait for their end; returns their ids."""
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_seconds
    while leftovers := find_marked_processes(marker):
        killed.update(leftovers)
        for pid in leftovers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        # Their ports are free only after their end.
        time.sleep(0.01)
    return sorted(killed)
