"""A queue of keys that de-duplicates: a key waits at most once, and is never worked on twice at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """Keys to work on. A key added while it is worked on is handed out again afterwards."""

    def __init__(self) -> None:
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, key: K) -> None:
        """Hand out the key as soon as may be."""
        if key in self._queued:
            return
        self._queued.add(key)
        if key not in self._working:
            self._waiting.append(key)
            self._available.set()

    def add_after(self, key: K, delay_seconds: float) -> None:
        """Hand out the key after a while; of several such wishes the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._add_due, key)

    async def take(self) -> K:
        """The next key; call `done` with it afterwards."""
        while not self._waiting:
            self._available.clear()
            await self._available.wait()
        key = self._waiting.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on a key has ended."""
        self._working.discard(key)
        if key in self._queued:
            self._waiting.append(key)
            self._available.set()

    def clear(self) -> None:
        """Forget everything that waits."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._queued.clear()
        self._working.clear()

    def _add_due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
