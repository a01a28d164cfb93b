"""The limit on concurrent writes of one namespace."""

from __future__ import annotations

import asyncio

import pytest

from ocelli_store.write_slots import TooManyWritesError, WriteSlots


def test_waiting_write_gets_the_next_slot() -> None:
    async def scene() -> list[str]:
        slots, log = WriteSlots(concurrent=1), list[str]()

        async def write(name: str) -> None:
            async with slots.taken("team-a"):
                log.append(f"{name} begins")
                await asyncio.sleep(0)
                log.append(f"{name} ends")

        await asyncio.gather(write("one"), write("two"))
        return log

    assert asyncio.run(scene()) == ["one begins", "one ends", "two begins", "two ends"]


def test_write_is_refused_if_the_queue_is_full() -> None:
    async def scene() -> None:
        slots = WriteSlots(concurrent=1, waiting=1)
        async with slots.taken("team-a"):
            waiting = asyncio.create_task(enter(slots))
            await asyncio.sleep(0)
            with pytest.raises(TooManyWritesError):
                await enter(slots)
        await waiting

    asyncio.run(scene())


async def enter(slots: WriteSlots) -> None:
    async with slots.taken("team-a"):
        pass


def test_interrupted_write_releases_its_slot() -> None:
    async def scene() -> None:
        slots = WriteSlots(concurrent=1, waiting=0)
        for _ in range(3):
            with pytest.raises(ConnectionError):
                async with slots.taken("team-a"):
                    raise ConnectionError
        await enter(slots)

    asyncio.run(scene())


def test_write_that_stops_waiting_releases_its_place() -> None:
    async def scene() -> None:
        slots = WriteSlots(concurrent=1, waiting=1)
        async with slots.taken("team-a"):
            for _ in range(3):
                waiting = asyncio.create_task(enter(slots))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        await enter(slots)

    asyncio.run(scene())
