"""Limits concurrent writes. Each takes memory for as long as its client needs, so each namespace has its own few slots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


class TooManyWritesError(Exception):
    """The namespace has too many concurrent writes."""

    def __init__(self, concurrent: int) -> None:
        super().__init__(f"this namespace has {concurrent} writes in flight, and others wait; try again in a moment")


@dataclass(kw_only=True)
class _Queue:
    slots: asyncio.Semaphore
    entered: int = 0
    """Writes that are in flight or wait."""


class WriteSlots:
    """The slots of every namespace. They belong to the thread of the event loop."""

    def __init__(self, *, concurrent: int = 16, waiting: int = 48, wait_seconds: float = 10.0) -> None:
        self._concurrent = concurrent
        self._waiting = waiting
        self._wait_seconds = wait_seconds
        self._queues: dict[Hashable, _Queue] = {}

    @asynccontextmanager
    async def taken(self, writer: Hashable) -> AsyncIterator[None]:
        """Wait for a slot of the writer, and hold it. Raises TooManyWritesError."""
        queue = self._queues.setdefault(writer, _Queue(slots=asyncio.Semaphore(self._concurrent)))
        if queue.entered >= self._concurrent + self._waiting:
            raise TooManyWritesError(self._concurrent)
        queue.entered += 1
        try:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await queue.slots.acquire()
            except TimeoutError as error:
                raise TooManyWritesError(self._concurrent) from error
            try:
                yield
            finally:
                queue.slots.release()
        finally:
            queue.entered -= 1
            if not queue.entered:
                del self._queues[writer]
