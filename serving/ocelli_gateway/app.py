"""The composition of everything behind the gateway's addresses, and who handles which operation of `operations`.

For `/v3/…` the order is the contract's: credentials, address, method, `version`, then whatever the operation checks.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from aiohttp.abc import AbstractResolver
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import ObjectKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ocelli_api.export import ExportFormat
from ocelli_api.network_addresses import NetworkRules, parse_networks
from ocelli_gateway.auth import Authenticator, Caller, CredentialsFolder
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classifiers import Classifiers, ExampleTerms, check_create
from ocelli_gateway.classify import Classification, parse_classify_request
from ocelli_gateway.client_address import FORWARDED_HEADER, find_client_address
from ocelli_gateway.contract import ROUTE_KEY, ContractMiddleware
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.errors import (
    InputError,
    MethodNotAllowedError,
    NotFoundError,
    ParameterError,
    RefreshTokenError,
    UnknownApiKeyError,
)
from ocelli_gateway.example_sets import ExampleSet, check_archives, parse_example_sets
from ocelli_gateway.export_files import open_export
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.fair_threads import FairThreads
from ocelli_gateway.fields import (
    API_KEY,
    CLASSIFIER_ID,
    CUSTOMER_ID,
    GRANT_TYPE,
    LEARNING_OPT_OUT,
    METADATA,
    NAME,
    PARAMETERS,
    REFRESH_TOKEN,
    REFRESH_TOKEN_GRANT,
    VERBOSE,
    VERSION,
    Field,
    SentFields,
)
from ocelli_gateway.health import Foundations, Health, HealthCheck
from ocelli_gateway.http_protocol import CALLER_KEY, LEFT_KEY, LIVE_PATH
from ocelli_gateway.metrics import CONTENT_TYPE, Metrics
from ocelli_gateway.openapi import build_document
from ocelli_gateway.operations import (
    CLASSIFY,
    CLASSIFY_LIMITS,
    CLASSIFY_URL,
    CREATE_CLASSIFIER,
    CREATE_TOKEN,
    DELETE_CLASSIFIER,
    DELETE_USER_DATA,
    EXAMPLES_LIMITS,
    FILE_TYPE,
    GET_CLASSIFIER,
    GET_CORE_ML_MODEL,
    GET_ONNX_MODEL,
    LIST_CLASSIFIERS,
    UPDATE_CLASSIFIER,
    WITHDRAWN,
    FormType,
    Operation,
)
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import PredictionClient
from ocelli_gateway.quotas import RateQuotas
from ocelli_gateway.settings import GatewaySettings
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.token_keys import TokenKeys
from ocelli_gateway.tokens import Tokens, TokenSubject
from ocelli_gateway.uploads import (
    RECEIVED_KEY,
    Form,
    UploadSpace,
    check_declared_length,
    declared_length,
    has_body,
    media_type,
    parse_urlencoded,
)
from ocelli_gateway.url_fetcher import ThreadedResolver, UrlFetcher
from ocelli_gateway.user_data import UserData
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_http.body_pace import BodyPace
from ocelli_storage.object_store import ObjectStore

PREFIX = "/visual-recognition/api"
REQUEST_PREDICTION_TIMEOUTS = 4
"""A classify request with all its images may take so many times as long as one image."""
TOKEN_FORM_BYTES_LIMIT = 16 * 1024
"""Whoever asks for a token has shown no credentials yet: far more than a key takes is not read."""
MAX_CONCURRENT_PREDICTIONS = 256
"""Of one image by one classifier each."""
ZIP_THREADS = 2
"""For zips to classify. One tenant may hold one of them. Reading zips is pure Python: more would only slow each other."""
DOCUMENT_PATH = "/openapi.json"
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
_SLASHES = re.compile("//+")
WAITING_PART_OF_CONNECTIONS = 8
"""An eighth of all connections may wait in one queue for the turns of one tenant, so that its queues hold half of them at most;
further ones are refused at once."""
UNBOUNDED_SLOTS = 1_000_000
"""Where only a tenant's own share is bounded."""

