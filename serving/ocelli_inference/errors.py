"""Errors as HTTP answers. No other module of the server knows status codes.

The prediction call and the Open Inference Protocol have the same status codes and different bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ocelli_api.prediction import ImageFault, Refusal
from ocelli_http.body_pace import BodyStalledError, BodyTooSlowError
from ocelli_http.early_answer import linger
from ocelli_inference.admission import QueueFullError
from ocelli_inference.batching import BatcherClosedError
from ocelli_inference.metrics import RequestOutcome
from ocelli_inference.open_inference import InvalidRequestError, UnknownModelError
from ocelli_inference.request_body import BodyTooLargeError, ClientGoneError
from ocelli_inference.service import NotReadyError
from ocelli_storage.image_file import ImageError

RETRY_AFTER_SECONDS = 1
_CLIENT_CLOSED_REQUEST = 499


class OtherRevisionError(Exception):
    """The caller requests a revision that is not served here."""


@dataclass(frozen=True, kw_only=True)
class ErrorAnswer:
    """The answer to an error."""

    status: int
    kind: str
    message: str
    retry: bool = False
    """Whether the same request may succeed soon."""
    body_unread: bool = False


def answer_error(error: Exception) -> ErrorAnswer | None:
    """The answer to an error; None for an unexpected one."""
    match error:
        case ImageError():
            return ErrorAnswer(status=400, kind=error.kind, message=str(error))
        case BodyTooLargeError():
            message = f"{error}; send less"
            return ErrorAnswer(status=400, kind=ImageFault.TOO_LARGE, message=message, body_unread=True)
        case BodyStalledError():
            return ErrorAnswer(status=400, kind=ImageFault.CORRUPT, message=f"{error}; send it again", body_unread=True)
        case BodyTooSlowError():
            return ErrorAnswer(status=400, kind=ImageFault.CORRUPT, message=str(error), body_unread=True)
        case OtherRevisionError():
            return ErrorAnswer(status=421, kind=Refusal.OTHER_REVISION, message=str(error))
        case QueueFullError():
            return ErrorAnswer(status=429, kind=Refusal.QUEUE_FULL, message=str(error), retry=True)
        case NotReadyError():
            return ErrorAnswer(status=503, kind=Refusal.NOT_READY, message=str(error), retry=True)
        case BatcherClosedError():
            return ErrorAnswer(
                status=503, kind=Refusal.NOT_READY, message="the server is stopping; use another server", retry=True
            )
        case InvalidRequestError():
            return ErrorAnswer(status=400, kind=RequestOutcome.INVALID_REQUEST, message=str(error))
        case UnknownModelError():
            return ErrorAnswer(status=404, kind=RequestOutcome.INVALID_REQUEST, message=str(error))
        case ClientGoneError():
            return ErrorAnswer(
                status=_CLIENT_CLOSED_REQUEST, kind=RequestOutcome.CLIENT_GONE, message="the client disconnected"
            )
    return None


def internal_error() -> ErrorAnswer:
    return ErrorAnswer(
        status=500,
        kind=RequestOutcome.INTERNAL_ERROR,
        message="the prediction failed; see the log of the server",
    )


def build_error_response(answer: ErrorAnswer, body: object) -> Response:
    """The response with its headers; `body` is the JSON document."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if answer.retry else {}
    if answer.body_unread:
        return _EarlyResponse(body, status_code=answer.status, headers=headers | {"Connection": "close"})
    return JSONResponse(body, status_code=answer.status, headers=headers)


class _EarlyResponse(JSONResponse):
    """An answer that is sent before the end of the body, see `ocelli_http.early_answer`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await linger(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
