"""Wrapping a container's command so that everything it starts ends with it.

Owns the choice between a process namespace of its own (nothing can leave it, not even by `setsid`) and, where the
kernel forbids that to users, the bare process group.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The inner shell is there because a first process of a namespace ignores SIGTERM unless it handles it; its own words
# about how the command ended must not get into the container's log.
SHELL_SCRIPT = 'exec 3>&2 2>/dev/null; (exec "$@" 2>&3 3>&-); exit $?'
NAMESPACE = ("--user", "--map-current-user", "--pid", "--fork", "--kill-child")


class ProcessWrapper:
    """How this machine lets containers be wrapped."""

    def __init__(self) -> None:
        unshare = shutil.which("unshare")
        self._unshare = unshare if unshare is not None and namespaces_work(unshare) else None

    @property
    def uses_namespaces(self) -> bool:
        return self._unshare is not None

    def wrap(self, argv: Sequence[str]) -> list[str]:
        if self._unshare is None:
            return list(argv)
        return [self._unshare, *NAMESPACE, "/bin/sh", "-c", SHELL_SCRIPT, "--", *argv]

    def main_process(self, pid: int) -> int | None:
        """The command's own process, of the wrapped process `pid`; None if it is gone (or not yet there)."""
        if self._unshare is None:
            return pid
        shell = first_child(pid)
        return first_child(shell) if shell is not None else None


def namespaces_work(unshare: str) -> bool:
    try:
        done = subprocess.run([unshare, *NAMESPACE, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def first_child(pid: int) -> int | None:
    """The oldest child: processes that were orphaned in the namespace become later ones."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return first_child_by_scan(pid) if os.path.exists(f"/proc/{pid}") else None
    except OSError:
        return None
    return int(children[0]) if children else None


def first_child_by_scan(pid: int) -> int | None:
    """For kernels without `/proc/PID/task/TID/children`."""
    children = [child for child, parent in read_parents().items() if parent == pid]
    return min(children) if children else None


def read_parents() -> dict[int, int]:
    """Parent by process, of all processes that can be seen."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat", "rb") as stat:
                    # The name in parentheses may hold anything.
                    parents[int(entry.name)] = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    return parents
