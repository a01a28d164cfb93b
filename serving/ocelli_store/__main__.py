"""`python -m ocelli_store`: serves until SIGTERM, then finishes what it has begun.

Exit code 0 after a graceful stop, 1 with a one-line reason where it cannot start.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from ocelli_cluster.client import ClusterClient, CredentialsError

from ocelli_api.log_lines import configure_logging
from ocelli_api.settings import SettingsError, load_settings
from ocelli_http.freed_memory import given_back_regularly, keep_little
from ocelli_http.internal_server import internal_server
from ocelli_http.server import BindError, Server, bind, build_config
from ocelli_store.app import Store, build_app, build_internal_app
from ocelli_store.folder import ObjectFolder
from ocelli_store.metrics import Metrics
from ocelli_store.settings import StoreSettings
from ocelli_store.tokens import TokenReviewer

DRAIN_SECONDS = 3
"""Its Deployment starts the next store once this one has ended, and idle pooled connections last as long as the drain."""
LAST_ANSWERS_SECONDS = 15
"""With the drain, less than a Pod's 30 seconds."""
_CONNECTIONS = 1000
"""Each may cost a third of a megabyte before its token is known: a head, or what the socket had of a body."""


async def serve(settings: StoreSettings) -> None:
    """Serve until a signal says to stop.

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
        async with given_back_regularly(), internal:
            await Server(config, drain_seconds=DRAIN_SECONDS).serve(sockets=[bind(settings.host, settings.port)])


def main() -> int:
    """The exit code."""
    try:
        settings = load_settings(StoreSettings, os.environ)
    except SettingsError as error:
        print(f"store: {error}", file=sys.stderr)
        return 1
    keep_little()
    configure_logging(settings.log_level, talkative=("uvicorn",))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except OSError as error:
        print(f"store: the volume at {settings.folder} cannot be used: {error.strerror}; mount a writable one", file=sys.stderr)
        return 1
    except (CredentialsError, BindError) as error:
        print(f"store: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
