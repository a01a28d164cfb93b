"""Answers before the end of a request's body.

A server that closes a connection with unread bytes resets it, and the client may never see the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

LINGER_SECONDS = 2.0
"""How long the client of an early answer may go on sending."""


async def linger(receive: Callable[[], Awaitable[Mapping[str, Any]]], seconds: float = LINGER_SECONDS) -> None:
    """Read and drop the rest of a request's body, for so many seconds at most. Call it before the end of the answer is sent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive()).get("more_body"):
                pass
