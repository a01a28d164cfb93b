"""Freed memory goes back to the system: glibc keeps it, in an arena for each few threads, and the peak would stay resident.

It must not know what the memory was for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncIterator

PERIOD_SECONDS = 20.0
# malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
_LARGE_BLOCK_BYTES = 1024 * 1024


def keep_little() -> None:
    """Before there are threads: few arenas, and blocks of a megabyte and more that go back when they are freed."""
    _set(_M_ARENA_MAX, _ARENAS)
    return_large_blocks(_LARGE_BLOCK_BYTES)


def return_large_blocks(least_bytes: int) -> None:
    """Blocks of so many bytes and more go back when they are freed.

    By default glibc raises its threshold with every large block that is freed, up to 32 MB.
    """
    _set(_M_MMAP_THRESHOLD, least_bytes)


def give_back() -> None:
    """Give back what was freed in the midst of what is still used. Takes milliseconds, without the interpreter's lock."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(option, value)


@contextlib.asynccontextmanager
async def given_back_regularly(period_seconds: float = PERIOD_SECONDS) -> AsyncIterator[None]:
    """While the context is open, freed memory is given back now and then."""
    task = asyncio.create_task(_give_back_regularly(period_seconds), name="freed memory")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _give_back_regularly(period_seconds: float) -> None:
    while True:
        await asyncio.sleep(period_seconds)
        await asyncio.to_thread(give_back)
