"""Returns freed memory to the system. glibc keeps it, in an arena for every few threads, so the peak would stay resident.

It must not know what the memory was used for.
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


def limit_kept_memory() -> None:
    """Use few arenas, and return blocks of a megabyte and more when they are freed. Call it before threads are started."""
    _set(_M_ARENA_MAX, _ARENAS)
    return_large_blocks(_LARGE_BLOCK_BYTES)


def return_large_blocks(least_bytes: int) -> None:
    """Return blocks of this size and more to the system when they are freed.

    By default glibc raises this threshold with each freed block, up to 32 MB.
    """
    _set(_M_MMAP_THRESHOLD, least_bytes)


def trim() -> None:
    """Return freed memory that lies between used memory. Takes milliseconds, and does not hold the GIL."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).mallopt(option, value)


@contextlib.asynccontextmanager
async def trimmed_regularly(period_seconds: float = PERIOD_SECONDS) -> AsyncIterator[None]:
    """Trim freed memory periodically while the context is open."""
    task = asyncio.create_task(_trim_regularly(period_seconds), name="freed memory")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _trim_regularly(period_seconds: float) -> None:
    while True:
        await asyncio.sleep(period_seconds)
        await asyncio.to_thread(trim)
