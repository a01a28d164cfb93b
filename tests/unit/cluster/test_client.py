"""Connections: open watches and slow lists never delay requests, least of all those of the Lease."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ocelli_cluster.client import CONNECTIONS_LIMIT, ClusterClient
from ocelli_cluster.resources import CLASSIFIERS, LEASES
from tests.unit.cluster.kubeconfig import write_kubeconfig

pytestmark = pytest.mark.slow

WATCHES = 7 * 40
"""Seven kinds in each of forty namespaces."""


class ApiServer:
    """Answers requests for a Lease immediately, and lists only at the end. Watches never end."""

    def __init__(self) -> None:
        self.watches = 0
        self.lists = 0
        self._release = asyncio.Event()
        self._application = web.Application()
        self._application.router.add_get("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}", self._lease)
        self._application.router.add_get("/apis/ocelli.dev/v1alpha1/namespaces/{namespace}/classifiers", self._classifiers)

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[dict[str, str]]:
        """The environment of a client."""
        runner = web.AppRunner(self._application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        environment = write_kubeconfig(folder, port)
        try:
            yield environment
        finally:
            self._release.set()
            await runner.cleanup()

    async def _lease(self, request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": request.match_info["name"]}, "spec": {}})

    async def _classifiers(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            await self._release.wait()
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        self.watches += 1
        response = web.StreamResponse()
        await response.prepare(request)
        event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
        await response.write(json.dumps(event).encode() + b"\n")
        await self._release.wait()
        return response


@pytest.mark.timeout(60)
def test_open_watches_of_many_namespaces_leave_connections_for_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = ApiServer()
        async with (
            server.running(tmp_path) as environment,
            await ClusterClient.connect(environment) as client,
            AsyncExitStack() as watches,
        ):

            async def watch(namespace: str) -> None:
                events = await watches.enter_async_context(
                    client.watch(
                        CLASSIFIERS, namespace=namespace, label_selector=None, resource_version="1", timeout_seconds=60
                    )
                )
                await anext(events)

            async with asyncio.timeout(20):
                await asyncio.gather(*(watch(f"team-{number}") for number in range(WATCHES)))
                await client.get(LEASES, "ocelli-system", "ocelli-operator")
            assert server.watches == WATCHES

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_the_lease_does_not_wait_behind_lists(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = ApiServer()
        async with server.running(tmp_path) as environment, await ClusterClient.connect(environment) as client:
            lists = [
                asyncio.create_task(client.list_objects(CLASSIFIERS, f"team-{number}"))
                for number in range(CONNECTIONS_LIMIT + 1)
            ]
            try:
                async with asyncio.timeout(20):
                    while server.lists < CONNECTIONS_LIMIT:  # noqa: ASYNC110 - waits for requests
                        await asyncio.sleep(0.01)
                    await client.with_own_pool().get(LEASES, "ocelli-system", "ocelli-operator")
            finally:
                for task in lists:
                    task.cancel()
                await asyncio.gather(*lists, return_exceptions=True)

    asyncio.run(scenario())