logger = logging.getLogger(__name__)

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

    def with_older(self: R) -> R:
        """The same, with the fields in its older document `parameters`. Raises ParameterError where that is none."""
        return replace(self, sent=self.sent.with_older(PARAMETERS))


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
    resolver: AbstractResolver | None = None
    """For the names in URLs of images; None: the system's."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the gateway is made of; see `running_gateway`."""

    authenticator: Authenticator
    credentials: CredentialsFolder
    tokens: Tokens
    store: ClassifierStore
    predictions: PredictionClient
    pixels: PixelReader
    fetcher: UrlFetcher
    example_zips: ZipInspector
    classify_zips: FairThreads


class Gateway:
    """Everything behind the addresses. Build it with `running_gateway`."""

    def __init__(self, dependencies: Dependencies, parts: Parts) -> None:
        settings = dependencies.settings
        self._settings = settings
        self._trusted_proxies = parse_networks(settings.trusted_proxies)
        self._authenticator = parts.authenticator
        self._tokens = parts.tokens
        self._objects = dependencies.objects
        self._rates = RateQuotas()
        self._classifiers = Classifiers(
            parts.store,
            dependencies.objects,
            Definitions(dependencies.objects),
            TenantUsage(parts.store, dependencies.objects),
            replica_delay_seconds=settings.replica_delay_seconds,
        )
        self._user_data = UserData(parts.store, dependencies.objects)
        self._classification = Classification(
            parts.store,
            parts.predictions,
            parts.pixels,
            parts.fetcher,
            _build_slots(settings, "images are worked on", settings.max_concurrent_images),
            parts.classify_zips,
            timeout_seconds=REQUEST_PREDICTION_TIMEOUTS * settings.prediction_timeout_seconds,
        )
        self._example_zips = parts.example_zips
        self._requests = FairSlots(
            "requests are worked on",
            total=UNBOUNDED_SLOTS,
            share=settings.max_concurrent_tenant_requests,
            timeout_seconds=settings.body_timeout_seconds,
            waiting_limit=_waiting_limit(settings),
        )
        self._downloads = _build_queue(settings, "models are downloaded", settings.max_concurrent_downloads)
        self._pace = _build_pace(settings)
        self._examples_space = _build_space(settings, settings.max_concurrent_uploads)
        self._classify_space = _build_space(settings, settings.max_concurrent_classify_requests)
        self._health = HealthCheck(
            Foundations(
                authenticator=parts.authenticator,
                credentials=parts.credentials,
                store=parts.store,
                objects=dependencies.objects,
                upload_folder=settings.upload_folder,
            )
        )

    async def authenticate(self, request: Request, query: Mapping[str, str]) -> Caller:
        """Who sends the request, with the quota that holds for it.

        Raises:
            UnauthorizedError: nobody known.
            TooManyRequestsError: too many requests of this tenant, or too many log-ins.
        """
        return self._admit(await self._authenticator.authenticate(request.headers, query, self._address_of(request)))

    async def create(self, v3: V3Request) -> Response:
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._classifiers.check_create(v3.caller)
        async with self._receive_examples(v3) as form:
            name = v3.with_form(form).read(NAME)
            sets = parse_example_sets(form)
            check_create(sets, form.ignored)
            await check_archives(sets, v3.caller.namespace, self._example_zips, left=_left(v3))
            details = await self._classifiers.create(v3.caller, name, sets, _read_terms(v3))
        return JSONResponse(details.to_json())

    async def list_all(self, v3: V3Request) -> Response:
        verbose = v3.read(VERBOSE)
        list_all = self._classifiers.list_verbose if verbose else self._classifiers.list_brief
        async with self._requests.slot(v3.caller.namespace, left=_left(v3)):
            found = await list_all(v3.caller)
        return JSONResponse({"classifiers": [item.to_json() for item in found]})

    async def details(self, v3: V3Request) -> Response:
        async with self._requests.slot(v3.caller.namespace, left=_left(v3)):
            details = await self._classifiers.details(v3.caller, v3.read(CLASSIFIER_ID))
        return JSONResponse(details.to_json())

    async def retrain(self, v3: V3Request) -> Response:
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._classifiers.check_retrain(v3.caller, v3.read(CLASSIFIER_ID))
        async with self._receive_examples(v3) as form:
            sets: tuple[ExampleSet, ...] = parse_example_sets(form)
            await check_archives(sets, v3.caller.namespace, self._example_zips, left=_left(v3))
            details = await self._classifiers.retrain(v3.caller, v3.read(CLASSIFIER_ID), sets, _read_terms(v3))
        return JSONResponse(details.to_json())

    async def delete(self, v3: V3Request) -> Response:
        async with self._requests.slot(v3.caller.namespace, left=_left(v3)):
            await self._classifiers.delete(v3.caller, v3.read(CLASSIFIER_ID))
        return JSONResponse({})

    async def core_ml_model(self, v3: V3Request) -> Response:
        return await self._download(v3, ExportFormat.CORE_ML)

    async def onnx_model(self, v3: V3Request) -> Response:
        return await self._download(v3, ExportFormat.ONNX)

    async def delete_user_data(self, v3: V3Request) -> Response:
        async with self._requests.slot(v3.caller.namespace, left=_left(v3)):
            await self._user_data.delete(v3.caller, v3.read(CUSTOMER_ID))
        return JSONResponse({}, status_code=202)

    async def classify(self, v3: V3Request) -> Response:
        async with self._receive_classify_form(v3) as form:
            sent = v3.with_form(form).with_older()
            request = parse_classify_request(form.files, sent.read)
            return JSONResponse(await _unless_left(v3, self._classification.classify(v3.caller, request)))

    async def create_token(self, sent: OpenRequest) -> Response:
        kind = media_type(sent.request.headers)
        if kind != FormType.URLENCODED:
            raise ParameterError(f"The body must be {FormType.URLENCODED}.")
        sent = sent.with_form(await self._classify_space.read_urlencoded(sent.request, TOKEN_FORM_BYTES_LIMIT))
        if sent.read(GRANT_TYPE) == REFRESH_TOKEN_GRANT:
            caller = await self._authenticator.find_refresh_token(sent.read(REFRESH_TOKEN), self._address_of(sent.request))
            if caller is None:
                raise RefreshTokenError
        else:
            api_key = sent.read(API_KEY)
            if not api_key:
                raise ParameterError('The field "apikey" is missing or blank; give the API key.')
            caller = await self._authenticator.find_api_key(api_key, self._address_of(sent.request))
            if caller is None:
                raise UnknownApiKeyError
        self._admit(caller)
        return JSONResponse(self._tokens.issue(TokenSubject(user=caller.user, fingerprint=caller.fingerprint)))

    async def health(self) -> Health:
        """Whether a create would succeed now."""
        return await self._health.health()

    async def watch_health(self) -> None:
        """Look now and then, so that the log tells of what a probe no longer shows."""
        await self._health.watch()

    async def readiness(self) -> Health:
        """Whether requests should come."""
        return await self._health.readiness()

    def _address_of(self, request: Request) -> str:
        peer = None if request.client is None else request.client.host
        return find_client_address(peer, request.headers.getlist(FORWARDED_HEADER), self._trusted_proxies)

    def _admit(self, caller: Caller) -> Caller:
        caller = replace(caller, quota=caller.quota.over(self._settings.quota))
        self._rates.count_request(caller.namespace, caller.quota)
        return caller

    @contextmanager
    def _counting_upload(self, v3: V3Request) -> Iterator[None]:
        """Count what the caller sends, by its declared length, or else by what comes of it.

        Raises TooManyRequestsError where the caller has sent too much.
        """
        tenant, quota = v3.caller.namespace, v3.caller.quota
        declared = declared_length(v3.request.headers)
        if declared is not None:
            self._rates.count_upload(tenant, quota, declared)
            yield
            return
        reserved = self._rates.reserve_upload(tenant, quota, EXAMPLES_LIMITS.body_bytes)
        try:
            yield
        finally:
            self._rates.correct_upload(tenant, quota, reserved=reserved, came_bytes=v3.request.scope.get(RECEIVED_KEY, 0))

    async def _download(self, v3: V3Request, export: ExportFormat) -> Response:
        classifier_id = v3.read(CLASSIFIER_ID)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._downloads.slot(v3.caller.namespace, left=_left(v3)))
            stored = await self._classifiers.find_export(v3.caller, classifier_id, export)
            file = await open_export(self._objects, stored)
            headers = {
                "Content-Disposition": f'attachment; filename="{classifier_id}{export.suffix}"',
                "Content-Length": str(file.size_bytes),
            }
            return _Download(file.chunks, headers, held.pop_all(), self._pace.longest_seconds(file.size_bytes))

    @asynccontextmanager
    async def _receive_examples(self, v3: V3Request) -> AsyncIterator[Form]:
        tenant = v3.caller.namespace
        if _is_empty_form(v3.request):
            yield Form()
            return
        async with AsyncExitStack() as held:
            with self._counting_upload(v3):
                received = self._examples_space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS, tenant=tenant)
                form = await held.enter_async_context(received)
            yield form

    @asynccontextmanager
    async def _receive_classify_form(self, v3: V3Request) -> AsyncIterator[Form]:
        request, tenant = v3.request, v3.caller.namespace
        kind = media_type(request.headers)
        if _is_empty_form(request):
            yield Form()
            return
        if kind.startswith("multipart/") or (has_body(request.headers) and kind != FormType.URLENCODED):
            async with self._classify_space.receive_form(request, v3.operation, CLASSIFY_LIMITS, tenant=tenant) as form:
                yield form
            return
        async with self._classify_space.slots.slot(tenant, left=_left(v3)):
            yield await self._classify_space.read_urlencoded(request) if kind == FormType.URLENCODED else Form()


