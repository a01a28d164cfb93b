"""One request as a value, and the steps of a longer procedure. It does no I/O, so that both clients share it.

A procedure is a generator that yields steps and gets their results: `card = yield from call`. What the transport raises for a
call is raised there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from ocelli_client.errors import (
    AnswerError,
    BusyError,
    ConflictError,
    LoginError,
    NotFoundError,
    RefusedError,
)

T = TypeVar("T")
Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A body that is read in pieces, again for each attempt."""

    read: Callable[[], Iterator[bytes]]
    size_bytes: int
    media_type: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A step that waits."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    query: Query = ()
    document: Any = None
    """JSON to send."""
    form: Mapping[str, str] | None = None
    files: Sequence[tuple[str, tuple[str, Any]]] = ()
    content: Content | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def build_options(self) -> dict[str, Any]:
        """Everything of the request that httpx takes by name, except the content."""
        options: dict[str, Any] = {"params": list(self.query), "headers": dict(self.headers)}
        if self.document is not None:
            options["json"] = self.document
        if self.form is not None:
            options["data"] = dict(self.form)
        if self.files:
            options["files"] = list(self.files)
        if self.content is not None:
            options["headers"] |= {"Content-Type": self.content.media_type, "Content-Length": str(self.content.size_bytes)}
        return options

    def __iter__(self) -> Generator[Step, Any, T]:
        result: T = yield self
        return result


Step = Call[Any] | Pause
Procedure = Generator[Step, Any, T]


def parse_document(response: httpx.Response) -> Any:
    """The JSON of a successful answer."""
    check(response)
    try:
        return response.json()
    except ValueError as error:
        raise AnswerError(_describe_stranger(response)) from error


def parse_bytes(response: httpx.Response) -> bytes:
    """The bytes of a successful answer."""
    check(response)
    return response.content


def parse_nothing(response: httpx.Response) -> None:
    """Only that it was successful."""
    check(response)


def check(response: httpx.Response) -> None:
    """Raise the error of an answer that is not successful."""
    if response.is_success:
        return
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        # A proxy answers with pages of its own, before or instead of the gateway.
        if response.status_code in (429, 502, 503, 504):
            body = {"error": f"{response.url.host} answered {response.status_code} {response.reason_phrase}; try again later"}
        else:
            raise AnswerError(_describe_stranger(response))
    code, message = response.status_code, body["error"]
    match code:
        case 401:
            raise LoginError(code, message, body)
        case 404:
            raise NotFoundError(code, message, body)
        case 409:
            raise ConflictError(code, message, body)
        case 429 | 502 | 503 | 504:
            error = BusyError(code, message, body)
            error.retry_after_seconds = _read_retry_after(response)
            raise error
        case _:
            raise RefusedError(code, message, body)


def _read_retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _describe_stranger(response: httpx.Response) -> str:
    media_type = response.headers.get("Content-Type", "no type")
    return (
        f"{response.url.copy_with(query=None)} answered {response.status_code} ({media_type}), and not as Ocelli does; "
        "check the address"
    )
