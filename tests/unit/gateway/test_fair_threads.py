"""Threads that tenants share."""

from __future__ import annotations

import asyncio
import threading

from ocelli_gateway.fair_threads import FairThreads


def test_thread_of_a_cancelled_caller_counts_until_it_ends() -> None:
    may_end = threading.Event()

    async def body() -> None:
        threads = FairThreads("tests are run", threads=2, share=1, timeout_seconds=30)
        gone = asyncio.create_task(threads.run("a", may_end.wait))
        await asyncio.sleep(0)
        gone.cancel()
        second = asyncio.create_task(threads.run("a", may_end.is_set))
        # Another tenant is answered meanwhile.
        assert await threads.run("b", may_end.is_set) is False
        may_end.set()
        assert await second is True
        threads.close()

    try:
        asyncio.run(body())
    finally:
        may_end.set()


def test_tenants_take_turns() -> None:
    order: list[str] = []

    async def body() -> None:
        threads = FairThreads("tests are run", threads=1, share=1, timeout_seconds=30)
        await asyncio.gather(*(threads.run(tenant, order.append, tenant) for tenant in "aaaab"))
        threads.close()

    asyncio.run(body())
    assert order.index("b") <= 2