class _Download(StreamingResponse):
    """A file; what it holds is given back when the last byte is sent, or the client is gone."""

    def __init__(
        self, chunks: AsyncIterator[bytes], headers: Mapping[str, str], held: AsyncExitStack, longest_seconds: float
    ) -> None:
        super().__init__(chunks, media_type=FILE_TYPE, headers=headers)
        self._held = held
        self._longest_seconds = longest_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            try:
                async with asyncio.timeout(self._longest_seconds) as limit:
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                if not limit.expired():
                    # The object store did not answer in time.
                    raise
                # The server breaks the connection off, as the answer has no end.
                logger.warning("download too slow", extra={"seconds": self._longest_seconds, "user": scope.get(CALLER_KEY)})


@asynccontextmanager
async def running_gateway(dependencies: Dependencies) -> AsyncIterator[Gateway]:
    """A gateway that reads credentials and watches their namespaces, until the context is left."""
    settings = dependencies.settings
    async with AsyncExitStack() as resources:
        keys = TokenKeys(dependencies.client, ObjectKey(settings.namespace, settings.token_keys_secret))
        tokens = Tokens(keys)
        authenticator = Authenticator(tokens)
        resources.callback(authenticator.close)
        store = ClassifierStore(dependencies.client, settings.built_in_namespace)
        resources.push_async_callback(store.close)
        predictions = PredictionClient(
            store,
            dependencies.metrics,
            timeout_seconds=settings.prediction_timeout_seconds,
            calls=_build_slots(settings, "predictions are asked for", MAX_CONCURRENT_PREDICTIONS),
        )
        resources.push_async_callback(predictions.close)
        pixels = PixelReader(timeout_seconds=REQUEST_PREDICTION_TIMEOUTS * settings.prediction_timeout_seconds)
        resources.callback(pixels.close)
        # Apart: whoever uploads examples need not wait for them when classifying.
        example_zips, classify_zips = ZipInspector(timeout_seconds=settings.body_timeout_seconds), _build_zip_threads(settings)
        resources.push_async_callback(example_zips.close)
        resources.callback(classify_zips.close)
        fetcher = UrlFetcher(
            folder=settings.upload_folder,
            slots=_build_slots(settings, "images are fetched", settings.max_concurrent_fetches),
            rules=NetworkRules.parse(allowed=settings.url_allowed_networks, denied=settings.url_denied_networks),
            # As many threads as slots: no name waits for another one.
            resolver=dependencies.resolver or ThreadedResolver(settings.max_concurrent_fetches),
        )
        resources.push_async_callback(fetcher.close)
        folder = CredentialsFolder(
            settings.credentials_folder,
            authenticator,
            store.watch_namespaces,
            reserved_namespace=settings.built_in_namespace,
        )
        await asyncio.gather(folder.refresh(), keys.refresh())
        for task in (folder.watch(settings.credentials_poll_seconds), keys.keep()):
            resources.callback(asyncio.create_task(task).cancel)
        parts = Parts(
            authenticator=authenticator,
            credentials=folder,
            tokens=tokens,
            store=store,
            predictions=predictions,
            pixels=pixels,
            fetcher=fetcher,
            example_zips=example_zips,
            classify_zips=classify_zips,
        )
        gateway = Gateway(dependencies, parts)
        resources.callback(asyncio.create_task(gateway.watch_health()).cancel)
        yield gateway


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
        raise NotFoundError(_describe_unknown(path))


