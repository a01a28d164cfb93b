"""One request as a value, and the steps of a longer procedure. It does no I/O, so that both clients share it.

A procedure is a generator that yields steps and gets their results: `card = yield from call`. What the transport raises for a
call is raised there.
"""

from __future__ import annotations

import json
import time
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
    NotReachableError,
    RefusedError,
)

T = TypeVar("T")
ANSWER_BYTES_LIMIT = 256 * 2**20
"""Of a document."""
DOWNLOAD_BYTES_LIMIT = 4 * 2**30
"""Of a file."""
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
class Answer:
    """An answer whose bytes are collected. One that does not end is given up."""

    response: httpx.Response
    limit_bytes: int
    deadline: float | None
    _content: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            AnswerError: there are too many.
            NotReachableError: it is too late.
        """
        self._content.extend(piece)
        if len(self._content) > self.limit_bytes:
            limit_megabytes = self.limit_bytes // 2**20
            raise AnswerError(f"{_show_address(self.response)} answered with more than {limit_megabytes} MB; check the address")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise NotReachableError(f"{_show_address(self.response)} did not send all of its answer in time; try again later")

    def build_response(self) -> httpx.Response:
        """The whole answer. Its content is decoded already."""
        headers = [
            pair for pair in self.response.headers.multi_items() if pair[0] not in ("content-encoding", "content-length")
        ]
        return httpx.Response(
            self.response.status_code, headers=headers, content=bytes(self._content), request=self.response.request
        )


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
    limit_bytes: int = ANSWER_BYTES_LIMIT
    """Of the answer."""

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

    def read(self, answer: Answer) -> T:
        """The value of an answer.

        Raises:
            AnswerError: it is JSON, but not what Ocelli answers.
            RefusedError: it is an error.
        """
        response = answer.build_response()
        try:
            return self.parse(response)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise AnswerError(_describe_stranger(response)) from error

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
        case 429 if "error_id" in body and "Retry-After" not in response.headers:
            # The gateway's word that waiting does not help: something has to be deleted first.
            raise RefusedError(code, message, body)
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
    target = _find_target(response)
    if target is not None:
        return f"{_show_address(response)} redirects to {target}; if that is the gateway, give its address"
    media_type = response.headers.get("Content-Type", "no type")
    return (
        f"{_show_address(response)} answered {response.status_code} ({media_type}), and not as Ocelli does; check the address"
    )


def _show_address(response: httpx.Response) -> str:
    """Without the query, which may have a key."""
    return str(response.url.copy_with(query=None))


def _find_target(response: httpx.Response) -> str | None:
    """Where a redirection leads, without what may be secret. It is not followed: credentials are for one gateway."""
    if not response.has_redirect_location:
        return None
    try:
        return str(response.url.join(response.headers["Location"]).copy_with(query=None, fragment=None, userinfo=b""))
    except (httpx.InvalidURL, ValueError):
        return "what is not an address"
