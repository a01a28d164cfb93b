"""Whether the volume of the store works; the result is kept for a moment.

The probe needs no token, so many requests must not cause many checks. It must not know HTTP, or how a volume is checked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

REMEMBERED_SECONDS = 2.0
"""Less than the period of a kubelet's probes, so that each of them causes a check."""


class Readiness:
    """Checks the volume, once for all concurrent probes."""

    def __init__(self, check_volume: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`check_volume` may block, and raises OSError if the volume does not work."""
        self._check_volume = check_volume
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known_until = float("-inf")
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Why the volume cannot be used; None if it can."""
        async with self._lock:
            if self._clock() >= self._known_until:
                try:
                    await asyncio.to_thread(self._check_volume)
                except OSError as error:
                    self._problem = error.strerror or str(error)
                else:
                    self._problem = None
                self._known_until = self._clock() + REMEMBERED_SECONDS
            return self._problem