class GatewayApp:
    """The addresses."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        handlers: dict[Operation, Handler[V3Request]] = {
            CREATE_CLASSIFIER: gateway.create,
            LIST_CLASSIFIERS: gateway.list_all,
            GET_CLASSIFIER: gateway.details,
            UPDATE_CLASSIFIER: gateway.retrain,
            DELETE_CLASSIFIER: gateway.delete,
            GET_CORE_ML_MODEL: gateway.core_ml_model,
            GET_ONNX_MODEL: gateway.onnx_model,
            CLASSIFY: gateway.classify,
            CLASSIFY_URL: gateway.classify,
            DELETE_USER_DATA: gateway.delete_user_data,
        }
        open_handlers: dict[Operation, Handler[OpenRequest]] = {CREATE_TOKEN: gateway.create_token}
        self._routes = _Routes(handlers)
        self._open_routes = _Routes(open_handlers)
        self._document = build_document([*handlers, *open_handlers], PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = _read_path(scope).removeprefix(PREFIX).rstrip("/") or "/"
        if _is_v3(path):
            answer = self._answer_v3(request, path)
        elif path in (LIVE_PATH, DOCUMENT_PATH):
            answer = self._answer_fixed(request, path)
        else:
            answer = self._answer_open(request, path)
        await (await answer)(scope, receive, send)

    async def _answer_v3(self, request: Request, path: str) -> Response:
        query = _parse_query(request)
        caller = await self._gateway.authenticate(request, dict(query))
        request.scope[CALLER_KEY] = caller.user
        operation, handler, values = self._routes.find(request, path)
        sent = SentFields(path=values, query=query, headers=_read_headers(request))
        v3 = V3Request(request=request, operation=operation, sent=sent, caller=caller)
        v3.read(VERSION)
        return await handler(v3)

    async def _answer_open(self, request: Request, path: str) -> Response:
        operation, handler, values = self._open_routes.find(request, path)
        sent = SentFields(path=values, query=_parse_query(request), headers=_read_headers(request))
        return await handler(OpenRequest(request=request, operation=operation, sent=sent))

    async def _answer_fixed(self, request: Request, path: str) -> Response:
        request.scope[ROUTE_KEY] = path
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(request.method, ["GET", "HEAD"])
        if path == DOCUMENT_PATH:
            return JSONResponse(self._document)
        return PlainTextResponse("ok\n")


def build_app(gateway: Gateway, metrics: Metrics) -> ASGIApp:
    """The ASGI application."""
    return ContractMiddleware(GatewayApp(gateway), metrics)


def build_internal_app(gateway: Gateway, metrics: Metrics) -> ASGIApp:
    """Probes and metrics. They ask for no credentials and say what is missing, hence have a port of their own."""

    async def answer_live(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def answer_ready(_request: Request) -> Response:
        return _tell_health(await gateway.readiness())

    async def answer_health(_request: Request) -> Response:
        return _tell_health(await gateway.health())

    async def answer_metrics(_request: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            Route(LIVE_PATH, answer_live),
            Route("/readyz", answer_ready),
            Route("/healthz", answer_health),
            Route("/metrics", answer_metrics),
        ]
    )


def _tell_health(health: Health) -> Response:
    if health.healthy:
        return PlainTextResponse("ok\n")
    body = {"code": 503, "error": f"Not healthy: {health.reason}", "error_id": "unavailable"}
    return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})


def _build_slots(settings: GatewaySettings, what: str, total: int) -> FairSlots:
    return FairSlots(what, total=total, share=settings.share_of(total), timeout_seconds=settings.body_timeout_seconds)


def _build_queue(settings: GatewaySettings, what: str, total: int) -> FairSlots:
    """Slots that requests wait for before anything is done for them."""
    return FairSlots(
        what,
        total=total,
        share=settings.share_of(total),
        timeout_seconds=settings.body_timeout_seconds,
        waiting_limit=_waiting_limit(settings),
    )


def _waiting_limit(settings: GatewaySettings) -> int:
    return settings.connections // WAITING_PART_OF_CONNECTIONS


def _build_pace(settings: GatewaySettings) -> BodyPace:
    return BodyPace(
        stall_seconds=settings.body_timeout_seconds, least_bytes_per_second=settings.body_kilobytes_per_second * 1024
    )


def _left(v3: V3Request) -> asyncio.Event | None:
    """Set once the client has closed its side of the connection."""
    return v3.request.scope.get(LEFT_KEY)


async def _unless_left(v3: V3Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of work that is given up when its client has left. Raises InputError then."""
    left = _left(v3)
    if left is None:
        return await work
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise InputError("The connection was closed before there was an answer; send the request again and stay connected.")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def _build_zip_threads(settings: GatewaySettings) -> FairThreads:
    return FairThreads("zips are opened", threads=ZIP_THREADS, share=1, timeout_seconds=settings.body_timeout_seconds)


