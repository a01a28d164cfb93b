"""How slowly the body of a request may come: a client that sends one byte a minute would hold its place for days.

It must not know what the body means, nor how a refusal is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


class BodyStalledError(Exception):
    """Nothing of the body came for too long."""

    def __init__(self, stall_seconds: float) -> None:
        super().__init__(f"nothing of the body came for {stall_seconds:g} seconds")


class BodyTooSlowError(Exception):
    """The body comes below the least rate."""

    def __init__(self, *, received_bytes: int, waited_seconds: float, least_bytes_per_second: int) -> None:
        super().__init__(
            f"{received_bytes} bytes of the body came in {waited_seconds:.0f} seconds; "
            f"send at least {least_bytes_per_second // 1024} KB a second"
        )


@dataclass(frozen=True, kw_only=True)
class BodyPace:
    """A body may be waited for `stall_seconds` and, with what has come of it, as long as the least rate gives in addition.

    Only the waiting counts: how long the server takes over a piece is not its client's fault.
    """

    stall_seconds: float
    least_bytes_per_second: int

    def longest_seconds(self, size_bytes: int) -> float:
        """How long a body, or an answer, of so many bytes may take."""
        return self.stall_seconds + size_bytes / self.least_bytes_per_second

    async def read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks. Raises BodyStalledError, BodyTooSlowError."""
        received_bytes, waited_seconds = 0, 0.0
        while True:
            left_seconds = self.longest_seconds(received_bytes) - waited_seconds
            begun = time.monotonic()
            try:
                async with asyncio.timeout(min(self.stall_seconds, left_seconds)):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if left_seconds >= self.stall_seconds:
                    raise BodyStalledError(self.stall_seconds) from error
                raise BodyTooSlowError(
                    received_bytes=received_bytes,
                    waited_seconds=waited_seconds + time.monotonic() - begun,
                    least_bytes_per_second=self.least_bytes_per_second,
                ) from error
            waited_seconds += time.monotonic() - begun
            received_bytes += len(chunk)
            yield chunk
