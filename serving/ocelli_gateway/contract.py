"""What holds for every answer, whatever it is about: JSON errors, a transaction id, one line in the log, and a quiet end.

An answer that is given before the request's body was read is followed by reading on for a moment: a connection closed over
unread bytes is reset, and the client would never see the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocelli_gateway.errors import GatewayError, InternalError, translate_error
from ocelli_gateway.http_protocol import CALLER_KEY, KNOWN_METHODS, LIVE_PATH, new_transaction_id
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_storage.archives import shown_name

access_logger = logging.getLogger("ocelli_gateway.access")
logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
ROUTE_KEY = "ocelli.route"
"""Key of the scope under which the pattern of the address is kept, for metrics."""
UNKNOWN_ROUTE = "unknown"
_SHOWN_PATH_CHARACTERS = 200


@dataclass(kw_only=True)
class _Exchange:
    """One request and its answer, as far as they have come."""

    scope: Scope
    receive: Receive
    send: Send
    transaction_id: str = field(default_factory=new_transaction_id)
    body_read: bool = False
    status: int = 0
    answered: bool = False

    def __post_init__(self) -> None:
        headers = dict(self.scope["headers"])
        self.body_read = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"

    async def receive_message(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.body_read = True
        return message

    async def send_message(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (TRANSACTION_HEADER.lower().encode(), self.transaction_id.encode())]
            if not self.body_read:
                headers.append((b"connection", b"close"))
            await self.send({**message, "headers": headers})
            return
        last = not message.get("more_body", False)
        if last and not self.body_read:
            await self.send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self.send(message)
        self.answered = self.answered or last

    async def send_error(self, error: GatewayError) -> None:
        body = json.dumps(error.body(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        await self.send_message({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send_message({"type": "http.response.body", "body": body, "more_body": False})

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.body_read:
                    await self.receive_message()
        except TimeoutError:
            pass


class ContractMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        exchange = _Exchange(scope=scope, receive=receive, send=send)
        try:
            await self._app(scope, exchange.receive_message, exchange.send_message)
        except Exception as error:
            refusal = self._refusal(error, exchange)
            if exchange.status:
                # Half an answer is out: only a broken connection tells the client that it is none.
                raise
            await exchange.send_error(refusal)
        finally:
            self._record(exchange, time.monotonic() - started)

    def _refusal(self, error: Exception, exchange: _Exchange) -> GatewayError:
        refusal = translate_error(error)
        fields = {"transaction": exchange.transaction_id}
        if refusal is None:
            logger.error("request failed", exc_info=error, extra=fields)
            return InternalError("Something went wrong in the service; it has been logged.")
        if not isinstance(error, GatewayError):
            logger.warning("request refused", extra={**fields, "code": refusal.status, "cause": str(error)})
        return refusal

    def _record(self, exchange: _Exchange, seconds: float) -> None:
        scope = exchange.scope
        route = scope.get(ROUTE_KEY, UNKNOWN_ROUTE)
        # There is no end of words that a client may send as method.
        method = scope["method"] if route != UNKNOWN_ROUTE and scope["method"].encode() in KNOWN_METHODS else ""
        self._metrics.requests.labels(route, method, str(exchange.status)).inc()
        self._metrics.request_seconds.labels(route, method).observe(seconds)
        if route == LIVE_PATH:
            return
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": shown_name(scope["path"], _SHOWN_PATH_CHARACTERS),
            "code": exchange.status,
            "milliseconds": round(seconds * 1000, 1),
            "transaction": exchange.transaction_id,
            "user": scope.get(CALLER_KEY),
        }
        access_logger.info("request", extra=fields)
