"""The gateway's connections, held to the contract where no application answers: every answer is JSON, and there is always one.

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

from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_http.connection import HEAD_LIMIT_BYTES, LimitedProtocol

LIVE_PATH = "/livez"
"""For load balancers, which ask every few seconds: no line in the log, and a place where none is left."""
CALLER_KEY = "ocelli.user"
"""Key of the scope under which the user's name is kept, once it is known."""
LEFT_KEY = "ocelli.left"
"""Key of the scope of an event that is set once the client cannot read the answer, or the body cannot become complete."""
CUT_OFF_KEY = "ocelli.cut_off"
"""Key of the scope that is true where the client said its last before its body was complete: the body ends all the same."""
ASK_SECONDS = 1.0
"""A client that has said its last, and has no answer after so long, is asked whether it still listens, see `eof_received`."""
_LOOK_SECONDS = 0.5
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
"""A method as RFC 9110 has it; more characters than any has are refused by the parser."""
_METHOD = re.compile(rb"(" + _TOKEN + rb") ")
_PART_OF_LINE = re.compile(_TOKEN + rb"(?: [^\n]*)?")
KNOWN_METHODS = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"))
_ERROR_IDS: Mapping[int, str] = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "limit_exceeded"}
_STAND_IN_METHOD = b"REPORT"
"""The parser knows it and no address does: it stands for methods that the parser refuses."""


def new_transaction_id() -> str:
    """A fresh value for the header that every answer carries."""
    return uuid.uuid4().hex


class ContractProtocol(LimitedProtocol):
    """One connection. Build its class with `build_protocol`."""

    probe_paths = frozenset({LIVE_PATH})
    _unknown_method = ""
    _line = b""
    """The beginning of a request whose first line is not whole."""
    _said_last = False
    _ask: asyncio.TimerHandle | None = None

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        full = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error_id = "unavailable" if full else _ERROR_IDS.get(status, "parameter_error")
        body = json.dumps({"code": status, "error": message, "error_id": error_id}).encode()
        headers = {"content-type": "application/json", TRANSACTION_HEADER.lower(): new_transaction_id()}
        return headers | ({"retry-after": "1"} if full else {}), body

    def is_known(self, scope: Scope) -> bool:
        return CALLER_KEY in scope

    def parse(self, data: bytes) -> None:
        if self._between_requests:
            # Old clients send an empty line behind a body.
            data = self._line + data if self._line else data.lstrip(b"\r\n")
            self._line = b""
            if not data:
                return
            if len(data) <= HEAD_LIMIT_BYTES and _PART_OF_LINE.fullmatch(data):
                self._line = data
                return
            # Scripts send `/v3/classifiers/ü` as raw UTF-8; the parser takes addresses for ASCII.
            line, newline, rest = data.partition(b"\n")
            if not line.isascii():
                data = _OUTSIDE_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line) + newline + rest
            method = _METHOD.match(data)
            self._unknown_method = ""
            if method is not None and method[1] not in KNOWN_METHODS:
                self._unknown_method = method[1].decode()
                data = _STAND_IN_METHOD + data[method.end(1) :]
        super().parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._ask is not None:
            self._ask.cancel()
        self._tell_left()

    def on_headers_complete(self) -> None:
        self.scope[LEFT_KEY] = asyncio.Event()  # type: ignore[literal-required]
        super().on_headers_complete()
        if self._unknown_method:
            # The application has not begun yet, and is to name the method that came.
            self.scope["method"] = self._unknown_method

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has said all it will may still listen: it gets its answers, and whoever cuts a body off the 400 for it.

        Closing both sides looks the same, until the client is sent something: then its system answers with a reset.
        """
        self._said_last = True
        return self._answer_last()

    def _parse_on(self) -> None:
        super()._parse_on()
        if self._said_last and not self._answer_last():
            self.transport.close()

    def _answer_last(self) -> bool:
        """Whether there is something to answer still, once the client has said its last."""
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
            self._tell_left()
        if self._ask is None:
            self._ask = self.loop.call_later(ASK_SECONDS, self._ask_for_listener)
        return True

    def _ask_for_listener(self) -> None:
        cycle = self.cycle
        if self.transport.is_closing() or cycle is None:
            return
        if not cycle.response_started and cycle.scope["http_version"] == "1.1":
            # Every client of HTTP/1.1 reads over it.
            self.transport.write(_CONTINUE)
        self._ask = self.loop.call_later(_LOOK_SECONDS, self._look_for_listener)

    def _look_for_listener(self) -> None:
        # Nothing is read any more, so that the loop would not tell.
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        if not self.transport.is_closing():
            self._ask = self.loop.call_later(_LOOK_SECONDS, self._look_for_listener)

    def _is_in_head(self) -> bool:
        return super()._is_in_head() or bool(self._line)

    def _tell_left(self) -> None:
        for cycle in (self._running, self.cycle):
            if cycle is not None:
                cycle.scope[LEFT_KEY].set()  # type: ignore[literal-required]


def build_protocol(*, stall_seconds: float) -> type[ContractProtocol]:
    """The class of connections that are broken off when the client takes nothing of what is sent for so long."""

    class Protocol(ContractProtocol):
        _stall_seconds = stall_seconds

    return Protocol
