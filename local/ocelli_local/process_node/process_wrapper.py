"""Wrapping a container's command so that all processes it starts end with it.

Owns the choice between a process namespace (no process can leave it, not even with `setsid`) and, where the kernel does
not allow user namespaces, the process group.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The inner shell is necessary because the first process of a namespace ignores SIGTERM unless it handles it. The shell's own
# messages about the end of the command must not get into the container's log.
SHELL_SCRIPT = 'exec 3>&2 2>/dev/null; (exec "$@" 2>&3 3>&-); exit $?'
NAMESPACE = ("--user", "--map-current-user", "--pid", "--fork", "--kill-child")


class ProcessWrapper:
    """The way of wrapping that this machine allows."""

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
        """The command's own process in the wrapped process `pid`; None if it has ended or not started."""
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
    """The oldest child: orphaned processes of the namespace become later children."""
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
    """The parent of each visible process."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat", "rb") as stat:
                    # The name in parentheses may contain any characters.
                    parents[int(entry.name)] = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    return parents
