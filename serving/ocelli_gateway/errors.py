"""Errors as answers: the only module that knows which HTTP status, headers and body an error has.

Every refusal has the body of the contract, `{"code", "error", "error_id"}`; those of classify hold `images` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocelli_cluster.client import ClusterError, InvalidError, QuotaError
from ocelli_gateway.classifier_errors import NamespaceMissingError, UnreadableClassifierError
from ocelli_gateway.refusals import (
    ClassifierNotReadyError,
    ConflictError,
    GatewayError,
    InputError,
    LimitExceededError,
    NotFoundError,
    ParameterError,
    TooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from ocelli_storage.object_store import ObjectStoreError, StoreQuotaError


class UnknownApiKeyError(ParameterError):
    """The API key in a token request belongs to no credential set."""

    def __init__(self) -> None:
        super().__init__("Provided API key could not be found")


class RefreshTokenError(ParameterError):
    """The refresh token in a token request is not valid."""

    def __init__(self) -> None:
        super().__init__("Provided refresh_token is not valid, or its credentials have changed; ask with the API key")


class PasswordError(ParameterError):
    """The user name or password in a token request is missing or wrong."""

    def __init__(self) -> None:
        super().__init__("The user name or the password in the header Authorization is missing or wrong")


class MethodNotAllowedError(GatewayError):
    """The address exists, but not with this method."""

    def __init__(self, method: str, allowed: list[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"The method {method} is not allowed at this address; use {self.allowed}.")


@dataclass(frozen=True, kw_only=True)
class ErrorAnswer:
    """The answer to a request that failed."""

    status: int
    error_id: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"code": self.status, "error": self.message, "error_id": self.error_id, **self.fields}


_CODES: Mapping[type[GatewayError], tuple[int, str]] = {
    ParameterError: (400, "parameter_error"),
    InputError: (400, "input_error"),
    LimitExceededError: (400, "limit_exceeded"),
    TooLargeError: (413, "limit_exceeded"),
    TooManyRequestsError: (429, "limit_exceeded"),
    ClassifierNotReadyError: (400, "classifier_not_ready"),
    NotFoundError: (404, "not_found"),
    MethodNotAllowedError: (405, "not_found"),
    ConflictError: (409, "conflict"),
    UnavailableError: (503, "unavailable"),
    UnauthorizedError: (401, "unauthorized"),
    GatewayError: (500, "internal_error"),
}
ERROR_IDS = tuple(dict.fromkeys(error_id for _, error_id in _CODES.values()))
"""Every `error_id` that there is."""
_IDENTITY_CODES: Mapping[type[GatewayError], str] = {
    UnknownApiKeyError: "BXNIM0415E",
    RefreshTokenError: "BXNIM0407E",
    PasswordError: "BXNIM0602E",
}
"""Codes of IBM's identity service, which clients of its token endpoint read."""
_BASIC_CHALLENGE = 'Basic realm="Ocelli", charset="UTF-8"'
# Browsers answer a Basic challenge with a dialog of their own, over the console that sent an expired token.
_BEARER_CHALLENGE = 'Bearer realm="Ocelli", error="invalid_token"'
INTERNAL_ERROR = ErrorAnswer(
    status=500, error_id="internal_error", message="The service failed to answer the request; its log has the details."
)


def answer_refusal(error: GatewayError) -> ErrorAnswer:
    """The answer of a refusal."""
    status, error_id = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = _BEARER_CHALLENGE if error.token else _BASIC_CHALLENGE
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = error.allowed
    code = _IDENTITY_CODES.get(type(error))
    fields = error.fields if code is None else {"errorCode": code, "errorMessage": error.message}
    return ErrorAnswer(status=status, error_id=error_id, message=error.message, headers=headers, fields=fields)


def answer_error(error: BaseException) -> ErrorAnswer | None:
    """The answer of a refusal, or of a failure of what the gateway depends on; None for a fault of the gateway."""
    refusal = _find_refusal(error)
    return None if refusal is None else answer_refusal(refusal)


def _find_refusal(error: BaseException) -> GatewayError | None:
    match error:
        case GatewayError():
            return error
        case BaseExceptionGroup(exceptions=(first, *_)):
            # Errors of several images of one request: the first one is enough.
            return _find_refusal(first)
        case InvalidError():
            return InputError(f"Kubernetes refuses the classifier: {error.message}")
        case QuotaError():
            return TooManyRequestsError(
                f"The ResourceQuota of the namespace does not allow another classifier: {error.message}; delete one that you "
                "no longer need, or ask the operator of this installation for a larger quota.",
                retry_after_seconds=None,
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
            return UnavailableError("The Kubernetes API did not answer as expected; try again.")
        case TimeoutError():
            return UnavailableError("The request timed out; try again.")
        case ConnectionError():
            return UnavailableError("A connection that the request needs was closed; try again.")
        case OSError():
            # A full disk or too many open files: the request did not cause it.
            return UnavailableError("The service cannot store the upload at the moment; try again.")
        case StoreQuotaError():
            # The same answer as for the gateway's own quota of stored examples.
            return TooLargeError(f"{error.message[:1].upper()}{error.message[1:]}.")
        case ObjectStoreError():
            return UnavailableError("The object store did not answer as expected; try again.")
        case _:
            return None
