"""The gateway's connections, held to the contract where no application answers: every answer is JSON, and there is always one.

It must not know what the requests mean.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping

from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_http.connection import LimitedProtocol

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
        body = json.dumps({"code": status, "error": message, "error_id": "parameter_error"}).encode()
        return {"content-type": "application/json", TRANSACTION_HEADER.lower(): new_transaction_id()}, body

    def data_received(self, data: bytes) -> None:
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
        super().data_received(data)

    def on_headers_complete(self) -> None:
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
        if cycle.more_body:
            cycle.scope[CUT_OFF_KEY] = True  # type: ignore[literal-required]
            cycle.more_body = False
            cycle.message_event.set()
        return True


def build_protocol(*, stall_seconds: float) -> type[ContractProtocol]:
    """The class of connections that are broken off when the client takes nothing of what is sent for so long."""

    class Protocol(ContractProtocol):
        _stall_seconds = stall_seconds

    return Protocol