def _build_space(settings: GatewaySettings, at_once: int) -> UploadSpace:
    return UploadSpace(
        folder=settings.upload_folder,
        slots=_build_queue(settings, "uploads are being read", at_once),
        pace=_build_pace(settings),
    )


def _is_empty_form(request: Request) -> bool:
    """Some clients send nothing at all for a form without parts."""
    return media_type(request.headers) == FormType.MULTIPART and not has_body(request.headers)


def _read_terms(v3: V3Request) -> ExampleTerms:
    return ExampleTerms(opt_out=v3.read(LEARNING_OPT_OUT), customer_id=v3.read(METADATA))


def _read_path(scope: Scope) -> str:
    """The decoded path, with encoded slashes as they are: they are part of an id, and lead to no other address."""
    raw = scope.get("raw_path", b"").decode("latin-1")
    path = unquote(_ENCODED_SLASH.sub("%252F", raw)) if _ENCODED_SLASH.search(raw) else str(scope["path"])
    # Clients put a base address that ends in a slash before an address that begins with one.
    return _SLASHES.sub("/", path)


def _describe_unknown(path: str) -> str:
    """Clients that send several requests at once show this sentence though it may be another request that failed."""
    for address, what in WITHDRAWN.items():
        if path == address or path.startswith(address + "/"):
            return (
                f"{what} ({address}) is withdrawn from Visual Recognition v3, and nothing is at this address; other calls, "
                "such as /v3/classify, are answered by themselves."
            )
    if _is_v3(path):
        return "There is nothing at this address of the API; /openapi.json describes what there is."
    return (
        "There is nothing at this address; the API is below /v3, tokens are at /identity/token, and /openapi.json describes "
        "both."
    )


def _is_v3(path: str) -> bool:
    return path == "/v3" or path.startswith("/v3/")


def _parse_query(request: Request) -> tuple[tuple[str, str], ...]:
    return parse_urlencoded(request.scope["query_string"].decode("latin-1"))


def _read_headers(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), _decode_header(value)) for name, value in request.headers.raw)


def _decode_header(value: bytes) -> str:
    # Scripts send UTF-8, and older clients Latin-1, which hardly ever is UTF-8 by chance.
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
