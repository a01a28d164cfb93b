"""Slots that tenants share."""

from __future__ import annotations

import asyncio

from ocelli_gateway.fair_slots import FairSlots


def test_who_queued_behind_a_waiter_that_was_cancelled_gets_the_free_slot() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=2, share=1, timeout_seconds=1.0)
        await slots.acquire("a")
        cancelled = asyncio.create_task(slots.acquire("a"))
        await asyncio.sleep(0)
        # All three within one turn of the loop: the cancelled one has not left the queue when the third one joins it.
        third = asyncio.create_task(slots.acquire("a"))
        cancelled.cancel()
        slots.release("a")
        await third

    asyncio.run(body())
