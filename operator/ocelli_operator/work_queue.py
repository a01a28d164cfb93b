"""A queue that de-duplicates keys: a key waits at most once, and is never processed twice at the same time.

Changed keys come before resynced ones. The queue records since when each key is processed, so that stuck work can be detected.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

LATER_SHARE = 8
"""At least one key of this many is one that was added with `later`, however many others are waiting."""


def spread(delay_seconds: float) -> float:
    """A random time between half of the delay and all of it, so that keys which failed together do not return together."""
    return delay_seconds * random.uniform(0.5, 1.0)


class WorkQueue(Generic[K]):
    """Keys to process. A key that is added while it is processed is handed out again afterwards."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Ordered sets: a key in `_waiting_later` moves to `_waiting` when it changes.
        self._waiting: OrderedDict[K, None] = OrderedDict()
        self._waiting_later: OrderedDict[K, None] = OrderedDict()
        self._again: dict[K, bool] = {}
        """Keys that were added while being processed, and whether with `later`."""
        self._working: dict[K, float] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()
        self._taken_in_a_row = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._waiting_later) + len(self._again)

    def add(self, key: K, *, later: bool = False) -> None:
        """Hand out the key as soon as possible; with `later`, after all keys without."""
        if key in self._working:
            self._again[key] = later and self._again.get(key, True)
            return
        if not later:
            self._waiting_later.pop(key, None)
            self._waiting[key] = None
        elif key not in self._waiting:
            self._waiting_later[key] = None
        self._available.set()

    def add_after(self, key: K, delay_seconds: float) -> None:
        """Hand out the key after a delay. If there are several delays for a key, the earliest counts."""
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
        while not self._waiting and not self._waiting_later:
            self._available.clear()
            await self._available.wait()
        is_later_due = bool(self._waiting_later) and self._taken_in_a_row >= LATER_SHARE - 1
        chosen = self._waiting_later if is_later_due or not self._waiting else self._waiting
        self._taken_in_a_row = 0 if chosen is self._waiting_later else self._taken_in_a_row + 1
        key, _ = chosen.popitem(last=False)
        self._working[key] = self._clock()
        return key

    def done(self, key: K) -> None:
        """The key has been processed."""
        self._working.pop(key, None)
        if key in self._again:
            self.add(key, later=self._again.pop(key))

    def oldest_work(self) -> tuple[K, float] | None:
        """The key that has been processed for the longest time, and for how many seconds; None if there is none."""
        oldest = min(self._working.items(), key=lambda item: item[1], default=None)
        return None if oldest is None else (oldest[0], self._clock() - oldest[1])

    def clear(self) -> None:
        """Remove all keys."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._waiting_later.clear()
        self._again.clear()
        self._working.clear()

    def _add_due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
