"""What applies to every answer: JSON errors, a transaction id, one line in the log, and time to read an early answer."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocelli_gateway.errors import INTERNAL_ERROR, ErrorAnswer, answer_error
from ocelli_gateway.http_protocol import CALLER_KEY, KNOWN_METHODS, LIVE_PATH, new_transaction_id
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.refusals import GatewayError
from ocelli_gateway.wire import TRANSACTION_HEADER
from ocelli_http.early_answer import linger
from ocelli_storage.archives import shown_name

access_logger = logging.getLogger("ocelli_gateway.access")
logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
ROUTE_KEY = "ocelli.route"
"""Key of the scope that holds the pattern of the address, for metrics."""
UNKNOWN_ROUTE = "unknown"
_SHOWN_PATH_CHARACTERS = 200


@dataclass(kw_only=True)
class _Exchange:
    """One request and its answer while it is in flight."""

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
            await linger(self.receive_message, LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self.send(message)
        self.answered = self.answered or last

    async def send_error(self, error: ErrorAnswer) -> None:
        body = json.dumps(error.body(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        await self.send_message({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send_message({"type": "http.response.body", "body": body, "more_body": False})


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
            answer = self._answer_error(error, exchange)
            if exchange.status:
                # Part of an answer is sent: only a broken connection shows the client that it is incomplete.
                raise
            await exchange.send_error(answer)
        finally:
            self._record(exchange, time.monotonic() - started)

    def _answer_error(self, error: Exception, exchange: _Exchange) -> ErrorAnswer:
        answer = answer_error(error)
        fields = {"transaction": exchange.transaction_id}
        if answer is None:
            logger.error("request failed", exc_info=error, extra=fields)
            return INTERNAL_ERROR
        if not isinstance(error, GatewayError):
            logger.warning("request refused", extra={**fields, "code": answer.status, "cause": str(error)})
        return answer

    def _record(self, exchange: _Exchange, seconds: float) -> None:
        scope = exchange.scope
        route = scope.get(ROUTE_KEY, UNKNOWN_ROUTE)
        # Clients can send any word as method.
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
