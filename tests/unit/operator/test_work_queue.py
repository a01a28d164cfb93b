"""The order in which keys are handed out."""

from __future__ import annotations

import asyncio

import pytest

from ocelli_operator.work_queue import LATER_SHARE, WorkQueue, spread

pytestmark = pytest.mark.anyio


async def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.take() == "a"
    assert len(queue) == 0


async def test_a_key_added_while_it_is_processed_is_handed_out_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.take()
    queue.add("a")
    queue.add("b")
    assert await queue.take() == "b"
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 1) == "a"


async def test_the_earliest_delay_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.001)
    queue.add_after("a", 30)
    assert await asyncio.wait_for(queue.take(), 1) == "a"


async def test_clear_removes_waiting_keys() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add_after("b", 0)
    queue.clear()
    queue.add("c")
    await asyncio.sleep(0)
    assert await queue.take() == "c"
    assert len(queue) == 0


async def test_changed_keys_come_before_resynced_ones() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("resync-1", "resync-2"):
        queue.add(key, later=True)
    queue.add("changed")
    assert [await queue.take() for _ in range(3)] == ["changed", "resync-1", "resync-2"]


async def test_a_resynced_key_that_changes_moves_ahead() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key, later=True)
    queue.add("c")
    assert [await queue.take() for _ in range(3)] == ["c", "a", "b"]
    assert len(queue) == 0


async def test_a_resync_does_not_move_a_changed_key_back() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("resync", later=True)
    queue.add("changed")
    queue.add("changed", later=True)
    assert [await queue.take(), await queue.take()] == ["changed", "resync"]


async def test_a_change_while_a_key_is_processed_is_still_a_change_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.take()
    queue.add("a", later=True)
    queue.add("a")
    queue.add("a", later=True)
    queue.add("resync", later=True)
    queue.done("a")
    assert [await queue.take(), await queue.take()] == ["a", "resync"]


async def test_a_continuous_stream_of_changes_does_not_starve_resynced_keys() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("resync", later=True)
    for number in range(50):
        queue.add(f"changed-{number}")
    taken = [await queue.take() for _ in range(LATER_SHARE)]
    assert "resync" in taken


async def test_oldest_work_is_the_key_processed_for_the_longest_time() -> None:
    seconds = [100.0]
    queue: WorkQueue[str] = WorkQueue(clock=lambda: seconds[0])
    assert queue.oldest_work() is None
    queue.add("slow")
    queue.add("quick")
    await queue.take()
    seconds[0] = 110.0
    await queue.take()
    seconds[0] = 130.0
    assert queue.oldest_work() == ("slow", 30.0)
    queue.done("slow")
    assert queue.oldest_work() == ("quick", 20.0)


async def test_spread_delays_differ() -> None:
    delays = [spread(10.0) for _ in range(100)]
    assert 5.0 <= min(delays) < 6.5
    assert 8.5 < max(delays) <= 10.0
