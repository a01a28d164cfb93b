"""The minimum rate of a body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from ocelli_http.body_pace import BodyPace, BodyStalledError, BodyTooSlowError


async def drip(piece: bytes, *, pause_seconds: float, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(pause_seconds)
        yield piece


def read(chunks: AsyncIterator[bytes], pace: BodyPace) -> bytes:
    async def read_all() -> bytes:
        return b"".join([chunk async for chunk in pace.read(chunks)])

    return asyncio.run(read_all())


@pytest.mark.slow
def test_body_at_the_minimum_rate_may_take_long() -> None:
    pace = BodyPace(stall_seconds=0.2, least_bytes_per_second=1000)
    assert len(read(drip(bytes(100), pause_seconds=0.02, times=30), pace)) == 3000


def test_slow_body_is_interrupted() -> None:
    pace = BodyPace(stall_seconds=0.2, least_bytes_per_second=1024)
    began = time.monotonic()
    with pytest.raises(BodyTooSlowError, match="bytes of the body in 0 seconds; send at least 1 KB a second"):
        read(drip(b"x", pause_seconds=0.05, times=1000), pace)
    assert time.monotonic() - began < 5


def test_stalled_body_is_interrupted() -> None:
    pace = BodyPace(stall_seconds=0.1, least_bytes_per_second=1)
    with pytest.raises(BodyStalledError, match=r"received no data of the body for 0\.1 seconds"):
        read(drip(b"x", pause_seconds=60, times=1), pace)


def test_time_of_the_server_does_not_count() -> None:
    async def read_slowly() -> int:
        count = 0
        async for _ in BodyPace(stall_seconds=0.1, least_bytes_per_second=1).read(drip(b"", pause_seconds=0, times=10)):
            await asyncio.sleep(0.03)
            count += 1
        return count

    assert asyncio.run(read_slowly()) == 10
