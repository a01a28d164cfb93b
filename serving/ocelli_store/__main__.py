"""`python -m ocelli_store`: serves until SIGTERM, then finishes the requests in flight.

Exit code 0 after a graceful stop; 1 with a one-line reason if it cannot start.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from ocelli_api.log_lines import configure_logging
from ocelli_api.settings import SettingsError, load_settings
from ocelli_cluster.client import ClusterClient, CredentialsError
from ocelli_http.freed_memory import limit_kept_memory, trimmed_regularly
from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError, Server, bind, build_config
from ocelli_store.app import Store, build_app, build_internal_app
from ocelli_store.folder import ObjectFolder
from ocelli_store.metrics import Metrics
from ocelli_store.settings import StoreSettings
from ocelli_store.tokens import TokenReviewer

DRAIN_SECONDS = 3
"""Short, because the Deployment starts the next store only after this one has ended."""
LAST_ANSWERS_SECONDS = 15
"""Together with the drain, less than a Pod's grace period of 30 seconds."""
_CONNECTIONS = 1000
"""Before its token is checked, each can take a third of a megabyte: a head, or the buffered part of a body."""


async def serve(settings: StoreSettings) -> None:
    """Serve until a signal arrives.

    Raises:
        OSError, CredentialsError, BindError: volume, cluster or address cannot be used.
    """
    folder = ObjectFolder(settings.folder, settings.namespace_quota_bytes)
    async with await ClusterClient.connect() as client:
        store = Store(
            folder=folder,
            reviewer=TokenReviewer(client),
            administrators=settings.administrators,
            metrics=Metrics(free_bytes=folder.free_bytes, size_bytes=folder.size_bytes),
        )
        config = build_config(
            build_app(store),
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
        internal = internal_server(build_internal_app(store), settings.host, settings.internal_port)
        async with trimmed_regularly(), internal:
            await Server(config, drain_seconds=DRAIN_SECONDS).serve(sockets=[bind(settings.host, settings.port)])


def main() -> int:
    """The exit code."""
    try:
        settings = load_settings(StoreSettings, os.environ)
    except SettingsError as error:
        print(f"store: {error}", file=sys.stderr)
        return 1
    limit_kept_memory()
    configure_logging(settings.log_level, talkative=("uvicorn",))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except OSError as error:
        print(
            f"store: the volume at {settings.folder} cannot be used: {error.strerror}; mount a writable volume", file=sys.stderr
        )
        return 1
    except (CredentialsError, BindError) as error:
        print(f"store: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
