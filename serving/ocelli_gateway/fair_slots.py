"""Slots that tenants share: a total, a part of the free slots for each tenant, and turns among waiting tenants.

A tenant with many requests waits for its own; a tenant with one request gets a free slot, or the next one. It must not know
what the slots are for.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ocelli_gateway.refusals import InputError, TooManyRequestsError, UnavailableError

RETRY_AFTER_SECONDS = 10


class FairSlots:
    """Belongs to one event loop."""

    def __init__(self, what: str, *, total: int, share: int, timeout_seconds: float, waiting_limit: int | None = None) -> None:
        """The refusal names `what` is limited, such as `uploads are being read`; `share` is what one tenant may hold alone.

        Where others hold slots, a tenant may hold the same part of the rest: with a share of a half, one tenant holds a half, a
        second one a quarter, and so on. Of four slots or more, two tenants never hold all. At most `waiting_limit` requests of
        one tenant wait; None: any number, where the number is limited elsewhere.
        """
        self._what = what
        self._total = total
        self._free = total
        self._share = min(share, total)
        self._timeout_seconds = timeout_seconds
        self._waiting_limit = waiting_limit
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, in the order of their turns."""

    @asynccontextmanager
    async def slot(self, tenant: str, *, left: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Hold a slot. `left` is set when the client has left.

        Raises:
            TooManyRequestsError: too many requests of the tenant wait already.
            UnavailableError: none became free in time.
            InputError: the client has left.
        """
        await self.acquire(tenant, left=left)
        try:
            yield
        finally:
            self.release(tenant)

    async def acquire(self, tenant: str, *, left: asyncio.Event | None = None) -> None:
        """Take a slot; see `slot`."""
        if tenant not in self._waiting and self._may_take(tenant):
            self._take(tenant)
            return
        if self._waiting_limit is not None and len(self._waiting.get(tenant, ())) >= self._waiting_limit:
            raise TooManyRequestsError(self._too_many(), retry_after_seconds=RETRY_AFTER_SECONDS)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        watch = None if left is None else asyncio.create_task(_give_up(turn, left))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The slot was assigned while the wait was being cancelled.
                self.release(tenant)
            else:
                self._forget(tenant, turn)
                # Free slots may have skipped this turn while others queued behind it.
                self._hand_out()
            if isinstance(error, TimeoutError):
                raise UnavailableError(self._too_many(), retry_after_seconds=RETRY_AFTER_SECONDS) from error
            raise
        finally:
            if watch is not None:
                watch.cancel()

    def release(self, tenant: str) -> None:
        """Give a slot back; the next turn gets it."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._hand_out()

    def _may_take(self, tenant: str) -> bool:
        # Held slots relate to the free ones as the share relates to the rest of the total.
        return self._free > 0 and self._held[tenant] * (self._total - self._share) < self._free * self._share

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _too_many(self) -> str:
        return f"Too many {self._what}; try again."

    def _hand_out(self) -> None:
        for tenant in list(self._waiting):
            if not self._free:
                return
            if not self._may_take(tenant):
                continue
            turns = self._waiting[tenant]
            # A cancelled turn is removed later.
            turn = next((turn for turn in turns if not turn.done()), None)
            if turn is None:
                continue
            # Behind all other tenants: the next slot is theirs.
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


async def _give_up(turn: asyncio.Future[None], left: asyncio.Event) -> None:
    await left.wait()
    if not turn.done():
        turn.set_exception(InputError("The connection was closed while the request waited; send it again and stay connected."))
