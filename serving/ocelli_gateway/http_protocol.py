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


def new_transaction_id() -> str:
    """A fresh value for the header that every answer carries."""
    return uuid.uuid4().hex


class ContractProtocol(LimitedProtocol):
    """One connection. Build its class with `build_protocol`."""

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        body = json.dumps({"code": status, "error": message, "error_id": "parameter_error"}).encode()
        return {"content-type": "application/json", TRANSACTION_HEADER.lower(): new_transaction_id()}, body

    def data_received(self, data: bytes) -> None:
        if self._between_requests:
            # Scripts send `/v3/classifiers/ü` as raw UTF-8; the parser takes addresses for ASCII.
            line, newline, rest = data.partition(b"\n")
            if not line.isascii():
                data = _OUTSIDE_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line) + newline + rest
        super().data_received(data)

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
