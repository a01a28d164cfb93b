"""The state folder of `make run`: what outlives a restart, and what tells other commands about a running one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.cluster_process import is_locked, read_runner

MARKER = "ocelli-state"


class StateError(Exception):
    """The state folder cannot be used as asked; the message names the folder, the fact and the remedy."""


@dataclass(frozen=True, kw_only=True)
class RunningInstance:
    """What a running `make run` says of itself."""

    process_id: int
    address: str
    user: str


class StateFolder:
    """One state folder; the marker file in it says that it is ours to delete."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.cluster = self.path / "cluster"
        self.store = self.path / "store"
        self.samples = self.path / "samples"
        self.kubeconfig = self.path / "kubeconfig"
        self._marker = self.path / MARKER
        self._running = self.path / "run.json"
        self.credentials = self.path / "credentials.json"
        self._password = self.path / "password"

    def prepare(self) -> None:
        """Make the folder, or take it as it is where an earlier run made it.

        Raises:
            StateError: something else lies there.
        """
        if self.path.exists() and not self._marker.exists() and any(self.path.iterdir()):
            raise StateError(f"{self.path} holds files that are not Ocelli's; set STATE_DIR to an empty or new folder")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._marker.write_text("State of `make run`. `make clean` deletes this folder.\n")

    def refuse_second_run(self) -> None:
        """Raises StateError where a `make run` is up, or starting, on this folder."""
        if is_locked(self.cluster):
            raise StateError(
                f"{self.path} is in use by `make run` of process {read_runner(self.cluster)}; "
                "stop that one with Ctrl-C, or set STATE_DIR to another folder"
            )

    def password(self, given: str | None) -> str:
        """The password that was given, else the kept one, else a new one that is kept."""
        if given:
            return given
        if not self._password.exists():
            save_private(self._password, secrets.token_urlsafe(12))
        return self._password.read_text()

    def say_running(self, instance: RunningInstance, password: str) -> None:
        """Tell `make demo` where this one runs, and with which password if that is not the kept one."""
        document = {
            "processID": instance.process_id,
            "address": instance.address,
            "user": instance.user,
            "password": password,
        }
        save_private(self._running, json.dumps(document))

    def say_stopped(self) -> None:
        self._running.unlink(missing_ok=True)

    def running(self) -> tuple[RunningInstance, str] | None:
        """The instance that runs on this folder, with its password, or None."""
        try:
            document = json.loads(self._running.read_text())
            os.kill(document["processID"], 0)
        except (OSError, ValueError, KeyError):
            return None
        instance = RunningInstance(process_id=document["processID"], address=document["address"], user=document["user"])
        return instance, document["password"]

    def delete(self) -> None:
        """Forget everything.

        Raises:
            StateError: it is in use, or not ours.
        """
        if not self.path.exists():
            return
        if not self._marker.exists():
            raise StateError(f"{self.path} was not made by `make run`; delete it yourself if you mean to")
        # The lock also tells of one that is only starting, and never of a process that took over the number of a killed one.
        self.refuse_second_run()
        shutil.rmtree(self.path)


def save_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
