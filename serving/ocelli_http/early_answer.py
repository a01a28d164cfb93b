"""Answers that are sent before the request's body has been read.

A connection that is closed while it has unread bytes is reset, and the client may never see the answer. So the server reads on
for a moment before it closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

LINGER_SECONDS = 2.0
"""How long a refused client may go on sending."""


async def linger(receive: Callable[[], Awaitable[Mapping[str, Any]]], seconds: float = LINGER_SECONDS) -> None:
    """Read and drop the rest of a body, for a limited time. Call it before the end of the answer is sent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive()).get("more_body"):
                pass
