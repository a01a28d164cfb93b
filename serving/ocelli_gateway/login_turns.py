"""Turns, places and delays of logins, so that clients who guess passwords cannot keep others from logging in.

It must not know what a password is.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ocelli_gateway.client_address import subscriber_of
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.recent import Recent

FREE_FAILURES = 5
"""Wrong passwords of one name from one address that are answered without a delay."""
FAILURE_DELAY_SECONDS = 0.25
"""For the next one; it doubles with each further one."""
LONGEST_FAILURE_DELAY_SECONDS = 4.0
FAILURES_LIFE_SECONDS = 300.0
COUNTED_FAILURES_LIMIT = 4096
HASHING_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class LoginSource:
    """A user name and the network it logs in from: logins wait, are counted and are slowed down by it."""

    user: str
    subscriber: str

    @classmethod
    def of(cls, user: str, address: str) -> LoginSource:
        # A digest, because names may have any length.
        return cls(user=hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest(), subscriber=subscriber_of(address))


class Places:
    """How many places each source holds."""

    def __init__(self) -> None:
        self._taken: Counter[LoginSource] = Counter()

    def take(self, source: LoginSource, limit: int) -> bool:
        """Take one; False where the source holds as many as the limit."""
        if self._taken[source] >= limit:
            return False
        self._taken[source] += 1
        return True

    def give_back(self, source: LoginSource) -> None:
        self._taken[source] -= 1
        if not self._taken[source]:
            del self._taken[source]


class NameTurns:
    """Passwords of one name are checked one after the other, whether or not it exists; their addresses take turns."""

    def __init__(self) -> None:
        self._addresses: dict[str, FairSlots] = {}
        self._checks: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, source: LoginSource) -> AsyncIterator[None]:
        addresses = self._addresses.setdefault(source.user, build_turns())
        self._checks[source.user] += 1
        try:
            async with addresses.slot(source.subscriber):
                yield
        finally:
            self._checks[source.user] -= 1
            if not self._checks[source.user]:
                del self._checks[source.user], self._addresses[source.user]


class SharedTurns:
    """Turns that all unknown names share: their number is unlimited, so many checks use one turn together.

    Each check waits as long as a known user waits for a turn: a check that comes while a turn is queued uses the next one.
    """

    def __init__(self, take: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """`take` waits for a turn, calls its argument when the turn begins, and returns at its end."""
        self._take = take
        self._in_line: asyncio.Task[None] | None = None
        self._behind: asyncio.Future[asyncio.Task[None]] | None = None

    async def join(self) -> None:
        """Return at the end of a turn that has not begun yet. Raises what `take` raises."""
        if self._in_line is None:
            self._in_line = asyncio.create_task(self._take_one())
            turn = self._in_line
        else:
            if self._behind is None:
                self._behind = asyncio.get_running_loop().create_future()
            turn = await asyncio.shield(self._behind)
        await asyncio.shield(turn)

    async def _take_one(self) -> None:
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = True
            self._in_line = None
            if self._behind is not None:
                behind, self._behind = self._behind, None
                self._in_line = asyncio.create_task(self._take_one())
                behind.set_result(self._in_line)

        try:
            await self._take(begin)
        finally:
            if not begun:
                begin()


class FailureDelays:
    """How often logins failed recently, and how long the answer to the next failure is delayed."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: Recent[LoginSource, tuple[int, float]] = Recent(COUNTED_FAILURES_LIMIT)

    def count(self, source: LoginSource) -> float:
        """Count one more failure; returns the seconds by which its answer is delayed."""
        now = self._clock()
        count, last = self._counts.get(source, (0, now))
        count = count + 1 if now - last < FAILURES_LIFE_SECONDS else 1
        self._counts.remember(source, (count, now))
        if count <= FREE_FAILURES:
            return 0.0
        return float(min(FAILURE_DELAY_SECONDS * 2 ** min(count - FREE_FAILURES - 1, 10), LONGEST_FAILURE_DELAY_SECONDS))


def build_turns() -> FairSlots:
    return FairSlots("logins are being checked", total=1, share=1, timeout_seconds=HASHING_TIMEOUT_SECONDS)
