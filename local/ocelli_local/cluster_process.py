"""A cluster that runs in a process of its own, and finding a running one.

Owns starting `python -m ocelli_local up`, waiting until it is ready, and stopping it. Tests and the commands of
`ocelli-local` use a cluster this way: the process that uses it may block, or be killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.access import SyncClusterAccess
from ocelli_local.child_process import CLUSTER_MARKER, kill_leftovers
from ocelli_local.cluster import ClusterError, build_marker

START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class ClusterDescription:
    """What a runner writes about its cluster when it is ready."""

    runner: int
    server: str
    kubeconfig: Path
    kubectl: Path
    logs: Path
    components: dict[str, int]

    @classmethod
    def load(cls, state_dir: Path) -> ClusterDescription | None:
        """None if no cluster runs on this state folder, or if it is still starting."""
        if not is_locked(state_dir):
            return None
        try:
            raw = json.loads((state_dir / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        paths = {name: Path(raw[name]) for name in ("kubeconfig", "kubectl", "logs")}
        return cls(runner=raw["runner"], server=raw["server"], components=raw["components"], **paths)

    def open(self) -> SyncClusterAccess:
        return SyncClusterAccess(self.kubeconfig, kubectl=self.kubectl, folder=self.kubeconfig.parent)


def is_locked(state_dir: Path) -> bool:
    """Whether a runner uses the state folder."""
    try:
        with open(state_dir / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class ClusterProcess:
    """A runner and its cluster. With `follow_parent` it stops when this process ends, even if it is killed."""

    def __init__(self, state_dir: Path, arguments: Sequence[str] = (), *, follow_parent: bool = True) -> None:
        self.state_dir = state_dir.absolute()
        self._arguments = list(arguments)
        self._follow_parent = follow_parent
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> ClusterDescription:
        """Returns when the cluster is ready; raises ClusterError with the runner's last output if it does not start."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.state_dir / "logs").mkdir(exist_ok=True)
        # The description of a cluster that crashed is not the new one's.
        if not is_locked(self.state_dir):
            (self.state_dir / "cluster.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "ocelli_local", "up", "--state-dir", str(self.state_dir), *self._arguments]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [*argv, "--until-stdin-closes"] if self._follow_parent else argv,
                stdin=subprocess.PIPE if self._follow_parent else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C interrupts the process that uses the cluster, which then stops this one.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            description = ClusterDescription.load(self.state_dir)
            if description is not None and description.runner == self._process.pid:
                return description
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        last_output = self.log.read_text(errors="replace")[-4000:]
        self.stop()
        raise ClusterError(f"the cluster on {self.state_dir} did not start; the last lines of {self.log}:\n{last_output}")

    @property
    def log(self) -> Path:
        return self.state_dir / "logs" / "runner.log"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long; returns when the runner has ended."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The started runner."""
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL for the runner only, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def stop_running_cluster(state_dir: Path) -> bool:
    """Stop the cluster on the state folder, also one that another process started. False if none ran."""
    state_dir = state_dir.absolute()
    was_running = is_locked(state_dir)
    runner = read_runner(state_dir)
    if was_running and runner is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(runner, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while is_locked(state_dir) and time.monotonic() < deadline:
            time.sleep(0.05)
        if is_locked(state_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner, signal.SIGKILL)
    leftovers = kill_leftovers(f"{CLUSTER_MARKER}={build_marker(state_dir)}")
    return was_running or bool(leftovers)


def read_runner(state_dir: Path) -> int | None:
    """The process that uses the state folder, according to the lock file."""
    try:
        return int((state_dir / "lock").read_text())
    except (FileNotFoundError, ValueError):
        return None
