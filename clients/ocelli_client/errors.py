"""What can go wrong between a client and the gateway. It must not know what a program does about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class OcelliError(Exception):
    """Any failure that this library reports; its text is for people."""


class NotReachableError(OcelliError):
    """The gateway did not answer, or the connection was lost."""


class WaitTimeoutError(OcelliError):
    """What was waited for did not happen in time."""


class AnswerError(OcelliError):
    """The answer is not one of Ocelli's, for example because another server is at the address."""


class RefusedError(OcelliError):
    """The gateway answered with an error."""

    def __init__(self, code: int, message: str, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The HTTP status."""
        self.message = message
        self.body: Mapping[str, Any] = body or {}
        """The whole JSON body; empty if it was not JSON."""


class LoginError(RefusedError):
    """The credentials are missing, wrong or expired."""


class NotFoundError(RefusedError):
    """There is no such object, or it belongs to another tenant."""


class ConflictError(RefusedError):
    """The classifier cannot be changed by REST, or its state does not allow the change."""

    @property
    def manifest(self) -> str | None:
        """The YAML to commit instead, where the classifier belongs to a manifest."""
        found = self.body.get("manifest")
        return found if isinstance(found, str) else None


class BusyError(RefusedError):
    """The gateway is not ready, or a limit of requests is reached: the same request may succeed later."""

    retry_after_seconds: float | None = None
