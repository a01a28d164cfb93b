"""A cluster run by a process of its own, and finding one that already runs.

Owns starting `python -m ocelli_local up`, waiting until it is usable, and stopping it. Tests and `ocelli-local`
commands use a cluster this way: the process that uses it may block, or be killed, without harm.
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
    """What a runner writes down about its cluster once it is usable."""

    runner: int
    server: str
    kubeconfig: Path
    kubectl: Path
    logs: Path
    components: dict[str, int]

    @classmethod
    def load(cls, state_dir: Path) -> ClusterDescription | None:
        """None if no cluster runs on this state folder (or is still starting)."""
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
    """Whether a runner holds the state folder."""
    try:
        with open(state_dir / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class ClusterProcess:
    """A runner and its cluster. With `follow_parent` it stops when this process ends, whatever ends it."""

    def __init__(self, state_dir: Path, arguments: Sequence[str] = (), *, follow_parent: bool = True) -> None:
        self.state_dir = state_dir.absolute()
        self._arguments = list(arguments)
        self._follow_parent = follow_parent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> ClusterDescription:
        """Returns when the cluster is usable; raises ClusterError with the runner's last words if it does not come up."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.state_dir / "logs").mkdir(exist_ok=True)
        # A description of before a crash must not be taken for this start's.
        if not is_locked(self.state_dir):
            (self.state_dir / "cluster.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "ocelli_local", "up", "--state-dir", str(self.state_dir), *self._arguments]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [*argv, "--until-stdin-closes"] if self._follow_parent else argv,
                stdin=subprocess.PIPE if self._follow_parent else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the process that uses the cluster, which then stops this one.
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
        last_words = self.log.read_text(errors="replace")[-4000:]
        self.stop()
        raise ClusterError(f"the cluster on {self.state_dir} did not come up; the runner said:\n{last_words}")

    @property
    def log(self) -> Path:
        return self.state_dir / "logs" / "runner.log"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long; returns when the runner is gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, *, timeout_seconds: float) -> int:
        """The runner's exit code; raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    def let_go(self) -> None:
        """Close what ties the runner to this process, as this process's end would."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """SIGKILL for the runner alone, as an accident would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def stop_running_cluster(state_dir: Path) -> bool:
    """Stop whatever runs on the state folder, by whomever it was started. False if nothing ran."""
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
    """The process that holds the state folder, as it noted itself in the lock file."""
    try:
        return int((state_dir / "lock").read_text())
    except (FileNotFoundError, ValueError):
        return None
