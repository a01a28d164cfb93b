"""Instances of `make run`: starting and stopping them, and access by REST and kubectl only."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = {"version": "2018-03-19"}
START_TIMEOUT_SECONDS = 120.0
PR_SET_PDEATHSIG = 1

Document = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ocelli:
    """A running instance."""

    address: str
    user: str
    password: str
    state_dir: Path
    kubectl_command: tuple[str, ...]
    """kubectl with administrator rights."""

    @property
    def samples(self) -> Path:
        return self.state_dir / "samples"

    @property
    def few_samples(self) -> Path:
        """A folder below `samples`: the same files with fewer images."""
        return self.samples / "few"

    def client(self) -> httpx.Client:
        """A REST client with the user's credentials and a version, over kept-alive connections."""
        return httpx.Client(base_url=self.address, auth=(self.user, self.password), params=VERSION, timeout=60)

    def kubectl(self, *arguments: str, input_text: str | None = None, check: bool = True) -> str:
        """Output of kubectl as administrator of the cluster."""
        command = [*self.kubectl_command, *arguments]
        done = subprocess.run(command, input=input_text, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def get(self, kind: str, name: str) -> Document:
        document: Document = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return document

    def items(self, kind: str, selector: str) -> list[Document]:
        found: list[Document] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        return found

    def apply(self, manifest: Document) -> None:
        self.kubectl("apply", "-f", "-", input_text=json.dumps(manifest))


@dataclass(frozen=True, kw_only=True)
class LocalOcelli(Ocelli):
    """An instance that `make run` started."""

    process: subprocess.Popen[str]


def wait_for(what: str, condition: Callable[[], T], timeout_seconds: float = 60) -> T:
    """Poll until `condition` returns a true value, and return it."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        asked_at = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"not within {timeout_seconds:.0f} s: {what} (last value: {value!r})"
        # Continuous kubectl calls would take half a core from the program under test.
        time.sleep(min(max(0.1, 4 * (now - asked_at)), 1))


def end_with_the_parent() -> None:
    """Let the kernel stop this process when the test runner dies, so that a killed run leaves no process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start_ocelli(state_dir: Path, log: Path, **environment: str) -> subprocess.Popen[str]:
    """Start what `make run` starts, in its own process group, and return when it is ready."""
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ocelli_quickstart", "run"],
            cwd=CHECKOUT,
            # Without built-in classifiers: three more trainers would slow the tests that do not need them.
            env={**os.environ, "STATE_DIR": str(state_dir), "KUBECONFIG": "/dev/null", "BUILT_INS": "", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=end_with_the_parent,
        )
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, f"make run ended with {process.returncode}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"make run is not ready in time:\n{log.read_text()}"
        try:
            if json.loads((state_dir / "run.json").read_text())["processID"] == process.pid:
                return process
        except (OSError, ValueError):
            pass
        time.sleep(0.1)


def stop_ocelli(process: subprocess.Popen[str]) -> int:
    """Stop it as Ctrl-C does; returns the exit code."""
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=30)


@contextmanager
def running_ocelli(folder: Path, **environment: str) -> Iterator[LocalOcelli]:
    """An instance with its state in a folder, for as long as the context lasts."""
    process = start_ocelli(folder / "state", folder / "run.log", **environment)
    try:
        yield connect(folder / "state", process)
    finally:
        stop_ocelli(process)


def connect(state_dir: Path, process: subprocess.Popen[str]) -> LocalOcelli:
    running = json.loads((state_dir / "run.json").read_text())
    cluster = json.loads((state_dir / "cluster" / "cluster.json").read_text())
    return LocalOcelli(
        address=running["address"],
        user=running["user"],
        password=running["password"],
        state_dir=state_dir,
        process=process,
        kubectl_command=(cluster["kubectl"], f"--kubeconfig={state_dir / 'kubeconfig'}"),
    )
