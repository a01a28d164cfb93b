"""Server-sent events: changes of cards as a stream that ends with the credentials, the connection or the gateway.

It must not know where the changes come from.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ocelli_gateway.card_events import CardSubscription

EVENT_STREAM_TYPE = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
"""A comment is sent after so long without a change: less than proxies wait for the next byte."""


@dataclass(frozen=True, kw_only=True)
class StreamTerms:
    """When a stream ends although its client stays."""

    expires_at: float | None
    """When the token expires, in seconds since 1970; None: the credentials are not a token."""
    is_valid: Callable[[], bool]
    """Whether the credentials still exist. Asked after each event, and with each comment."""
    is_current: Callable[[], bool]
    """Whether changes still arrive. Asked as often: where they do not, a client has to connect again and list."""
    stops: tuple[asyncio.Event, ...]
    """One of them is set when the client leaves, or the gateway stops."""


async def write_events(subscription: CardSubscription, terms: StreamTerms) -> AsyncIterator[bytes]:
    """The bytes of the stream."""
    watches = [asyncio.create_task(_end_after(stop, subscription)) for stop in terms.stops]
    try:
        yield _write("ready", {})
        while not subscription.ended:
            left_seconds = None if terms.expires_at is None else terms.expires_at - time.time()
            if (left_seconds is not None and left_seconds <= 0) or not terms.is_valid():
                yield _write("expired", {})
                return
            if not terms.is_current():
                return
            try:
                async with asyncio.timeout(min(KEEP_ALIVE_SECONDS, left_seconds or KEEP_ALIVE_SECONDS)):
                    events = await subscription.wait()
            except TimeoutError:
                yield b": \n\n"
                continue
            for event in events:
                if event.card is None:
                    yield _write("deleted", {"classifier_id": event.classifier_id})
                else:
                    yield _write("classifier", event.card.to_json())
    finally:
        for watch in watches:
            watch.cancel()


class EventStream(StreamingResponse):
    """The answer. What it holds is released when it ends."""

    def __init__(self, content: AsyncIterator[bytes], held: AsyncExitStack) -> None:
        # Proxies must pass on each event at once.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type=EVENT_STREAM_TYPE, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


def _write(name: str, data: Mapping[str, Any]) -> bytes:
    # Escaped to ASCII: some clients end a line at U+2028 too.
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _end_after(stop: asyncio.Event, subscription: CardSubscription) -> None:
    await stop.wait()
    subscription.end()
