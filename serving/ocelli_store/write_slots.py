"""How many writes there may be at once: each holds memory as long as its client likes, so each namespace has its own few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


class TooManyWritesError(Exception):
    """Whoever writes has so many writes under way that this one found no place in time."""

    def __init__(self, at_once: int) -> None:
        super().__init__(f"{at_once} writes of this namespace are under way, and others wait; try again in a moment")


@dataclass(kw_only=True)
class _Queue:
    slots: asyncio.Semaphore
    entered: int = 0
    """Writes that are under way or wait."""


class WriteSlots:
    """The places of every namespace. They belong to the thread of the event loop."""

    def __init__(self, *, at_once: int = 16, waiting: int = 48, wait_seconds: float = 10.0) -> None:
        self._at_once = at_once
        self._waiting = waiting
        self._wait_seconds = wait_seconds
        self._queues: dict[Hashable, _Queue] = {}

    @asynccontextmanager
    async def taken(self, writer: Hashable) -> AsyncIterator[None]:
        """A place among those of a writer, waited for. Raises TooManyWritesError."""
        queue = self._queues.setdefault(writer, _Queue(slots=asyncio.Semaphore(self._at_once)))
        if queue.entered >= self._at_once + self._waiting:
            raise TooManyWritesError(self._at_once)
        queue.entered += 1
        try:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await queue.slots.acquire()
            except TimeoutError as error:
                raise TooManyWritesError(self._at_once) from error
            try:
                yield
            finally:
                queue.slots.release()
        finally:
            queue.entered -= 1
            if not queue.entered:
                del self._queues[writer]
