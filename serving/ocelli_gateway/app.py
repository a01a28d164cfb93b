"""The composition of everything behind the gateway's addresses, and who handles which operation of `operations`.

For `/v3/…` the order is the contract's: credentials, address, method, `version`, then whatever the operation checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ocelli_cluster.client import ClusterClient
from ocelli_gateway.auth import Authenticator, Caller, CredentialsFolder
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classifiers import Classifiers, check_create
from ocelli_gateway.classify import Classification, parse_classify_request
from ocelli_gateway.contract import CALLER_KEY, QUIET_ROUTES, ROUTE_KEY, ContractMiddleware
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.errors import InputError, MethodNotAllowedError, NotFoundError
from ocelli_gateway.example_sets import ExampleSet, check_archives, parse_example_sets
from ocelli_gateway.fields import CLASSIFIER_ID, LEARNING_OPT_OUT, METADATA, NAME, VERSION, Field, SentFields
from ocelli_gateway.health import Foundations, Health, HealthCheck
from ocelli_gateway.metrics import CONTENT_TYPE, Metrics
from ocelli_gateway.openapi import build_document
from ocelli_gateway.operations import (
    CLASSIFY,
    CLASSIFY_LIMITS,
    CREATE_CLASSIFIER,
    DELETE_CLASSIFIER,
    EXAMPLES_LIMITS,
    GET_CLASSIFIER,
    UPDATE_CLASSIFIER,
    FormType,
    Operation,
)
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import PredictionClient
from ocelli_gateway.settings import GatewaySettings
from ocelli_gateway.uploads import Form, UploadSpace, check_declared_length, has_body, media_type
from ocelli_storage.object_store import ObjectStore

PREFIX = "/visual-recognition/api"
REQUEST_PREDICTION_TIMEOUTS = 4
"""A classify request with all its images may take so many times as long as one image."""
DOCUMENT_PATH = "/openapi.json"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """A request of an operation that needs no credentials."""

    request: Request
    operation: Operation
    sent: SentFields

    def read(self, field: Field[T]) -> T:
        """The value of a field. Raises ParameterError where it is missing or may not be so."""
        return self.operation.read(self.sent, field)

    def with_form(self: R, form: Form) -> R:
        """The same, with the texts of its form."""
        return replace(self, sent=self.sent.with_form(form.texts))


@dataclass(frozen=True, kw_only=True)
class V3Request(OpenRequest):
    """A request whose credentials and version are good."""

    caller: Caller


R = TypeVar("R", bound=OpenRequest)
Handler = Callable[[R], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What the gateway rests on."""

    settings: GatewaySettings
    client: ClusterClient
    objects: ObjectStore
    metrics: Metrics


class Gateway:
    """Everything behind the addresses. Build it with `running_gateway`."""

    def __init__(
        self,
        dependencies: Dependencies,
        authenticator: Authenticator,
        folder: CredentialsFolder,
        store: ClassifierStore,
        predictions: PredictionClient,
        pixels: PixelReader,
    ) -> None:
        settings = dependencies.settings
        self._authenticator = authenticator
        self._classifiers = Classifiers(
            store,
            dependencies.objects,
            Definitions(dependencies.objects),
            replica_delay_seconds=settings.replica_delay_seconds,
        )
        self._classification = Classification(
            store,
            predictions,
            pixels,
            asyncio.Semaphore(settings.images_at_once),
            timeout_seconds=REQUEST_PREDICTION_TIMEOUTS * settings.prediction_timeout_seconds,
        )
        self._examples_space = _build_space(settings, settings.uploads_at_once)
        self._classify_space = _build_space(settings, settings.classify_at_once)
        self._health = HealthCheck(
            Foundations(
                authenticator=authenticator,
                credentials=folder,
                store=store,
                objects=dependencies.objects,
                upload_folder=settings.upload_folder,
            )
        )

    async def authenticate(self, request: Request, query: Mapping[str, str]) -> Caller:
        """Who sends the request. Raises UnauthorizedError."""
        return await self._authenticator.authenticate(request.headers, query)

    async def create(self, v3: V3Request) -> Response:
        _refuse_later_headers(v3)
        async with self._examples_space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS) as form:
            name = v3.with_form(form).read(NAME)
            sets = parse_example_sets(form)
            check_create(sets)
            await check_archives(sets)
            details = await self._classifiers.create(v3.caller, name, sets)
        return JSONResponse(details.to_json())

    async def details(self, v3: V3Request) -> Response:
        details = await self._classifiers.details(v3.caller, v3.read(CLASSIFIER_ID))
        return JSONResponse(details.to_json())

    async def retrain(self, v3: V3Request) -> Response:
        _refuse_later_headers(v3)
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._classifiers.check_retrain(v3.caller, v3.read(CLASSIFIER_ID))
        async with self._examples_space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS) as form:
            sets: tuple[ExampleSet, ...] = parse_example_sets(form)
            await check_archives(sets)
            details = await self._classifiers.retrain(v3.caller, v3.read(CLASSIFIER_ID), sets)
        return JSONResponse(details.to_json())

    async def delete(self, v3: V3Request) -> Response:
        await self._classifiers.delete(v3.caller, v3.read(CLASSIFIER_ID))
        return JSONResponse({})

    async def classify(self, v3: V3Request) -> Response:
        async with self._receive_classify_form(v3) as form:
            request = parse_classify_request(form.files, v3.with_form(form).read)
            return JSONResponse(await self._classification.classify(v3.caller, request))

    async def health(self) -> Health:
        """Whether a create would succeed now."""
        return await self._health.health()

    @asynccontextmanager
    async def _receive_classify_form(self, v3: V3Request) -> AsyncIterator[Form]:
        request = v3.request
        kind = media_type(request.headers)
        if kind == FormType.URLENCODED:
            yield await self._classify_space.read_urlencoded(request)
        elif not has_body(request.headers) and not kind.startswith("multipart/"):
            yield Form()
        else:
            async with self._classify_space.receive_form(request, v3.operation, CLASSIFY_LIMITS) as form:
                yield form


