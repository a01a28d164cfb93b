"""Slots that tenants share: so many in all, a part of them for each tenant, and turns among those who wait.

A tenant that floods waits for itself; whoever comes with one request is next when a slot is free. It must not know what the
slots are for.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ocelli_gateway.errors import UnavailableError

RETRY_AFTER_SECONDS = 10


class FairSlots:
    """Belongs to one event loop."""

    def __init__(self, what: str, *, total: int, share: int, timeout_seconds: float) -> None:
        """`what` waits is said by the refusal, such as `uploads are being read`; `share` is what one tenant may hold."""
        self._what = what
        self._free = total
        self._share = min(share, total)
        self._timeout_seconds = timeout_seconds
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, in the order of their turns."""

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            UnavailableError: none became free in time.
        """
        await self.acquire(tenant)
        try:
            yield
        finally:
            self.release(tenant)

    async def acquire(self, tenant: str) -> None:
        """Take a slot; see `slot`."""
        if self._free and self._held[tenant] < self._share and tenant not in self._waiting:
            self._take(tenant)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # The slot came in the very moment that nobody wanted it any more.
                self.release(tenant)
            else:
                self._forget(tenant, turn)
                # Free slots may have passed this turn over while others queued behind it.
                self._hand_out()
            if isinstance(error, TimeoutError):
                message = f"Too many {self._what} at the same time; try again."
                raise UnavailableError(message, retry_after_seconds=RETRY_AFTER_SECONDS) from error
            raise

    def release(self, tenant: str) -> None:
        """Give a slot back, to whoever's turn it is."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._hand_out()

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _hand_out(self) -> None:
        for tenant in list(self._waiting):
            if not self._free:
                return
            if self._held[tenant] >= self._share:
                continue
            turns = self._waiting[tenant]
            # One that was cancelled a moment ago forgets itself later.
            turn = next((turn for turn in turns if not turn.done()), None)
            if turn is None:
                continue
            # Behind all others: the next slot is theirs.
            self._waiting.move_to_end(tenant)
            self._forget(tenant, turn)
            self._take(tenant)
            turn.set_result(None)

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(tenant)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[tenant]
