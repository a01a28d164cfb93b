"""Uploads that count towards the upload rate of their tenant while they are received."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from ocelli_gateway.quotas import RateQuotas
from ocelli_gateway.routing import CallerRequest, T
from ocelli_gateway.uploads import RECEIVED_KEY, declared_length


@asynccontextmanager
async def receive_counted(
    rates: RateQuotas, known: CallerRequest, received: AbstractAsyncContextManager[T], limit_bytes: int
) -> AsyncIterator[T]:
    """What `received` reads of the request, until the context is left. `limit_bytes` is the largest body that it reads.

    Raises:
        TooManyRequestsError: the rate is exceeded.
    """
    async with AsyncExitStack() as held:
        counting = rates.counting_upload(
            known.tenant,
            known.caller.quota,
            declared_length(known.request.headers),
            limit_bytes=limit_bytes,
            received_bytes=lambda: known.request.scope.get(RECEIVED_KEY, 0),
        )
        with counting:
            upload = await held.enter_async_context(received)
        yield upload
