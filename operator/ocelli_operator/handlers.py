"""The frame that kopf gives: start and end, log-in, liveness, and a watch of Classifiers. The only module that knows kopf.

Only `on.event` handlers: `on.create` and its kin leave annotations and finalizers on users' objects. kopf's event puts a key on
the queue; what a pass reads comes from the operator's own caches, which put keys there too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import kopf

from ocelli_api.classifier import GROUP, PLURAL, VERSION
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.config import OperatorConfig
from ocelli_operator.operation import Operation

CONNECT_SECONDS = 5.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


class BlindError(Exception):
    """A watch has heard nothing of the API server for too long: the process should be restarted."""


class _Backoffs:
    """kopf tries again without end, ever less often. It would end the operator after its last try, though one namespace that is
    gone is no reason to leave the others; whether the API server is heard at all is for liveness to say."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1]))


async def run_operator(operation: Operation, client: ClusterClient, config: OperatorConfig) -> None:
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
        settings.networking.error_backoffs = _Backoffs()
        # Neither namespaces nor CRDs are observed: that would need rights on them all.
        settings.scanning.disabled = True
        settings.watching.server_timeout = config.watch_timeouts.most_seconds
        settings.watching.client_timeout = config.watch_timeouts.most_seconds + 10
        settings.watching.connect_timeout = CONNECT_SECONDS
        task = asyncio.create_task(operation.run(), name="operation")
        task.add_done_callback(lambda _task: stop.set())
        running.append(task)

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @kopf.on.probe(registry=registry, id="blind_seconds", errors=kopf.ErrorsMode.PERMANENT)
    async def probe(**_: Any) -> float:
        if operation.blind_seconds > config.blind_limit_seconds:
            raise BlindError(f"nothing was heard of the API server for {operation.blind_seconds:.0f} seconds")
        return operation.blind_seconds

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def classifier_event(meta: Mapping[str, Any], **_: Any) -> None:
        operation.wake(ObjectKey(meta["namespace"], meta["name"]))

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
