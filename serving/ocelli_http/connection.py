"""uvicorn's HTTP protocol with limits on what a connection may cost before anything is known of who has it.

It must not know what is served, nor what an error looks like there: `build_error` is the one thing that a server gives it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ocelli_http.early_answer import LINGER_SECONDS, linger

HEAD_LIMIT_BYTES = 64 * 1024
STALL_SECONDS = 60.0
"""A connection whose client takes nothing of what is sent for so long is broken off."""
SPARED_STALL_SECONDS = 5.0
"""A client that has taken nothing of its answer for longer makes room where others need it."""
PROBE_CONNECTIONS = 16
"""So many connections above the limit may show that they bring a probe."""
PROBE_HEAD_SECONDS = 2.0
"""How long such a connection may take to show it."""
_FULL = "The server has as many connections as it takes; try again in a moment."
DRAINING = "draining"
"""Attribute of uvicorn's state of a server, true from the signal to stop."""
_PLACES = "places"
"""Attribute of uvicorn's state of a server, see `_Places`."""
_END_OF_HEAD = b"\r\n\r\n"
_LEAST_PIECE_BYTES = 64
"""Of a body whose length is not known: smaller pieces would cost more than they bound."""
_LENGTH_DIGITS = 20
_OVERFLOWS = ("Content-Length overflow", "Chunk size overflow")
"""What the parser says of a number that does not fit into 64 bits."""
_FRAMING_HEADERS = ("Content-Length", "Transfer-Encoding")


class _Flow(FlowControl):
    """Leaves reading paused while the connection holds enough, whoever asks for more."""

    full = False

    def resume_reading(self) -> None:
        if not self.full:
            super().resume_reading()


