"""The gateway's connections: answers that the application does not give follow the contract as well.

It must not know what the requests mean.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from uvicorn._types import Scope

from ocelli_gateway.errors import ErrorAnswer
from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_http.connection import DRAINING, HEAD_LIMIT_BYTES, LimitedProtocol

LIVE_PATH = "/livez"
"""For load balancers, which ask every few seconds: not logged, and answered even if all connections are in use."""
CALLER_KEY = "ocelli.user"
"""Key of the scope that holds the name of the authenticated user."""
LEFT_KEY = "ocelli.left"
"""Key of the scope that holds an event: set once the client cannot read the answer, or the body cannot become complete."""
STOP_KEY = "ocelli.stop"
"""Key of the scope that holds an event for answers without an end: set once the server stops, or the client has closed its
sending side, which may mean that it has left."""
CUT_OFF_KEY = "ocelli.cut_off"
"""Key of the scope that is true where the client closed its sending side before the body was complete."""
PROBE_AFTER_SECONDS = 1.0
"""A client that has closed its sending side and has no answer after so long is probed, see `eof_received`."""
_CHECK_SECONDS = 0.5
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
"""A method of RFC 9110; the parser refuses longer ones."""
_METHOD = re.compile(rb"(" + _TOKEN + rb") ")
_PART_OF_LINE = re.compile(_TOKEN + rb"(?: [^\n]*)?")
KNOWN_METHODS = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"))
_ERROR_IDS: Mapping[int, str] = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "limit_exceeded"}
_STAND_IN_METHOD = b"REPORT"
"""The parser knows it, and no address allows it: it replaces methods that the parser refuses."""


def new_transaction_id() -> str:
    """A new value for the header of every answer."""
    return uuid.uuid4().hex


class ContractProtocol(LimitedProtocol):
    """One connection. Build its class with `build_protocol`."""

    probe_paths = frozenset({LIVE_PATH})
    _unknown_method = ""
    _line = b""
    """The beginning of a request whose first line is not complete."""
    _sending_ended = False
    _probe: asyncio.TimerHandle | None = None

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        full = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error_id = "unavailable" if full else _ERROR_IDS.get(status, "parameter_error")
        body = json.dumps(ErrorAnswer(status=status, error_id=error_id, message=message).body()).encode()
        headers = {"content-type": "application/json", TRANSACTION_HEADER.lower(): new_transaction_id()}
        return headers | ({"retry-after": "1"} if full else {}), body

    def is_known(self, scope: Scope) -> bool:
        return CALLER_KEY in scope

    def parse(self, data: bytes) -> None:
        if self._between_requests:
            # Old clients send an empty line after a body.
            data = self._line + data if self._line else data.lstrip(b"\r\n")
            self._line = b""
            if not data:
                return
            if len(data) <= HEAD_LIMIT_BYTES and _PART_OF_LINE.fullmatch(data):
                self._line = data
                return
            # Scripts send `/v3/classifiers/ü` as raw UTF-8; the parser expects ASCII.
            line, newline, rest = data.partition(b"\n")
            if not line.isascii():
                data = _OUTSIDE_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line) + newline + rest
            method = _METHOD.match(data)
            self._unknown_method = ""
            if method is not None and method[1] not in KNOWN_METHODS:
                self._unknown_method = method[1].decode()
                data = _STAND_IN_METHOD + data[method.end(1) :]
        super().parse(data)

    def begin_drain(self) -> None:
        super().begin_drain()
        self._report(STOP_KEY)

    def shutdown(self) -> None:
        self._report(STOP_KEY)
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._probe is not None:
            self._probe.cancel()
        self._report(LEFT_KEY)

    def on_headers_complete(self) -> None:
        self.scope[LEFT_KEY] = asyncio.Event()  # type: ignore[literal-required]
        self.scope[STOP_KEY] = asyncio.Event()  # type: ignore[literal-required]
        if getattr(self.server_state, DRAINING, False):
            self.scope[STOP_KEY].set()  # type: ignore[literal-required]
        super().on_headers_complete()
        if self._unknown_method:
            # The application has not started yet, and must show the method of the client.
            self.scope["method"] = self._unknown_method

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has closed its sending side may still read: it gets its answers, or a 400 where the body is cut off.

        A connection closed on both sides looks the same until something is sent: then the client's system answers with a reset.
        """
        self._sending_ended = True
        self._report(STOP_KEY)
        return self._has_answers_left()

    def _parse_on(self) -> None:
        super()._parse_on()
        if self._sending_ended and not self._has_answers_left():
            self.transport.close()

    def _has_answers_left(self) -> bool:
        """Whether requests are still unanswered, once the client has closed its sending side."""
        if self._refused or self.transport.is_closing():
            return False
        if self._unparsed:
            return True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.keep_alive = False
        if cycle.more_body:
            cycle.scope[CUT_OFF_KEY] = True  # type: ignore[literal-required]
            cycle.more_body = False
            cycle.message_event.set()
            self._report(LEFT_KEY)
        if self._probe is None:
            self._probe = self.loop.call_later(PROBE_AFTER_SECONDS, self._probe_client)
        return True

    def _probe_client(self) -> None:
        cycle = self.cycle
        if self.transport.is_closing() or cycle is None:
            return
        if not cycle.response_started and cycle.scope["http_version"] == "1.1":
            # Every client of HTTP/1.1 ignores it.
            self.transport.write(_CONTINUE)
        self._probe = self.loop.call_later(_CHECK_SECONDS, self._check_client)

    def _check_client(self) -> None:
        # The loop does not read any more, so it would not notice.
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        if not self.transport.is_closing():
            self._probe = self.loop.call_later(_CHECK_SECONDS, self._check_client)

    def _is_in_head(self) -> bool:
        return super()._is_in_head() or bool(self._line)

    def _report(self, key: str) -> None:
        """Set an event of the requests in flight."""
        for cycle in (self._running, self.cycle):
            if cycle is not None:
                cycle.scope[key].set()  # type: ignore[literal-required]


def build_protocol(*, stall_seconds: float) -> type[ContractProtocol]:
    """The class of connections that are closed when the client reads nothing for so long."""

    class Protocol(ContractProtocol):
        _stall_seconds = stall_seconds

    return Protocol
