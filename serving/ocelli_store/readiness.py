"""Whether the store can answer: what its volume said last, asked again after a while.

Whoever asks needs no token, so that asking often must cost nothing. It knows nothing of HTTP, nor of how a volume is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

REMEMBERED_SECONDS = 2.0
"""Less than the period of a kubelet's probes: each of them has an answer of its own."""


class Readiness:
    """Asks the volume, once for all who want to know at a time."""

    def __init__(self, check_volume: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`check_volume` may block, and raises OSError where the volume does not answer."""
        self._check_volume = check_volume
        self._clock = clock
        self._asking = asyncio.Lock()
        self._known_until = float("-inf")
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Why the volume cannot be used; None: it can."""
        async with self._asking:
            if self._clock() >= self._known_until:
                try:
                    await asyncio.to_thread(self._check_volume)
                except OSError as error:
                    self._problem = error.strerror or str(error)
                else:
                    self._problem = None
                self._known_until = self._clock() + REMEMBERED_SECONDS
            return self._problem
