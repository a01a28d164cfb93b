"""The kopf operator around the operation: start, stop, signals and liveness. The only module that knows kopf.

kopf watches nothing here. The watches of `cluster_view` are the only ones, see docs/decisions/0016-what-kopf-is-for.md.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Any

import kopf

from ocelli_cluster.client import ClusterClient
from ocelli_operator.operation import Operation
from ocelli_operator.settings import OperatorSettings

logger = logging.getLogger(__name__)


class StaleWatchError(Exception):
    """A watch has received nothing for too long, so the process should be restarted."""


class ReconcileStuckError(Exception):
    """A reconcile does not end, so the process should be restarted to free its worker."""


async def run_operator(operation: Operation, client: ClusterClient, config: OperatorSettings) -> None:
    """Run until a signal arrives. If the operation fails, raise its exception."""
    registry = kopf.OperatorRegistry()
    stop = asyncio.Event()
    running: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**asdict(await client.credentials()))

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        # kopf would observe namespaces and CRDs, for which the operator has no rights.
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
    async def probe_watches(**_: Any) -> float:
        age_seconds = operation.watch_age_seconds
        if age_seconds > config.stale_watch_limit_seconds:
            raise StaleWatchError(f"stale watch: nothing received from the API server for {age_seconds:.0f} s")
        return age_seconds

    @kopf.on.probe(registry=registry, id="reconcile_age_seconds", errors=kopf.ErrorsMode.PERMANENT)
    async def probe_reconciles(**_: Any) -> float:
        oldest = operation.oldest_reconcile()
        if oldest is None:
            return 0.0
        key, age_seconds = oldest
        if age_seconds > config.reconcile_limit_seconds:
            logger.error("reconcile is stuck", extra={"classifier": str(key), "seconds": round(age_seconds)})
            raise ReconcileStuckError(f"Classifier {key}: reconcile has not ended after {age_seconds:.0f} s")
        return age_seconds

    await kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=not config.namespaces,
        namespaces=config.namespaces,
        liveness_endpoint=f"http://{config.bind_address}:{config.health_port}/healthz",
        # By default kopf looks up the name of the user, and the image runs as a numeric user without a name.
        identity=config.identity,  # type: ignore[arg-type]
        stop_flag=stop,
    )
    for task in running:
        if not task.cancelled():
            task.result()
