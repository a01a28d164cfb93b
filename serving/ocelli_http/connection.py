"""uvicorn's HTTP protocol with limits on what a connection may cost before anything is known of who has it.

It must not know what is served, nor what an error looks like there: `build_error` is the one thing that a server gives it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT_BYTES = 64 * 1024
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending: closing over what it has sent resets the connection, and loses the answer."""
STALL_SECONDS = 60.0
"""A connection whose client takes nothing of what is sent for so long is broken off."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Until the head of a request is whole it may take as long as uvicorn's `timeout_keep_alive`, and no more.

    Where `limit_concurrency` connections are open, a new one takes the place of the one that has been without a request for
    longest, and is refused only where all of them have one: so nobody who merely connects keeps others, or a probe, out.
    """

    _stall_seconds = STALL_SECONDS
    _stall: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    """Runs while there is no request: from the first moment, and from each answer, to the end of a request's head."""
    _unread_bytes = 0
    """What came since the last head, or piece of a body, was complete: the parser keeps it in memory."""
    _reads_head = True
    _between_requests = True
    _refused = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn would only count connections once the head of a request has come, and refuse probes with the rest.
        self._connection_limit, self.limit_concurrency = self.limit_concurrency, None

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of an answer that no application gave."""
        return {"content-type": "text/plain; charset=utf-8"}, message.encode()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if self._connection_limit is not None and len(self.connections) > self._connection_limit:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_stall()
        self._end_idle()

    def pause_writing(self) -> None:
        super().pause_writing()
        # Closing would wait for the client to take what lies in memory for it.
        self._stall = self.loop.call_later(self._stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reads_head = True
        self._between_requests = False
        self._await_head()

    def on_headers_complete(self) -> None:
        self._reads_head = False
        self._unread_bytes = 0
        self._end_idle()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        super().on_message_complete()
        self._between_requests = True
        # Whoever was answered early has as long after its body as others have after their answer.
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's own timer would also cut off the beginning of a next head.
        self._unset_keepalive_if_required()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_LIMIT_BYTES and not self._refused:
            if self._reads_head:
                kilobytes = HEAD_LIMIT_BYTES // 1024
                self.send_400_response(f"The request's address and headers exceed {kilobytes} KB; send fewer.")
            else:
                # What stands between the pieces of a body, or after its last. There may be an answer already.
                self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, message: str, *, linger_seconds: float = LINGER_SECONDS) -> None:
        own_headers, body = self.build_error(status, message)
        headers = {**own_headers, "content-length": str(len(body)), "connection": "close"}
        head = f"HTTP/1.1 {status} {status.phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._refused = True
        self._end_idle()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(head.encode() + b"\r\n" + body)
        if linger_seconds and self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(linger_seconds, self.transport.close)
        else:
            self.transport.close()

    def _await_head(self) -> None:
        self._end_idle()
        if self._refused or self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return
        self._idle = self.loop.call_later(self.timeout_keep_alive, self._give_up)

    def _give_up(self) -> None:
        self._idle = None
        if self._reads_head and not self._between_requests:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, "The request's address and headers did not come in time; send them at once."
            )
        else:
            self.transport.close()

    def _make_room(self) -> None:
        idle = [
            (connection._idle.when(), connection)
            for connection in self.connections
            if isinstance(connection, LimitedProtocol) and connection is not self and connection._idle is not None
        ]
        if idle:
            _, longest = min(idle, key=lambda pair: pair[0])
            # It is counted until the loop's next turn, and must not be chosen again.
            longest._end_idle()
            longest.transport.abort()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once; try again in a moment", linger_seconds=0)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _end_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
