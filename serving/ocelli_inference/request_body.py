"""Reading the body of a request: bounded in size and time, and counted while it is in memory."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from ocelli_http.body_pace import BodyPace
from ocelli_inference.admission import Ticket

PACE = BodyPace(stall_seconds=30.0, least_bytes_per_second=512 * 1024)
"""Bodies come from the same cluster, and are counted while they come."""


class BodyTooLargeError(Exception):
    """The body is, or says it is, larger than allowed. The rest of it was not read."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes:,} bytes")
        self.limit_bytes = limit_bytes


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def read_body(request: Request, ticket: Ticket, *, limit_bytes: int) -> bytes:
    """The whole body, its bytes added to the ticket as they come: who is slow holds only what was sent.

    Raises:
        BodyTooLargeError, BodyStalledError, BodyTooSlowError, ClientGoneError: see there.
        QueueFullError: the server holds too many bytes already.
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
    """Returns when the client hangs up. Only after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