@dataclass(kw_only=True)
class _Places:
    """The connections of one server that are not ending, by what they are at; each the longer so, the further in front.

    So that a new one need not look at each: where many come, that would keep the event loop busy.
    """

    refused: dict[LimitedProtocol, None] = field(default_factory=dict)
    idle: dict[LimitedProtocol, None] = field(default_factory=dict)
    """Without a request."""
    running: dict[LimitedProtocol, None] = field(default_factory=dict)
    extra: dict[LimitedProtocol, None] = field(default_factory=dict)
    """Above the limit, so that they may bring a probe only."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Until the head of a request is whole it may take as long as uvicorn's `timeout_keep_alive`, and no more.

    What a client sends behind a request that has no answer yet is not parsed before there is one, and read up to a bound only:
    uvicorn would keep all of it as requests, each of which takes a hundred times its bytes.

    Where `limit_concurrency` connections are open, a new one takes the place of another, in this order: of those that have had
    their answer and go on sending, of those without a request, of those whose request is of somebody unknown (see `is_known`),
    and of those that do not read their answers; among these of the one that has been so for longest. Where there is none, a few
    may bring a probe (see `probe_paths`); whatever else they bring is refused.
    """

    probe_paths: frozenset[str] = frozenset()
    """What is answered above the limit on connections."""
    _stall_seconds = STALL_SECONDS
    _stall: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    """Runs while there is no request: from the first moment, and from each answer, to the end of a request's head."""
    _unread_bytes = 0
    """What came since the last head, or piece of a body, was complete: the parser keeps it in memory."""
    _reads_head = True
    _between_requests = True
    _refused = False
    _tail = b""
    """The last bytes that were parsed."""
    _unparsed = b""
    """What came behind a request that has no answer yet."""
    _body_left_bytes = 0
    """Of a body whose length is known."""
    _running: RequestResponseCycle | None = None
    """The request that is worked on, or was last; uvicorn's `cycle` is the last one whose head is whole."""
    _running_since = 0.0
    _is_extra = False
    _place: dict[LimitedProtocol, None] | None = None
    """The part of `_places` that the connection is in."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn would only count connections once the head of a request has come, and refuse probes with the rest.
        self._connection_limit, self.limit_concurrency = self.limit_concurrency, None
        places = getattr(self.server_state, _PLACES, None)
        if not isinstance(places, _Places):
            places = _Places()
            setattr(self.server_state, _PLACES, places)
        self._places = places

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of an answer that no application gave."""
        return {"content-type": "text/plain; charset=utf-8"}, message.encode()

    def is_known(self, scope: Scope) -> bool:
        """Whether it is known who sends the request, so that its connection is spared where others need room."""
        return True

    def begin_drain(self) -> None:
        """From now on each answer says that it is its connection's last; one that has begun said otherwise, which holds."""
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
        self._tell_gone()
        self._end_stall()
        self._end_idle()
        self._move_to(None)

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
        # Whoever was answered early has as long after its body as others have after their answer.
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn's own timer would also cut off the beginning of a next head.
        self._unset_keepalive_if_required()
        self._await_head()
        self._parse_on()

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._parse_on()

    def parse(self, data: bytes) -> None:
        """Parse what comes next: at most one head comes to its end in it."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_LIMIT_BYTES and not self._refused:
            if self._reads_head:
                kilobytes = HEAD_LIMIT_BYTES // 1024
                self._refuse(HTTPStatus.BAD_REQUEST, f"The request's address and headers exceed {kilobytes} KB; send fewer.")
            else:
                # What stands between the pieces of a body, or after its last. There may be an answer already.
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
            # Its end may have come in two pieces.
            across = (self._tail + data[start : start + len(_END_OF_HEAD) - 1]).find(_END_OF_HEAD)
            if across >= 0:
                return start + across + len(_END_OF_HEAD) - len(self._tail)
        in_body = not self._between_requests and not self._reads_head
        found = data.find(_END_OF_HEAD, start + _LEAST_PIECE_BYTES if in_body else start)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)

    def _declared_bytes(self) -> int:
        """What the parser has found to be a number already; 0 where nothing is declared."""
        declared = next((value for name, value in self.headers if name == b"content-length"), b"0")
        return int(declared.lstrip(b"0")[:_LENGTH_DIGITS] or b"0")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running, self._running_since = cycle, self.loop.time()
        if self._is_extra and cycle.scope["path"] not in self.probe_paths:
            app = self._answer_full
        super()._start_asgi_task(cycle, app)

    async def _answer_full(self, _scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        own_headers, body = self.build_error(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)
        headers = {**own_headers, "content-length": str(len(body)), "connection": "close"}
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
        # uvicorn says the same of everything that its parser refuses, and calls this while it handles the refusal.
        self._refuse(*_describe_refusal(sys.exc_info()[1], reads_head=self._reads_head))

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        own_headers, body = self.build_error(status, message)
        headers = {**own_headers, "content-length": str(len(body)), "connection": "close"}
        head = f"HTTP/1.1 {status} {status.phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._refused = True
        self._end_idle()
        if not self._is_extra:
            self._move_to(self._places.refused)
        self._tell_gone()
        self.transport.write(head.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _tell_gone(self) -> None:
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
                HTTPStatus.REQUEST_TIMEOUT, "The request's address and headers did not come in time; send them at once."
            )
        else:
            self.transport.close()

    def _is_in_head(self) -> bool:
        return self._reads_head and not self._between_requests

    def _make_room(self, limit: int) -> None:
        places = self._places
        # Those that end have a place until the loop's next turn, and must not be chosen again.
        running = [item for item in places.running if not item.transport.is_closing()]
        if len(places.refused) + len(places.idle) + len(running) - 1 < limit:
            return
        first = self._choose_to_end(running)
        if first is None:
            self._become_extra()
        else:
            first._make_way()

    def _choose_to_end(self, running: list[LimitedProtocol]) -> LimitedProtocol | None:
        if self._places.refused:
            return next(iter(self._places.refused))
        ranks = [(rank, item) for item in running if (rank := item._rank_to_end()) is not None]
        (order, _), first = min(ranks, key=lambda pair: pair[0], default=((1, 0.0), None))
        # This connection has come last.
        idle = next(iter(self._places.idle))
        return first if order == 0 or idle is self else idle

    def _become_extra(self) -> None:
        extra = self._places.extra
        if len(extra) >= PROBE_CONNECTIONS:
            next(iter(extra))._make_way()
        self._end_idle()
        self._is_extra = True
        self._move_to(extra)
        self._await_head()

    def _make_way(self) -> None:
        self._end_idle()
        self._move_to(None)
        self.transport.abort()

    def _rank_to_end(self) -> tuple[int, float] | None:
        """Of a connection with a request; the least is the first to make room for another one. None: it is spared."""
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


def _describe_refusal(error: BaseException | None, *, reads_head: bool) -> tuple[HTTPStatus, str]:
    """Status and sentence for what the parser refuses."""
    fact = str(error)
    if fact in _OVERFLOWS:
        return (
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "The request body is declared longer than any that is read; send a shorter one.",
        )
    if any(name in fact for name in _FRAMING_HEADERS):
        return HTTPStatus.BAD_REQUEST, (
            "The headers Content-Length and Transfer-Encoding do not tell where the request body ends; send one of them, once: "
            "a number of bytes, or chunked."
        )
    # The one callback that can fail is uvicorn's for the end of the head, over an address that cannot be taken apart.
    if isinstance(error, httptools.HttpParserInvalidURLError | httptools.HttpParserCallbackError):
        return HTTPStatus.BAD_REQUEST, (
            "The address in the request's first line is not valid; send a path that begins with / and has all but letters, "
            "digits and common punctuation percent-encoded."
        )
    if reads_head:
        return HTTPStatus.BAD_REQUEST, (
            "The request's first line or one of its headers is not valid HTTP; send METHOD ADDRESS HTTP/1.1, and each header "
            "on a line of its own as NAME: VALUE."
        )
    return HTTPStatus.BAD_REQUEST, (
        "The chunks of the request body are not valid HTTP; send each as its length in hexadecimal digits, its bytes, and a "
        "line end after both."
    )
