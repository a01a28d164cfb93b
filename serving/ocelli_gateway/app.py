"""The gateway's addresses, and the composition of everything behind them.

For `/v3/…` the order is the contract's: credentials, address, method, `version`, then whatever the operation checks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ocelli_cluster.client import ClusterClient
from ocelli_gateway.auth import Authenticator, Caller, CredentialsFolder
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classifiers import Classifiers, check_create, check_name
from ocelli_gateway.classify import Classification, ClassifyParts, parse_classify_request
from ocelli_gateway.contract import CALLER_KEY, QUIET_ROUTES, ROUTE_KEY, ContractMiddleware
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.errors import InputError, MethodNotAllowedError, NotFoundError, ParameterError
from ocelli_gateway.example_sets import NAME_PART, ExampleParts, ExampleSet, check_archives, parse_example_sets
from ocelli_gateway.health import Foundations, Health, HealthCheck
from ocelli_gateway.metrics import CONTENT_TYPE, Metrics
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import PredictionClient
from ocelli_gateway.settings import GatewaySettings
from ocelli_gateway.uploads import MEGABYTE, Form, UploadLimits, UploadSpace, check_declared_length, has_body, media_type
from ocelli_storage.object_store import ObjectStore

PREFIX = "/visual-recognition/api"
EXAMPLES_LIMITS = UploadLimits(body_bytes=256 * MEGABYTE, file_bytes=100 * MEGABYTE)
CLASSIFY_LIMITS = UploadLimits(body_bytes=110 * MEGABYTE, file_bytes=100 * MEGABYTE)
REQUEST_PREDICTION_TIMEOUTS = 4
"""A classify request with all its images may take so many times as long as one image."""
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_LATER_HEADERS = {
    "x-watson-learning-opt-out": "X-Watson-Learning-Opt-Out",
    "x-watson-metadata": "X-Watson-Metadata",
}
_OFF = ("", "0", "false")

Operation = Callable[["V3Request"], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, kw_only=True)
class V3Request:
    """A request whose credentials and version are good."""

    request: Request
    caller: Caller
    query: tuple[tuple[str, str], ...]
    classifier_id: str


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
        _refuse_later_headers(v3.request)
        async with self._examples_space.receive_form(v3.request, ExampleParts(), EXAMPLES_LIMITS) as form:
            names = form.texts_of(NAME_PART)
            name = check_name(names[-1] if names else None)
            sets = parse_example_sets(form)
            check_create(sets)
            await check_archives(sets)
            details = await self._classifiers.create(v3.caller, name, sets)
        return JSONResponse(details.to_json())

    async def details(self, v3: V3Request) -> Response:
        details = await self._classifiers.details(v3.caller, v3.classifier_id)
        return JSONResponse(details.to_json())

    async def retrain(self, v3: V3Request) -> Response:
        _refuse_later_headers(v3.request)
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._classifiers.check_retrain(v3.caller, v3.classifier_id)
        async with self._examples_space.receive_form(v3.request, ExampleParts(), EXAMPLES_LIMITS) as form:
            sets: tuple[ExampleSet, ...] = parse_example_sets(form)
            await check_archives(sets)
            details = await self._classifiers.retrain(v3.caller, v3.classifier_id, sets)
        return JSONResponse(details.to_json())

    async def delete(self, v3: V3Request) -> Response:
        await self._classifiers.delete(v3.caller, v3.classifier_id)
        return JSONResponse({})

    async def classify(self, v3: V3Request) -> Response:
        async with self._receive_classify_form(v3.request) as form:

            def values_of(name: str) -> list[str]:
                sent = form.texts_of(name)
                return sent if any(value.strip() for value in sent) else [value for key, value in v3.query if key == name]

            request = parse_classify_request(form.files, values_of)
            return JSONResponse(await self._classification.classify(v3.caller, request))

    async def health(self) -> Health:
        """Whether a create would succeed now."""
        return await self._health.health()

    @asynccontextmanager
    async def _receive_classify_form(self, request: Request) -> AsyncIterator[Form]:
        kind = media_type(request.headers)
        if kind == "application/x-www-form-urlencoded":
            yield await self._classify_space.read_urlencoded(request)
        elif not has_body(request.headers) and not kind.startswith("multipart/"):
            yield Form()
        else:
            async with self._classify_space.receive_form(request, ClassifyParts(), CLASSIFY_LIMITS) as form:
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


class GatewayApp:
    """The addresses."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._operations: dict[str, dict[str, Operation]] = {
            "/v3/classifiers": {"POST": gateway.create},
            "/v3/classifiers/{classifier_id}": {
                "GET": gateway.details,
                "POST": gateway.retrain,
                "DELETE": gateway.delete,
            },
            "/v3/classify": {"POST": gateway.classify},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"].removeprefix(PREFIX).rstrip("/") or "/"
        response = await (self._answer_v3(request, path) if _is_v3(path) else self._answer_probe(request, path))
        await response(scope, receive, send)

    async def _answer_v3(self, request: Request, path: str) -> Response:
        scope = request.scope
        query = tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        last = dict(query)
        caller = await self._gateway.authenticate(request, last)
        scope[CALLER_KEY] = caller.user
        route, classifier_id = _match(path)
        operations = self._operations.get(route)
        if operations is None:
            raise NotFoundError("There is nothing at this address.")
        scope[ROUTE_KEY] = route
        method = "GET" if request.method == "HEAD" else request.method
        operation = operations.get(method)
        if operation is None:
            raise MethodNotAllowedError(request.method, _allowed(operations))
        _check_version(last.get("version"))
        return await operation(V3Request(request=request, caller=caller, query=query, classifier_id=classifier_id))

    async def _answer_probe(self, request: Request, path: str) -> Response:
        if path not in QUIET_ROUTES:
            raise NotFoundError("There is nothing at this address.")
        request.scope[ROUTE_KEY] = path
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(request.method, ["GET", "HEAD"])
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


def _match(path: str) -> tuple[str, str]:
    """The pattern of the address, and the classifier id in it."""
    prefix = "/v3/classifiers/"
    rest = path.removeprefix(prefix)
    if path.startswith(prefix) and "/" not in rest:
        return prefix + "{classifier_id}", rest
    return path, ""


def _allowed(operations: Mapping[str, Operation]) -> list[str]:
    return sorted([*operations, *(["HEAD"] if "GET" in operations else [])])


def _check_version(version: str | None) -> None:
    if version is None or not version:
        raise ParameterError('The query parameter "version" is missing; give a date such as 2018-03-19.')
    try:
        if not _VERSION.fullmatch(version):
            raise ValueError
        date.fromisoformat(version)
    except ValueError as error:
        message = f'The query parameter "version" is "{version[:32]}"; give a date such as 2018-03-19.'
        raise ParameterError(message) from error


def _refuse_later_headers(request: Request) -> None:
    for key, name in _LATER_HEADERS.items():
        value = request.headers.get(key)
        if value is not None and value.strip().lower() not in _OFF:
            raise InputError(f"The header {name} is not supported yet; leave it out.")
