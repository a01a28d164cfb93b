"""The ASGI applications of a gateway: the API, and probes with metrics on a port of their own."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ocelli_gateway.contract import ContractMiddleware
from ocelli_gateway.errors import answer_refusal
from ocelli_gateway.gateway import Gateway
from ocelli_gateway.handlers import Handlers
from ocelli_gateway.health import Health
from ocelli_gateway.http_protocol import LIVE_PATH
from ocelli_gateway.management_handlers import ManagementHandlers
from ocelli_gateway.quality_handlers import QualityHandlers
from ocelli_gateway.refusals import UnavailableError
from ocelli_gateway.routing import Router
from ocelli_http.metrics import metrics_route


def build_app(gateway: Gateway) -> ASGIApp:
    """The application of the API."""
    handlers = Handlers(gateway)
    by_operation = {
        **handlers.by_operation,
        **ManagementHandlers(gateway).by_operation,
        **QualityHandlers(gateway).by_operation,
    }
    router = Router(gateway.admission.authenticate, by_operation, handlers.open)
    return ContractMiddleware(router, gateway.metrics)


def build_internal_app(gateway: Gateway) -> ASGIApp:
    """Probes and metrics. They need no credentials and name what is missing, so they have a port of their own."""

    async def answer_live(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def answer_ready(_request: Request) -> Response:
        return _answer_health(await gateway.health.readiness())

    async def answer_health(_request: Request) -> Response:
        return _answer_health(await gateway.health.health())

    return Starlette(
        routes=[
            Route(LIVE_PATH, answer_live),
            Route("/readyz", answer_ready),
            Route("/healthz", answer_health),
            metrics_route(gateway.metrics.registry),
        ]
    )


def _answer_health(health: Health) -> Response:
    if health.healthy:
        return PlainTextResponse("ok\n")
    answer = answer_refusal(UnavailableError(f"Not healthy: {health.reason}", retry_after_seconds=1))
    return JSONResponse(answer.body(), status_code=answer.status, headers=answer.headers)
