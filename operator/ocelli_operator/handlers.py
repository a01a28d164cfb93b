"""The frame that kopf gives: start and end, signals, log-in and liveness. The only module that knows kopf.

kopf watches nothing: it would list every Classifier in one answer, and keep what it listed, next to the operator's own caches,
which report each change already.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import kopf
from ocelli_cluster.client import ClusterClient

from ocelli_operator.operation import Operation
from ocelli_operator.settings import OperatorSettings

logger = logging.getLogger(__name__)


class StaleWatchError(Exception):
    """A watch has heard nothing of the API server for too long: the process should be restarted."""


class ReconcileStuckError(Exception):
    """A pass over a Classifier does not end: the process should be restarted, so that its worker is free again."""


async def run_operator(operation: Operation, client: ClusterClient, config: OperatorSettings) -> None:
    """Run until a signal comes. Raises what ended the operation, if it ended by itself."""
    registry = kopf.OperatorRegistry()
    stop = asyncio.Event()
    running: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        credentials = await client.credentials()
        scheme, _separator, token = (credentials.authorization or "").partition(" ")
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_path,
            insecure=credentials.insecure,
            scheme=scheme or None,
            token=token or None,
            certificate_path=credentials.certificate_path,
            private_key_path=credentials.private_key_path,
        )

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        # Neither namespaces nor CRDs are observed: that would need rights on them all.
        settings.scanning.disabled = True
        task = asyncio.create_task(operation.run(), name="operation")
        task.add_done_callback(lambda _task: stop.set())
        running.append(task)

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @kopf.on.probe(registry=registry, id="watch_age_seconds", errors=kopf.ErrorsMode.PERMANENT)
    async def probe(**_: Any) -> float:
        if operation.watch_age_seconds > config.stale_watch_limit_seconds:
            raise StaleWatchError(f"nothing was heard of the API server for {operation.watch_age_seconds:.0f} seconds")
        return operation.watch_age_seconds

    @kopf.on.probe(registry=registry, id="pass_seconds", errors=kopf.ErrorsMode.PERMANENT)
    async def probe_passes(**_: Any) -> float:
        oldest = operation.oldest_reconcile()
        if oldest is None:
            return 0.0
        key, seconds = oldest
        if seconds > config.reconcile_limit_seconds:
            logger.error("pass does not end", extra={"classifier": str(key), "seconds": round(seconds)})
            raise ReconcileStuckError(f"the pass over Classifier {key} has not ended after {seconds:.0f} seconds")
        return seconds

    await kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=not config.namespaces,
        namespaces=config.namespaces,
        liveness_endpoint=f"http://{config.bind_address}:{config.health_port}/healthz",
        # Else kopf asks for the name of the user, and in an image that runs under a mere number there is none.
        identity=config.identity,  # type: ignore[arg-type]
        stop_flag=stop,
    )
    for task in running:
        if not task.cancelled():
            task.result()
