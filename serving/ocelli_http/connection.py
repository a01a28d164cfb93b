"""uvicorn's HTTP protocol with limits on what a connection can cost before its client is known.

It must not know what is served. A server defines the form of its errors with `build_error`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ocelli_http.early_answer import LINGER_SECONDS, linger
from ocelli_http.refused_request import describe_parse_error

HEAD_LIMIT_BYTES = 64 * 1024
STALL_SECONDS = 60.0
"""A connection is aborted if its client reads nothing for this long."""
SPARED_STALL_SECONDS = 5.0
"""A client that has not read from its answer for longer can lose its connection to a new one."""
PROBE_CONNECTIONS = 16
"""The number of connections above the limit that are accepted in case they send a probe."""
PROBE_HEAD_SECONDS = 2.0
"""How long such a connection may take to send its request."""
_FULL = "The server has reached its limit of connections; try again in a moment."
DRAINING = "draining"
"""An attribute of uvicorn's server state; true from the signal to stop."""
_PLACES = "places"
"""An attribute of uvicorn's server state, see `_Places`."""
_END_OF_HEAD = b"\r\n\r\n"
_LEAST_PIECE_BYTES = 64
"""For a body of unknown length. Smaller pieces would take more time than they save memory."""
_LENGTH_DIGITS = 20


class _Flow(FlowControl):
    """Keeps reading paused while the connection holds enough, also when uvicorn resumes it."""

    full = False

    def resume_reading(self) -> None:
        if not self.full:
            super().resume_reading()


