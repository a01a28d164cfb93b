"""Slots that tenants share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.refusals import InputError, TooManyRequestsError, UnavailableError


def test_a_caller_behind_a_cancelled_one_gets_the_free_slot() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=2, share=1, timeout_seconds=1.0)
        await slots.acquire("a")
        cancelled = asyncio.create_task(slots.acquire("a"))
        await asyncio.sleep(0)
        # All three in one iteration of the loop: the cancelled one is still in the queue when the third one joins it.
        third = asyncio.create_task(slots.acquire("a"))
        cancelled.cancel()
        slots.release("a")
        await third

    asyncio.run(body())


def test_two_tenants_never_hold_all_slots() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=16, share=8, timeout_seconds=0.01)
        held = {"a": await hold_all(slots, "a"), "b": await hold_all(slots, "b")}
        assert held == {"a": 8, "b": 4}
        await slots.acquire("c")

    asyncio.run(body())


def test_a_share_of_100_percent_leaves_no_slot_unused() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=16, share=16, timeout_seconds=0.01)
        assert await hold_all(slots, "a") == 16

    asyncio.run(body())


async def hold_all(slots: FairSlots, tenant: str) -> int:
    count = 0
    with suppress(UnavailableError):
        while True:
            await slots.acquire(tenant)
            count += 1
    return count


def test_a_full_queue_of_a_tenant_refuses_immediately_and_others_wait() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=1, share=1, timeout_seconds=60, waiting_limit=2)
        await slots.acquire("a")
        waiting = [asyncio.create_task(slots.acquire("a")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequestsError):
            await asyncio.wait_for(slots.acquire("a"), 1)
        other = asyncio.create_task(slots.acquire("b"))
        await asyncio.sleep(0)
        assert not other.done()
        for task in (*waiting, other):
            task.cancel()

    asyncio.run(body())


def test_a_cancelled_caller_leaves_the_queue() -> None:
    async def body() -> None:
        slots = FairSlots("tests are run", total=1, share=1, timeout_seconds=60, waiting_limit=1)
        left = asyncio.Event()
        await slots.acquire("a")
        waiting = asyncio.create_task(slots.acquire("a", left=left))
        await asyncio.sleep(0)
        left.set()
        with pytest.raises(InputError):
            await asyncio.wait_for(waiting, 1)
        another = asyncio.create_task(slots.acquire("a"))
        await asyncio.sleep(0)
        slots.release("a")
        await asyncio.wait_for(another, 1)

    asyncio.run(body())
