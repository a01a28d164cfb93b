"""Events about Pods, written in the background; the same thing said again raises a count.

Owns names, counts and that a failing API never holds up a Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from datetime import UTC, datetime
from typing import Literal

import aiohttp

from ocelli_local.api_client import MERGE_PATCH, ApiClient, ApiError
from ocelli_local.manifests import Manifest, format_time

logger = logging.getLogger(__name__)
EventType = Literal["Normal", "Warning"]
QUEUE_LIMIT = 1000
REMEMBERED_LIMIT = 2000


class EventRecorder:
    def __init__(self, client: ApiClient, node_name: str) -> None:
        self._client = client
        self._node_name = node_name
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(QUEUE_LIMIT)
        self._written: dict[tuple[str, ...], tuple[str, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._write_all(), name="events")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def record(self, pod: Manifest, kind: EventType, reason: str, message: str, *, container: str | None = None) -> None:
        """Note an Event; one too many is dropped rather than holding up the Pod."""
        metadata = pod["metadata"]
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        }
        if container is not None:
            involved["fieldPath"] = f"spec.containers{{{container}}}"
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait({"involvedObject": involved, "type": kind, "reason": reason, "message": message[:1000]})

    async def _write_all(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except ApiError as error:
                # The namespace is going: nobody is left to read it.
                if error.status not in (403, 404):
                    logger.warning("event not written: reason=%s error=%s", event["reason"], error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                logger.warning("event not written: reason=%s error=%r", event["reason"], error)

    async def _write(self, event: Manifest) -> None:
        involved = event["involvedObject"]
        path = f"/api/v1/namespaces/{involved['namespace']}/events"
        key = (involved["uid"], involved.get("fieldPath", ""), event["reason"], event["message"])
        now = format_time(datetime.now(UTC))
        if key in self._written:
            name, count = self._written[key]
            self._written[key] = (name, count + 1)
            try:
                await self._client.patch(f"{path}/{name}", {"count": count + 1, "lastTimestamp": now}, patch_type=MERGE_PATCH)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        name = f"{involved['name'][:200]}.{secrets.token_hex(8)}"
        source = {"component": "process-node", "host": self._node_name}
        await self._client.create(
            path,
            {
                **event,
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": involved["namespace"]},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
                "source": source,
                "reportingComponent": "process-node",
                "reportingInstance": self._node_name,
            },
        )
        if len(self._written) >= REMEMBERED_LIMIT:
            self._written.pop(next(iter(self._written)))
        self._written[key] = (name, 1)
