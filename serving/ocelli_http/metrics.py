"""The Prometheus metrics of a server: a registry with those of its process, and the route that exposes them."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def build_registry() -> CollectorRegistry:
    """A new registry with the metrics of the process and of Python's garbage collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def metrics_route(registry: CollectorRegistry) -> Route:
    """`/metrics`, in the text exposition format. Metrics are collected in a thread: some of them read files."""

    async def answer(_request: Request) -> Response:
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", answer)