@dataclass(kw_only=True)
class _Places:
    """The open connections of one server by their state, those that have been in it longest first.

    A new connection therefore does not search all others, which would block the event loop when many connections arrive.
    """

    refused: dict[LimitedProtocol, None] = field(default_factory=dict)
    idle: dict[LimitedProtocol, None] = field(default_factory=dict)
    """Without a request in flight."""
    running: dict[LimitedProtocol, None] = field(default_factory=dict)
    extra: dict[LimitedProtocol, None] = field(default_factory=dict)
    """Above the limit: they can only send a probe."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. The head of a request must be complete within uvicorn's `timeout_keep_alive`.

    Data that a client sends after a request without an answer is parsed only after that answer, and is read up to a limit.
    uvicorn would parse all of it into requests, each of which takes a hundred times its bytes.

    When `limit_concurrency` connections are open, a new one replaces another, in this order: one that has its answer and keeps
    sending; one without a request; one whose client is unknown (see `is_known`); one that does not read its answer. Within each
    group the oldest is replaced. If there is none, a few more connections are accepted for probes (see `probe_paths`), and any
    other request on them is refused.
    """

    probe_paths: frozenset[str] = frozenset()
    """Paths that are answered above the limit on connections."""
    _stall_seconds = STALL_SECONDS
    _stall: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    """Runs while there is no request: from the start, and from each answer, to the end of the next head."""
    _unread_bytes = 0
    """Bytes received since the last complete head or piece of a body. The parser keeps them in memory."""
    _reads_head = True
    _between_requests = True
    _refused = False
    _tail = b""
    """The last parsed bytes."""
    _unparsed = b""
    """Data received after a request that has no answer yet."""
    _body_left_bytes = 0
    """Remaining bytes of a body of known length."""
    _running: RequestResponseCycle | None = None
    """The current or the last request; uvicorn's `cycle` is the last one whose head is complete."""
    _running_since = 0.0
    _is_extra = False
    _place: dict[LimitedProtocol, None] | None = None
    """The part of `_places` that the connection is in."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn would count connections only after the head of a request, and refuse probes like all other requests.
        self._connection_limit, self.limit_concurrency = self.limit_concurrency, None
        places = getattr(self.server_state, _PLACES, None)
        if not isinstance(places, _Places):
            places = _Places()
            setattr(self.server_state, _PLACES, places)
        self._places = places

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of an error that does not come from the application."""
        return {"content-type": "text/plain; charset=utf-8"}, message.encode()

    def is_known(self, scope: Scope) -> bool:
        """Whether the client of the request is known. Its connection is then not replaced by a new one."""
        return True

    def begin_drain(self) -> None:
        """From now on each answer closes its connection, unless its headers were already sent."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._await_head()
        if self._connection_limit is not None and len(self.connections) > self._connection_limit:
            self._make_room(self._connection_limit)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unparsed = b""
        self._mark_disconnected()
        self._end_stall()
        self._end_idle()
        self._move_to(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Closing would wait until the client has read the buffered data.
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
        self._body_left_bytes = self._declared_bytes()
        self._end_idle()
        super().on_headers_complete()
        if self._is_extra or getattr(self.server_state, DRAINING, False):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        self._body_left_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        self._body_left_bytes = 0
        super().on_message_complete()
        self._between_requests = True
        # A client that was answered early has as much time after its body as others have after their answer.
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's own timer would also interrupt a client that has begun to send its next head.
        self._unset_keepalive_if_required()
        self._await_head()
        self._parse_on()

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._parse_on()

    def parse(self, data: bytes) -> None:
        """Parse data that completes at most one head."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_LIMIT_BYTES and not self._refused:
            if self._reads_head:
                kilobytes = HEAD_LIMIT_BYTES // 1024
                self._refuse(HTTPStatus.BAD_REQUEST, f"The request's address and headers exceed {kilobytes} KB; send fewer.")
            else:
                # Chunk headers, or trailers after the body. An answer may have been sent already.
                self.transport.abort()

    def _parse_on(self) -> None:
        data, start = self._unparsed, 0
        while start < len(data) and not self._must_wait():
            end = self._end_of_piece(data, start)
            self.parse(data[start:end])
            self._tail = (self._tail + data[max(start, end - len(_END_OF_HEAD) + 1) : end])[1 - len(_END_OF_HEAD) :]
            start = end
        self._unparsed = b"" if self._is_ending() else data[start:]
        was_full, self.flow.full = self.flow.full, len(self._unparsed) > HIGH_WATER_LIMIT
        if self.flow.full:
            self.flow.pause_reading()
        elif was_full and not self._is_ending() and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _must_wait(self) -> bool:
        cycle = self.cycle
        unanswered = cycle is not None and not cycle.response_complete and not cycle.more_body
        return self._is_ending() or bool(self.pipeline) or unanswered

    def _is_ending(self) -> bool:
        return self._refused or self.parser is None or self.transport.is_closing()

    def _end_of_piece(self, data: bytes, start: int) -> int:
        if self._body_left_bytes > 0:
            return start + self._body_left_bytes
        if self._is_in_head():
            # The end of the head may be split between two pieces.
            across = (self._tail + data[start : start + len(_END_OF_HEAD) - 1]).find(_END_OF_HEAD)
            if across >= 0:
                return start + across + len(_END_OF_HEAD) - len(self._tail)
        in_body = not self._between_requests and not self._reads_head
        found = data.find(_END_OF_HEAD, start + _LEAST_PIECE_BYTES if in_body else start)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)

    def _declared_bytes(self) -> int:
        """The Content-Length, which the parser has already validated; 0 if there is none."""
        declared = next((value for name, value in self.headers if name == b"content-length"), b"0")
        return int(declared.lstrip(b"0")[:_LENGTH_DIGITS] or b"0")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running, self._running_since = cycle, self.loop.time()
        if self._is_extra and cycle.scope["path"] not in self.probe_paths:
            app = self._answer_full
        super()._start_asgi_task(cycle, app)

    async def _answer_full(self, _scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        headers, body = self._build_last_answer(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)
        await send(
            {
                "type": "http.response.start",
                "status": HTTPStatus.SERVICE_UNAVAILABLE,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await linger(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def send_400_response(self, msg: str) -> None:
        # uvicorn has one text for every error of its parser, and calls this while it handles the error.
        self._refuse(*describe_parse_error(sys.exc_info()[1], reads_head=self._reads_head))

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        headers, body = self._build_last_answer(status, message)
        head = f"HTTP/1.1 {status} {status.phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._refused = True
        self._end_idle()
        if not self._is_extra:
            self._move_to(self._places.refused)
        self._mark_disconnected()
        self.transport.write(head.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _build_last_answer(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        headers, body = self.build_error(status, message)
        return {**headers, "content-length": str(len(body)), "connection": "close"}, body

    def _mark_disconnected(self) -> None:
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _await_head(self) -> None:
        self._end_idle()
        if self._refused or self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return
        self._idle = self.loop.call_later(PROBE_HEAD_SECONDS if self._is_extra else self.timeout_keep_alive, self._give_up)
        if not self._is_extra:
            self._move_to(self._places.idle)

    def _give_up(self) -> None:
        self._end_idle()
        if self._is_extra:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)
        elif self._is_in_head():
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                "Timed out waiting for the request's address and headers; send them without a pause.",
            )
        else:
            self.transport.close()

    def _is_in_head(self) -> bool:
        return self._reads_head and not self._between_requests

    def _make_room(self, limit: int) -> None:
        places = self._places
        # Connections that are closing stay listed until the loop's next turn, and must not be chosen again.
        running = [item for item in places.running if not item.transport.is_closing()]
        if len(places.refused) + len(places.idle) + len(running) - 1 < limit:
            return
        first = self._choose_to_end(running)
        if first is None:
            self._become_extra()
        else:
            first._give_way()

    def _choose_to_end(self, running: list[LimitedProtocol]) -> LimitedProtocol | None:
        if self._places.refused:
            return next(iter(self._places.refused))
        ranks = [(rank, item) for item in running if (rank := item._rank_to_end()) is not None]
        (order, _), first = min(ranks, key=lambda pair: pair[0], default=((1, 0.0), None))
        # If the oldest idle connection is this one, there is no other.
        idle = next(iter(self._places.idle))
        return first if order == 0 or idle is self else idle

    def _become_extra(self) -> None:
        extra = self._places.extra
        if len(extra) >= PROBE_CONNECTIONS:
            next(iter(extra))._give_way()
        self._end_idle()
        self._is_extra = True
        self._move_to(extra)
        self._await_head()

    def _give_way(self) -> None:
        self._end_idle()
        self._move_to(None)
        self.transport.abort()

    def _rank_to_end(self) -> tuple[int, float] | None:
        """The rank of a connection with a request; the lowest is replaced first. None: it is not replaced."""
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started and cycle.more_body:
                return 0, self._running_since
            if not self.is_known(cycle.scope):
                return 1, self._running_since
        if self._stall is not None:
            stalled_since = self._stall.when() - self._stall_seconds
            if self.loop.time() - stalled_since > SPARED_STALL_SECONDS:
                return 2, stalled_since
        return None

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _end_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
            if not self._is_extra:
                self._move_to(self._places.running)

    def _move_to(self, place: dict[LimitedProtocol, None] | None) -> None:
        if self._place is not None:
            self._place.pop(self, None)
        self._place = place
        if place is not None:
            place[self] = None
