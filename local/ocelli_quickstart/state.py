"""The state folder of `make run`: what a restart keeps, and the address and credentials of a running instance."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from pathlib import Path

from ocelli_local.cluster_process import is_locked, read_runner
from ocelli_quickstart.client import Service

MARKER = "ocelli-state"


class StateError(Exception):
    """The state folder cannot be used as asked; the message names the folder, the fact and the remedy."""


class StateFolder:
    """One state folder. A marker file in it shows that `make run` created it and `make clean` may delete it."""

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
        """Create the folder, unless an earlier run has created it.

        Raises:
            StateError: it contains other files.
        """
        if self.path.exists() and not self._marker.exists() and any(self.path.iterdir()):
            raise StateError(f"{self.path} contains files that are not Ocelli's; set STATE_DIR to an empty or new folder")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._marker.write_text("State of `make run`. `make clean` deletes this folder.\n")

    def refuse_second_run(self) -> None:
        """Raises StateError if a `make run` is running or starting on this folder."""
        if is_locked(self.cluster):
            raise StateError(
                f"{self.path} is in use by the `make run` of process {read_runner(self.cluster)}; "
                "stop it with Ctrl-C, or set STATE_DIR to another folder"
            )

    def password(self, given: str | None) -> str:
        """The given password, else the kept one, else a new one that is kept."""
        if given:
            return given
        if not self._password.exists():
            save_private(self._password, secrets.token_urlsafe(12))
        return self._password.read_text()

    def save_running(self, service: Service) -> None:
        """Write the address and credentials of this process's instance, for `make demo`."""
        save_private(self._running, json.dumps({"processID": os.getpid(), **dataclasses.asdict(service)}))

    def remove_running(self) -> None:
        self._running.unlink(missing_ok=True)

    def find_running(self) -> Service | None:
        """The instance that runs on this folder."""
        try:
            document = json.loads(self._running.read_text())
            os.kill(document.pop("processID"), 0)
            return Service(**document)
        except (OSError, ValueError, KeyError):
            return None

    def delete(self) -> None:
        """Delete everything.

        Raises:
            StateError: it is in use, or `make run` did not create it.
        """
        if not self.path.exists():
            return
        if not self._marker.exists():
            raise StateError(f"{self.path} was not created by `make run`; delete it yourself if you do not need it")
        # The lock also shows a run that is starting, and is not confused by a reused process id.
        self.refuse_second_run()
        shutil.rmtree(self.path)


def save_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by the owner only."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
