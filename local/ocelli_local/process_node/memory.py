"""Memory limits: killing containers whose processes use more memory than allowed.

Owns measuring and the period. Anonymous and shared memory of the container's processes counts, because the kernel can't
reclaim it; pages of files, such as libraries, do not count.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ocelli_local.process_node.process_wrapper import read_parents

PERIOD_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    pid: int
    limit_bytes: int
    on_exceeded: Callable[[int], None]


class MemoryWatch:
    """Measures all containers with a limit twice a second."""

    def __init__(self) -> None:
        self._limits: dict[int, MemoryLimit] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, limit: MemoryLimit) -> None:
        self._limits[limit.pid] = limit
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="memory limits")

    def remove(self, pid: int) -> None:
        self._limits.pop(pid, None)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            if not self._limits:
                continue
            children = group_by_parent(read_parents())
            for limit in list(self._limits.values()):
                used = sum(read_memory_bytes(pid) for pid in tree_of(limit.pid, children))
                if used > limit.limit_bytes:
                    self.remove(limit.pid)
                    limit.on_exceeded(used)


def group_by_parent(parents: Mapping[int, int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for child, parent in parents.items():
        children[parent].append(child)
    return children


def tree_of(root: int, children: Mapping[int, list[int]]) -> list[int]:
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    return tree


def read_memory_bytes(pid: int) -> int:
    """Anonymous and shared resident memory; 0 if the process has ended."""
    total = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith((b"RssAnon:", b"RssShmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total
