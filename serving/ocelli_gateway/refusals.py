"""Why the gateway does not do what was asked. Any module raises these; only `errors` knows which HTTP answer each becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """A refusal. `message` is the one sentence that the client shows; `fields` are shown with it."""

    retry_after_seconds: int | None = None
    """When the same request may succeed; None: not without a change."""

    def __init__(self, message: str, *, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fields = dict(fields or {})


class ParameterError(GatewayError):
    """A field is missing or its value is not allowed."""


class InputError(GatewayError):
    """The data in the request cannot be used."""


class LimitExceededError(GatewayError):
    """A limit is exceeded by a request that was small enough to be read."""


class TooLargeError(GatewayError):
    """The request has more bytes than are read or stored."""


class ClassifierNotReadyError(GatewayError):
    """The state of the classifier does not allow the operation."""


class UnauthorizedError(GatewayError):
    """The credentials are missing or wrong."""

    def __init__(self, *, token: bool = False) -> None:
        """`token`: the credentials are a bearer token."""
        super().__init__("Unauthorized")
        self.token = token


class NotFoundError(GatewayError):
    """There is no such object, or these credentials cannot see it."""


class ConflictError(GatewayError):
    """The object does not allow the change."""


class TooManyRequestsError(GatewayError):
    """A queue is full or a quota is used up."""

    def __init__(self, message: str, *, retry_after_seconds: int | None = 1) -> None:
        """`retry_after_seconds`: None where waiting does not help, because something has to be deleted first."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(GatewayError):
    """Something that the gateway depends on does not answer."""

    def __init__(self, message: str, *, retry_after_seconds: int = 2) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
