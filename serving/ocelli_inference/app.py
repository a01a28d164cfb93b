"""The routes: the prediction call and the Open Inference Protocol; probes and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocelli_api.documents import build_document
from ocelli_api.prediction import LANGUAGE_HEADER, PREDICTIONS_PATH, REVISION_HEADER, THRESHOLD_HEADER, Prediction
from ocelli_http.metrics import metrics_route
from ocelli_inference import open_inference
from ocelli_inference.errors import ErrorAnswer, OtherRevisionError, answer_error, build_error_response, internal_error
from ocelli_inference.metrics import RequestOutcome
from ocelli_inference.open_inference import UnknownModelError
from ocelli_inference.request_body import ClientGoneError, read_body, wait_for_disconnect
from ocelli_inference.service import InferenceService
from ocelli_storage.archives import IMAGE_BYTES_LIMIT
from ocelli_storage.image_file import ImageError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_MODEL_PATH = "/v2/models/{name}"
_VERSION_PATH = _MODEL_PATH + "/versions/{revision}"


def build_app(service: InferenceService) -> Starlette:
    """The ASGI application for a service that may still be loading."""
    routes = _Routes(service)
    open_inference_routes = [
        Route(prefix + path, endpoint, methods=[method])
        for prefix in (_MODEL_PATH, _VERSION_PATH)
        for path, endpoint, method in (
            ("", routes.model_metadata, "GET"),
            ("/ready", routes.model_ready, "GET"),
            ("/infer", routes.infer, "POST"),
        )
    ]
    return Starlette(
        routes=[
            Route(PREDICTIONS_PATH, routes.predict, methods=["POST"]),
            Route("/v2", routes.server_metadata),
            Route("/v2/health/live", routes.server_live),
            Route("/v2/health/ready", routes.server_ready),
            *open_inference_routes,
        ],
        middleware=[Middleware(_RequestCounting, service=service)],
        exception_handlers={HTTPException: _answer_http_exception},
    )


def build_internal_app(service: InferenceService) -> Starlette:
    """Probes and metrics."""
    routes = _Routes(service)
    return Starlette(
        routes=[
            Route("/healthz", routes.healthz),
            Route("/readyz", routes.readyz),
            metrics_route(service.metrics.registry),
        ]
    )


class _Routes:
    def __init__(self, service: InferenceService) -> None:
        self._service = service

    async def predict(self, request: Request) -> Response:
        async def answer() -> Response:
            self._check_revision(request.headers.get(REVISION_HEADER))
            predictor = self._service.predictor
            with self._service.admission.open_ticket() as ticket:
                body = await read_body(request, ticket, limit_bytes=IMAGE_BYTES_LIMIT)
                ticket.add_images(1)
                language = request.headers.get(LANGUAGE_HEADER)
                threshold = _parse_threshold(request.headers.get(THRESHOLD_HEADER))
                prediction = await _unless_client_gone(request, predictor.predict(body, language=language, threshold=threshold))
            return JSONResponse(build_document(prediction))

        return await self._observed(answer, lambda error: {"error": {"kind": error.kind, "message": error.message}})

    async def infer(self, request: Request) -> Response:
        async def answer() -> Response:
            self._check_model(request)
            predictor = self._service.predictor
            with self._service.admission.open_ticket() as ticket:
                body = await read_body(request, ticket, limit_bytes=open_inference.BODY_BYTES_LIMIT)
                ticket.add_bytes(len(body) * open_inference.PARSED_BYTES_FACTOR)
                document = await asyncio.to_thread(open_inference.parse_infer_request, body)
                ticket.add_images(len(document.images))
                predictions = await _unless_client_gone(request, _predict_all(predictor.predict, document.images))
            return JSONResponse(open_inference.infer_response(document, predictions))

        return await self._observed(answer, _open_inference_error)

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        if self._service.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("draining\n" if self._service.draining else "loading\n", status_code=503)

    async def server_metadata(self, request: Request) -> Response:
        return JSONResponse(open_inference.server_metadata(version("ocelli")))

    async def server_live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def server_ready(self, request: Request) -> Response:
        return JSONResponse({"ready": self._service.ready}, status_code=200 if self._service.ready else 503)

    async def model_ready(self, request: Request) -> Response:
        try:
            self._check_model(request)
        except UnknownModelError as error:
            return self._error_response(error, _open_inference_error)
        ready = self._service.ready
        return JSONResponse({"name": self._service.classifier_id, "ready": ready}, status_code=200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        try:
            self._check_model(request)
            predictor = self._service.predictor
        except Exception as error:
            return self._error_response(error, _open_inference_error)
        return JSONResponse(
            open_inference.model_metadata(
                classifier_id=self._service.classifier_id,
                revision=self._service.revision,
                class_count=len(predictor.classifier.class_names),
                platform=predictor.engine_name,
            )
        )

    def _check_revision(self, expected: str | None) -> None:
        if expected is not None and expected != self._service.revision:
            raise OtherRevisionError(
                f"this server serves revision {self._service.revision}, not {expected[:64]!r}; use another server"
            )

    def _check_model(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self._service.classifier_id:
            raise UnknownModelError(f"model {name!r} is not known; use this server's model, {self._service.classifier_id!r}")
        revision = request.path_params.get("revision", self._service.revision)
        if revision != self._service.revision:
            raise UnknownModelError(
                f"model {name!r} has no version {revision!r} here; use this server's version, {self._service.revision!r}"
            )

    async def _observed(self, answer: Callable[[], Awaitable[Response]], body_of: Callable[[ErrorAnswer], object]) -> Response:
        """The answer, or the response for its error. Either is counted."""
        started = time.perf_counter()
        try:
            response = await answer()
        except Exception as error:
            return self._error_response(error, body_of, counted=True)
        self._service.metrics.requests.labels(RequestOutcome.PREDICTED).inc()
        self._service.metrics.request_seconds.observe(time.perf_counter() - started)
        return response

    def _error_response(self, error: Exception, body_of: Callable[[ErrorAnswer], object], *, counted: bool = False) -> Response:
        answer = answer_error(error)
        if answer is None:
            _log.error("prediction failed", exc_info=error)
            answer = internal_error()
        if counted:
            self._service.metrics.requests.labels(answer.kind).inc()
        return build_error_response(answer, body_of(answer))


class _RequestCounting:
    """Counts predictions until their answer is sent, and closes connections while the server drains."""

    def __init__(self, app: ASGIApp, service: InferenceService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._service.draining:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        with self._service.count_request():
            await self._app(scope, receive, send_and_close)


def _parse_threshold(header: str | None) -> float:
    """The lowest score that is returned; 0 if the header is missing or not a number."""
    try:
        return float(header or 0)
    except ValueError:
        return 0.0


def _open_inference_error(error: ErrorAnswer) -> object:
    return {"error": error.message}


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


async def _predict_all(
    predict: Callable[[bytes], Coroutine[Any, Any, Prediction]], images: Sequence[bytes]
) -> list[Prediction]:
    """All predictions; or the error of the first image that has one, with the image's position in the message."""

    async def predict_one(position: int, image: bytes) -> Prediction:
        try:
            return await predict(image)
        except ImageError as error:
            raise ImageError(error.kind, f"image {position} of {len(images)}, counted from 0: {error}") from error

    tasks = [asyncio.ensure_future(predict_one(position, image)) for position, image in enumerate(images)]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _unless_client_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of the work. If the client disconnects, cancels the work and raises ClientGoneError."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
