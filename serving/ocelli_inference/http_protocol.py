"""The inference server's connections. Errors that occur before the application have the form of the prediction call.

It must not know what the requests mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from ocelli_api.prediction import Refusal
from ocelli_http.connection import LimitedProtocol
from ocelli_inference.errors import RETRY_AFTER_SECONDS
from ocelli_inference.metrics import RequestOutcome


class InferenceProtocol(LimitedProtocol):
    """One connection."""

    def build_error(self, status: int, message: str) -> tuple[Mapping[str, str], bytes]:
        full = status == HTTPStatus.SERVICE_UNAVAILABLE
        kind = Refusal.QUEUE_FULL if full else RequestOutcome.INVALID_REQUEST
        body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
        headers = {"content-type": "application/json"}
        return headers | ({"retry-after": str(RETRY_AFTER_SECONDS)} if full else {}), body
