"""uvicorn's HTTP protocol, held to the contract where uvicorn answers by itself: every answer is JSON, and there is always one.

It must not know what the requests mean.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ocelli_gateway.wire import TRANSACTION_HEADER

HEAD_LIMIT_BYTES = 64 * 1024
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending: closing over what it has sent resets the connection, and loses the answer."""
CUT_OFF_KEY = "ocelli.cut_off"
"""Key of the scope that is true where the client said its last before its body was complete: the body ends all the same."""
_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]")


def new_transaction_id() -> str:
    """A fresh value for the header that every answer carries."""
    return uuid.uuid4().hex


class ContractProtocol(HttpToolsProtocol):
    """One connection. Build its class with `build_protocol`."""

    _stall_seconds = 60.0
    _stall: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _reads_head = True
    _between_requests = True
    _refused = False

    def pause_writing(self) -> None:
        super().pause_writing()
        # Closing would wait for the client to take what lies in memory for it.
        self._stall = self.loop.call_later(self._stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_stall()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reads_head = True
        self._between_requests = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between_requests = True

    def on_headers_complete(self) -> None:
        self._reads_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._between_requests:
            # Scripts send `/v3/classifiers/ü` as raw UTF-8; the parser takes addresses for ASCII.
            line, newline, rest = data.partition(b"\n")
            if not line.isascii():
                data = _OUTSIDE_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line) + newline + rest
        if self._reads_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # The parser keeps an unfinished head in memory, however long it grows.
        if self._reads_head and self._head_bytes > HEAD_LIMIT_BYTES and not self._refused:
            self.send_400_response(f"The request's address and headers exceed {HEAD_LIMIT_BYTES // 1024} KB; send fewer.")

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

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"code": 400, "error": msg, "error_id": "parameter_error"}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            f"{TRANSACTION_HEADER.lower()}: {new_transaction_id()}\r\n"
            "connection: close\r\n\r\n"
        )
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def build_protocol(*, stall_seconds: float) -> type[ContractProtocol]:
    """The class of connections that are broken off when the client takes nothing of what is sent for so long."""

    class Protocol(ContractProtocol):
        _stall_seconds = stall_seconds

    return Protocol
