"""`python -m ocelli_gateway`: serves until SIGTERM, then finishes what it has begun."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop
from ocelli_cluster.client import ClusterClient, CredentialsError

from ocelli_api.log_lines import configure_logging
from ocelli_gateway.app import Dependencies, build_app, build_internal_app, running_gateway
from ocelli_gateway.http_protocol import build_protocol
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.settings import GatewaySettings, SettingsError
from ocelli_http.freed_memory import limit_kept_memory, trimmed_regularly
from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError, Server, bind, build_config
from ocelli_storage.object_store import StoreConfigurationError
from ocelli_storage.store_url import open_store

LAST_ANSWERS_SECONDS = 7
"""For what is still worked on when the drain is over. The chart's grace period is these, the drain and the preStop hook."""


async def serve(settings: GatewaySettings) -> None:
    """Serve until a signal says to stop.

    Raises:
        StoreConfigurationError, CredentialsError, BindError: store, cluster or address cannot be used as set.
    """
    objects = open_store(settings.store_url)
    metrics = Metrics()
    async with await ClusterClient.connect() as client:
        dependencies = Dependencies(settings=settings, client=client, objects=objects, metrics=metrics)
        async with running_gateway(dependencies) as gateway:
            config = build_config(
                build_app(gateway, metrics),
                http=build_protocol(stall_seconds=settings.body_timeout_seconds),
                limit_concurrency=settings.connections,
                timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
            )
            server = Server(config, drain_seconds=settings.drain_seconds)
            internal = internal_server(build_internal_app(gateway, metrics), settings.host, settings.internal_port)
            async with trimmed_regularly(), internal:
                await server.serve(sockets=[bind(settings.host, settings.port)])


def main() -> int:
    """Exit code 0 after a graceful stop, 1 with a one-line reason where it cannot start."""
    try:
        settings = GatewaySettings.from_environment(os.environ)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    limit_kept_memory()
    # uvicorn says nothing that the access log does not.
    configure_logging(settings.log_level, talkative=("uvicorn",))
    # A client that breaks off is no news of the multipart parser's.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (StoreConfigurationError, CredentialsError, BindError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
