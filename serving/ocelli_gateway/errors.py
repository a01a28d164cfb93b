"""What the gateway answers when it does not do what was asked. Only this module knows HTTP status codes of refusals.

Every refusal has the body of the contract, `{"code", "error", "error_id"}`; those of classify hold `images` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocelli_cluster.client import ClusterError, InvalidError, QuotaError

from ocelli_gateway.classifier_store import NamespaceMissingError, UnreadableClassifierError
from ocelli_storage.object_store import ObjectStoreError, StoreQuotaError

ERROR_IDS = (
    "parameter_error",
    "input_error",
    "limit_exceeded",
    "classifier_not_ready",
    "not_found",
    "conflict",
    "unavailable",
    "unauthorized",
    "internal_error",
)
"""Every `error_id` that there is."""


class GatewayError(Exception):
    """A refusal: `message` is the one human sentence that the client shows."""

    status = 500
    error_id = "internal_error"

    def __init__(
        self, message: str, *, headers: Mapping[str, str] | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})
        self.fields = dict(fields or {})

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"code": self.status, "error": self.message, "error_id": self.error_id, **self.fields}


class ParameterError(GatewayError):
    """A field is missing or has a value that it may not have."""

    status = 400
    error_id = "parameter_error"


class InputError(GatewayError):
    """The data that was sent cannot be used."""

    status = 400
    error_id = "input_error"


class LimitExceededError(GatewayError):
    """More than is allowed, though small enough to be read."""

    status = 400
    error_id = "limit_exceeded"


class TooLargeError(GatewayError):
    """More bytes than are read."""

    status = 413
    error_id = "limit_exceeded"


class ClassifierNotReadyError(GatewayError):
    """The classifier is in a state that does not allow this."""

    status = 400
    error_id = "classifier_not_ready"


class UnauthorizedError(GatewayError):
    """No credentials, or wrong ones."""

    status = 401
    error_id = "unauthorized"

    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(message, headers={"WWW-Authenticate": 'Basic realm="Ocelli", charset="UTF-8"'})


class UnknownApiKeyError(ParameterError):
    """An API key that is nobody's was to be swapped for a token: the body is that of the identity service."""

    def __init__(self) -> None:
        message = "Provided API key could not be found"
        super().__init__(message, fields={"errorCode": "BXNIM0415E", "errorMessage": message})


class RefreshTokenError(ParameterError):
    """What was to be swapped for another pair of tokens is not good: the body is that of the identity service."""

    def __init__(self) -> None:
        message = "Provided refresh_token is not valid, or its credentials have changed; ask with the API key"
        super().__init__(message, fields={"errorCode": "BXNIM0407E", "errorMessage": message})


class NotFoundError(GatewayError):
    """Nothing of that name, or nothing that these credentials may see."""

    status = 404
    error_id = "not_found"


class MethodNotAllowedError(GatewayError):
    """The address exists, but not with this method."""

    status = 405
    error_id = "not_found"

    def __init__(self, method: str, allowed: list[str]) -> None:
        allow = ", ".join(allowed)
        super().__init__(f"This address does not know the method {method}; it knows {allow}.", headers={"Allow": allow})


class ConflictError(GatewayError):
    """The object does not allow the change."""

    status = 409
    error_id = "conflict"


class TooManyRequestsError(GatewayError):
    """A queue is full, or a quota used up."""

    status = 429
    error_id = "limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after_seconds)})


class UnavailableError(GatewayError):
    """Something that the gateway rests on does not answer."""

    status = 503
    error_id = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 2) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after_seconds)})


class InternalError(GatewayError):
    """A fault of the gateway itself."""

    status = 500
    error_id = "internal_error"


def translate_error(error: BaseException) -> GatewayError | None:
    """The refusal that a fault of what the gateway rests on turns into, or None where it is a fault of the gateway."""
    match error:
        case GatewayError():
            return error
        case BaseExceptionGroup(exceptions=(first, *_)):
            # What the images of one request met: the first says enough.
            return translate_error(first)
        case InvalidError():
            return InputError(f"Kubernetes refuses the classifier: {error.message}")
        case QuotaError():
            return TooManyRequestsError(
                f"The ResourceQuota of the namespace does not allow another classifier: {error.message}", retry_after_seconds=60
            )
        case NamespaceMissingError():
            return UnavailableError(
                f'The namespace "{error.namespace}" of these credentials does not exist; ask the operator of this installation '
                "to create it.",
                retry_after_seconds=60,
            )
        case UnreadableClassifierError():
            return UnavailableError(
                f"{error.name} was written by a later release than this service; ask the operator of this installation to "
                "upgrade it.",
                retry_after_seconds=60,
            )
        case ClusterError():
            return UnavailableError("The Kubernetes API does not answer as it should; try again.")
        case TimeoutError():
            return UnavailableError("The request takes too long now; try again.")
        case ConnectionError():
            return UnavailableError("A connection that the request needs broke off; try again.")
        case OSError():
            # A full disk, or too many open files: it says nothing about the request.
            return UnavailableError("The service cannot keep the upload now; try again.")
        case StoreQuotaError():
            # As the gateway's own quota of stored examples is answered.
            return TooLargeError(f"{error.message[:1].upper()}{error.message[1:]}.")
        case ObjectStoreError():
            return UnavailableError("The object store does not answer as it should; try again.")
        case _:
            return None
