"""The gateway's connections, held to the contract where no application answers: every answer is JSON, and there is always one.

It must not know what the requests mean.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from uvicorn._types import Scope

from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_http.connection import LimitedProtocol

CALLER_KEY = "ocelli.user"
"""Key of the scope under which the user's name is kept, once it is known."""
LEFT_KEY = "ocelli.left"
"""Key of the scope of an event that is set once the client has closed its side of the connection, or the connection is gone."""
CUT_OFF_KEY = "ocelli.cut_off"
"""Key of the scope that is true where the client said its last before its body was complete: the body ends all the same."""
_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]")
_METHOD = re.compile(rb"([A-Z][A-Z-]{0,31}) ")
KNOWN_METHODS = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"))
_STAND_IN_METHOD = b"REPORT"
"""The parser knows it and no address does: it stands for methods that the parser refuses."""


def new_transaction_id() -> str:
    """A fresh value for the header that every answer carries."""
    return uuid.uuid4().hex


class ContractProtocol(LimitedProtocol):
    """One connection. Build its class with `build_protocol`."""

    _unknown_method = ""

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        full = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        body = json.dumps({"code": status, "error": message, "error_id": "unavailable" if full else "parameter_error"}).encode()
        headers = {"content-type": "application/json", TRANSACTION_HEADER.lower(): new_transaction_id()}
        return headers | ({"retry-after": "1"} if full else {}), body

    def is_known(self, scope: Scope) -> bool:
        return CALLER_KEY in scope

    def parse(self, data: bytes) -> None:
        if self._between_requests:
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
        self._tell_left()

    def on_headers_complete(self) -> None:
        self.scope[LEFT_KEY] = asyncio.Event()  # type: ignore[literal-required]
        super().on_headers_complete()
        if self._unknown_method:
            # The application has not begun yet, and is to name the method that came.
            self.scope["method"] = self._unknown_method

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has said all it will may still listen: whoever cuts a body off gets the 400 that says so."""
        cycle = self.cycle
        if self._refused or cycle is None or cycle.response_complete:
            return None
        cycle.keep_alive = False
        self._tell_left()
        if cycle.more_body:
            cycle.scope[CUT_OFF_KEY] = True  # type: ignore[literal-required]
            cycle.more_body = False
            cycle.message_event.set()
        return True

    def _tell_left(self) -> None:
        for cycle in (self._running, self.cycle):
            if cycle is not None:
                cycle.scope[LEFT_KEY].set()  # type: ignore[literal-required]


def build_protocol(*, stall_seconds: float) -> type[ContractProtocol]:
    """The class of connections that are broken off when the client takes nothing of what is sent for so long."""

    class Protocol(ContractProtocol):
        _stall_seconds = stall_seconds

    return Protocol