@asynccontextmanager
async def running_gateway(dependencies: Dependencies) -> AsyncIterator[Gateway]:
    """A gateway that reads credentials and watches their namespaces, until the context is left."""
    settings = dependencies.settings
    async with AsyncExitStack() as resources:
        authenticator = Authenticator()
        resources.callback(authenticator.close)
        store = ClassifierStore(dependencies.client)
        resources.push_async_callback(store.close)
        predictions = PredictionClient(store, dependencies.metrics, timeout_seconds=settings.prediction_timeout_seconds)
        resources.push_async_callback(predictions.close)
        pixels = PixelReader()
        resources.callback(pixels.close)
        folder = CredentialsFolder(settings.credentials_folder, authenticator, store.watch_namespaces)
        await folder.refresh()
        watch = asyncio.create_task(folder.watch(settings.credentials_poll_seconds))
        resources.callback(watch.cancel)
        yield Gateway(dependencies, authenticator, folder, store, predictions, pixels)


class _Routes(Generic[R]):
    """Operations by path and method, with their handlers."""

    def __init__(self, handlers: Mapping[Operation, Handler[R]]) -> None:
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
        raise NotFoundError("There is nothing at this address.")


class GatewayApp:
    """The addresses."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics
        handlers: dict[Operation, Handler[V3Request]] = {
            CREATE_CLASSIFIER: gateway.create,
            GET_CLASSIFIER: gateway.details,
            UPDATE_CLASSIFIER: gateway.retrain,
            DELETE_CLASSIFIER: gateway.delete,
            CLASSIFY: gateway.classify,
        }
        open_handlers: dict[Operation, Handler[OpenRequest]] = {}
        self._routes = _Routes(handlers)
        self._open_routes = _Routes(open_handlers)
        self._document = build_document([*handlers, *open_handlers], PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"].removeprefix(PREFIX).rstrip("/") or "/"
        if _is_v3(path):
            answer = self._answer_v3(request, path)
        elif path in QUIET_ROUTES or path == DOCUMENT_PATH:
            answer = self._answer_probe(request, path)
        else:
            answer = self._answer_open(request, path)
        await (await answer)(scope, receive, send)

    async def _answer_v3(self, request: Request, path: str) -> Response:
        query = _parse_query(request)
        caller = await self._gateway.authenticate(request, dict(query))
        request.scope[CALLER_KEY] = caller.user
        operation, handler, values = self._routes.find(request, path)
        sent = SentFields(path=values, query=query, headers=tuple(request.headers.items()))
        v3 = V3Request(request=request, operation=operation, sent=sent, caller=caller)
        v3.read(VERSION)
        return await handler(v3)

    async def _answer_open(self, request: Request, path: str) -> Response:
        operation, handler, values = self._open_routes.find(request, path)
        sent = SentFields(path=values, query=_parse_query(request), headers=tuple(request.headers.items()))
        return await handler(OpenRequest(request=request, operation=operation, sent=sent))

    async def _answer_probe(self, request: Request, path: str) -> Response:
        request.scope[ROUTE_KEY] = path
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(request.method, ["GET", "HEAD"])
        if path == DOCUMENT_PATH:
            return JSONResponse(self._document)
        if path == "/livez":
            return PlainTextResponse("ok\n")
        if path == "/metrics":
            return Response(self._metrics.render(), media_type=CONTENT_TYPE)
        health = await self._gateway.health()
        if health.healthy:
            return PlainTextResponse("ok\n")
        body = {"code": 503, "error": f"Not healthy: {health.reason}", "error_id": "unavailable"}
        return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})


def build_app(gateway: Gateway, metrics: Metrics) -> ASGIApp:
    """The ASGI application."""
    return ContractMiddleware(GatewayApp(gateway, metrics), metrics)


def _build_space(settings: GatewaySettings, at_once: int) -> UploadSpace:
    return UploadSpace(
        folder=settings.upload_folder,
        slots=asyncio.Semaphore(at_once),
        body_timeout_seconds=settings.body_timeout_seconds,
    )


def _is_v3(path: str) -> bool:
    return path == "/v3" or path.startswith("/v3/")


def _parse_query(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _refuse_later_headers(v3: V3Request) -> None:
    for field in (LEARNING_OPT_OUT, METADATA):
        value = v3.request.headers.get(field.name)
        if value is not None and value.strip().lower() not in ("", "0", "false"):
            raise InputError(f"The header {field.name} is not supported yet; leave it out.")
