"""`python -m ocelli_gateway`: serves until SIGTERM, then finishes the requests in flight."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop

from ocelli_api.log_lines import configure_logging
from ocelli_api.settings import SettingsError, load_settings
from ocelli_cluster.client import ClusterClient, CredentialsError
from ocelli_gateway.app import build_app, build_internal_app
from ocelli_gateway.gateway import running_gateway
from ocelli_gateway.http_protocol import build_protocol
from ocelli_gateway.settings import GatewaySettings
from ocelli_http.freed_memory import limit_kept_memory, trimmed_regularly
from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError, Server, bind, build_config
from ocelli_storage.object_store import StoreConfigurationError
from ocelli_storage.store_url import open_store

LAST_ANSWERS_SECONDS = 7
"""For requests still in flight after the drain. The chart's grace period is the sum of this, the drain and the preStop hook."""


async def serve(settings: GatewaySettings) -> None:
    """Serve until a signal ends the process.

    Raises:
        StoreConfigurationError, CredentialsError, BindError: store, cluster or address cannot be used as set.
    """
    objects = open_store(settings.store_url)
    async with await ClusterClient.connect() as client, running_gateway(settings, client, objects) as gateway:
        config = build_config(
            build_app(gateway),
            http=build_protocol(stall_seconds=settings.body_timeout_seconds),
            limit_concurrency=settings.connections,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
        server = Server(config, drain_seconds=settings.drain_seconds)
        internal = internal_server(build_internal_app(gateway), settings.host, settings.internal_port)
        async with trimmed_regularly(), internal:
            await server.serve(sockets=[bind(settings.host, settings.port)])


def main() -> int:
    """Exit code 0 after a graceful stop, 1 with a one-line reason where it cannot start."""
    try:
        settings = load_settings(GatewaySettings, os.environ)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    limit_kept_memory()
    # uvicorn logs nothing that the access log does not have.
    configure_logging(settings.log_level, talkative=("uvicorn",))
    # Warnings of the multipart parser about clients that disconnect are noise.
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
