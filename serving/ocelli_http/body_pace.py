"""How slowly the body of a request may arrive: a client that sends one byte a minute would hold its connection for days.

It must not know what the body means, or how the error is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


class BodyStalledError(Exception):
    """No data of the body arrived for too long."""

    def __init__(self, stall_seconds: float) -> None:
        super().__init__(f"received no data of the body for {stall_seconds:g} seconds")


class BodyTooSlowError(Exception):
    """The body arrives more slowly than the minimum rate."""

    def __init__(self, *, received_bytes: int, waited_seconds: float, least_bytes_per_second: int) -> None:
        super().__init__(
            f"received {received_bytes} bytes of the body in {waited_seconds:.0f} seconds; "
            f"send at least {least_bytes_per_second // 1024} KB a second"
        )


@dataclass(frozen=True, kw_only=True)
class BodyPace:
    """A body may take `stall_seconds`, plus the time that the received bytes take at the minimum rate.

    Only the time spent waiting counts: the time that the server takes to handle a chunk is not the client's fault.
    """

    stall_seconds: float
    least_bytes_per_second: int

    def longest_seconds(self, size_bytes: int) -> float:
        """The time that a body, or an answer, of this size may take."""
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
