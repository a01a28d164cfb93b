"""Reads the body of a request, with limits on size and time. Its bytes are counted while they are in memory."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from ocelli_http.body_pace import BodyPace
from ocelli_inference.admission import Ticket

PACE = BodyPace(stall_seconds=30.0, least_bytes_per_second=512 * 1024)
"""Bodies come from the same cluster, and count against the limits while they arrive."""


class BodyTooLargeError(Exception):
    """The size or the declared size of the body exceeds the limit. The rest of it was not read."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes:,} bytes")
        self.limit_bytes = limit_bytes


class ClientGoneError(Exception):
    """The client has disconnected."""


async def read_body(request: Request, ticket: Ticket, *, limit_bytes: int) -> bytes:
    """The whole body. Bytes are added to the ticket as they arrive, so a slow client holds only what it has sent.

    Raises:
        BodyTooLargeError, BodyStalledError, BodyTooSlowError, ClientGoneError: see there.
        QueueFullError: the server already holds too many bytes.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise BodyTooLargeError(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in PACE.read(aiter(request.stream())):
            size += len(chunk)
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            ticket.add_bytes(len(chunk))
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError from None
    return b"".join(chunks)


async def wait_for_disconnect(request: Request) -> None:
    """Returns when the client disconnects. Call it only after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
