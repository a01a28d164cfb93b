"""Routing: which operation a request is for, and which handler answers it.

For `/v3/…` the order of the checks is the contract's: credentials, address, method, `version`, then those of the operation.
For `/ocelli/v1/…`, the management API, it is the same without `version`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ocelli_gateway.auth import Caller
from ocelli_gateway.console_files import CONSOLE_PATH, ConsoleFiles
from ocelli_gateway.contract import ROUTE_KEY
from ocelli_gateway.errors import MethodNotAllowedError
from ocelli_gateway.fields import PARAMETERS, VERSION, Field, SentFields
from ocelli_gateway.http_protocol import CALLER_KEY, LEFT_KEY, LIVE_PATH
from ocelli_gateway.openapi import build_document
from ocelli_gateway.operation import Operation
from ocelli_gateway.operations import WITHDRAWN
from ocelli_gateway.refusals import NotFoundError, UnauthorizedError
from ocelli_gateway.uploads import Form, parse_urlencoded

PREFIX = "/visual-recognition/api"
DOCUMENT_PATH = "/openapi.json"
V3 = "/v3"
MANAGEMENT = "/ocelli/v1"
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
_SLASHES = re.compile("//+")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """A request of an operation that needs no credentials."""

    request: Request
    operation: Operation
    sent: SentFields

    def read(self, field: Field[T]) -> T:
        """The value of a field. Raises ParameterError where it is missing or not allowed."""
        return self.operation.read(self.sent, field)

    def with_form(self: R, form: Form) -> R:
        """The same request with the texts of its form."""
        return replace(self, sent=replace(self.sent, form=form.texts))

    def with_older(self: R) -> R:
        """The same request with the fields of its older document `parameters`. Raises ParameterError if it cannot be read."""
        return replace(self, sent=self.sent.with_older(PARAMETERS))


@dataclass(frozen=True, kw_only=True)
class CallerRequest(OpenRequest):
    """A request with valid credentials and, below `/v3`, a valid version."""

    caller: Caller

    @property
    def tenant(self) -> str:
        """The namespace of the caller."""
        return self.caller.namespace

    @property
    def left(self) -> asyncio.Event | None:
        """Set once the client has closed its side of the connection."""
        return self.request.scope.get(LEFT_KEY)


R = TypeVar("R", bound=OpenRequest)
Handler = Callable[[R], Coroutine[Any, Any, Response]]
Handlers = Mapping[Operation, Handler[R]]
Authenticate = Callable[[Request, Mapping[str, str]], Awaitable[Caller]]


class _Routes(Generic[R]):
    """Operations by path and method, with their handlers."""

    def __init__(self, handlers: Handlers[R]) -> None:
        self._paths: dict[str, dict[str, tuple[Operation, Handler[R]]]] = {}
        for operation, handler in handlers.items():
            self._paths.setdefault(operation.path, {})[operation.method] = (operation, handler)

    def find(self, request: Request, path: str) -> tuple[Operation, Handler[R], Mapping[str, str]]:
        """The operation at a path, its handler, and the values in the path.

        Raises:
            NotFoundError, MethodNotAllowedError: there is none.
        """
        for pattern, methods in self._paths.items():
            values = next(iter(methods.values()))[0].match(path)
            if values is None:
                continue
            request.scope[ROUTE_KEY] = pattern
            method = "GET" if request.method == "HEAD" else request.method
            if method not in methods:
                raise MethodNotAllowedError(request.method, sorted([*methods, *(["HEAD"] if "GET" in methods else [])]))
            return (*methods[method], values)
        raise NotFoundError(_describe_unknown(path))


class Router:
    """The ASGI application of all addresses."""

    def __init__(
        self, authenticate: Authenticate, handlers: Handlers[CallerRequest], open_handlers: Handlers[OpenRequest]
    ) -> None:
        self._authenticate = authenticate
        self._routes = _Routes(handlers)
        self._open_routes = _Routes(open_handlers)
        self._document = build_document([*handlers, *open_handlers], PREFIX)
        self._console = ConsoleFiles()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = _read_path(scope).removeprefix(PREFIX).rstrip("/") or "/"
        if _is_below(path, V3) or _is_below(path, MANAGEMENT):
            response = await self._answer_caller(request, path)
        elif path in (LIVE_PATH, DOCUMENT_PATH):
            response = self._answer_fixed(request, path)
        elif _is_below(path, CONSOLE_PATH):
            response = self._answer_console(request, path)
        else:
            response = await self._answer_open(request, path)
        await response(scope, receive, send)

    async def _answer_caller(self, request: Request, path: str) -> Response:
        query = _parse_query(request)
        try:
            caller = await self._authenticate(request, dict(query))
        except UnauthorizedError as error:
            # v3 promises a Basic challenge, whatever the credentials are.
            raise UnauthorizedError(token=error.token and _is_below(path, MANAGEMENT)) from error
        request.scope[CALLER_KEY] = caller.user
        operation, handler, values = self._routes.find(request, path)
        sent = SentFields(path=values, query=query, headers=_read_headers(request))
        known = CallerRequest(request=request, operation=operation, sent=sent, caller=caller)
        if VERSION in operation.fields:
            known.read(VERSION)
        return await handler(known)

    async def _answer_open(self, request: Request, path: str) -> Response:
        operation, handler, values = self._open_routes.find(request, path)
        sent = SentFields(path=values, query=_parse_query(request), headers=_read_headers(request))
        return await handler(OpenRequest(request=request, operation=operation, sent=sent))

    def _answer_console(self, request: Request, path: str) -> Response:
        request.scope[ROUTE_KEY] = CONSOLE_PATH
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(request.method, ["GET", "HEAD"])
        response = self._console.answer(request, path)
        if response is None:
            raise NotFoundError(f"The console has no such file; open {CONSOLE_PATH}/ again.")
        return response

    def _answer_fixed(self, request: Request, path: str) -> Response:
        request.scope[ROUTE_KEY] = path
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(request.method, ["GET", "HEAD"])
        return JSONResponse(self._document) if path == DOCUMENT_PATH else PlainTextResponse("ok\n")


def _read_path(scope: Scope) -> str:
    """The decoded path. Encoded slashes stay encoded: they are part of an id, and never lead to another address."""
    raw = scope.get("raw_path", b"").decode("latin-1")
    path = unquote(_ENCODED_SLASH.sub("%252F", raw)) if _ENCODED_SLASH.search(raw) else str(scope["path"])
    # Clients join a base address that ends in a slash with an address that begins with one.
    return _SLASHES.sub("/", path)


def _describe_unknown(path: str) -> str:
    """Clients that send several requests at the same time show this sentence even if another of them failed."""
    for address, what in WITHDRAWN.items():
        if path == address or path.startswith(address + "/"):
            return (
                f"{what} ({address}) was withdrawn from Visual Recognition v3 and is not available; other calls, such as "
                "/v3/classify, are not affected."
            )
    if _is_below(path, V3) or _is_below(path, MANAGEMENT):
        return "The API has no such address; /openapi.json describes its operations."
    return "There is no such address; the API is below /v3, tokens are at /identity/token, and /openapi.json describes both."


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def _parse_query(request: Request) -> tuple[tuple[str, str], ...]:
    return parse_urlencoded(request.scope["query_string"].decode("latin-1"))


def _read_headers(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), _decode_header(value)) for name, value in request.headers.raw)


def _decode_header(value: bytes) -> str:
    # Scripts send UTF-8, and older clients Latin-1, which is hardly ever valid UTF-8.
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
