"""Threads that tenants share, for work that takes seconds: a total, a part of it for each tenant, and turns.

A thread cannot be stopped: it counts for its tenant until its work is done, even if the client has left. Short file operations
use asyncio's own threads. It must not know what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ocelli_gateway.fair_slots import FairSlots

P = ParamSpec("P")
T = TypeVar("T")


class FairThreads:
    """Belongs to one event loop."""

    def __init__(self, what: str, *, threads: int, share: int, timeout_seconds: float) -> None:
        """The refusal names `what` is limited, such as `zips are being opened`; one tenant may hold `share` threads."""
        self._slots = FairSlots(what, total=threads, share=share, timeout_seconds=timeout_seconds)
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=what.partition(" ")[0])

    async def run(self, tenant: str, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Call the function in a thread, and return its result.

        Raises:
            UnavailableError: no thread became free in time.
        """
        await self._slots.acquire(tenant)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._executor, lambda: function(*arguments, **keywords))
        work.add_done_callback(lambda _: self._slots.release(tenant))
        return await asyncio.shield(work)

    def close(self) -> None:
        """Start no more work."""
        self._executor.shutdown(wait=False, cancel_futures=True)
