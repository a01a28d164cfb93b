"""The operator watches each kind once: the resource cache does, and kopf does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from ocelli_api.pods import CLASSIFIER_LABEL
from ocelli_api.settings import load_settings
from ocelli_cluster.client import ClusterClient
from ocelli_operator.handlers import run_operator
from ocelli_operator.operation import Operation
from ocelli_operator.settings import OperatorSettings
from ocelli_storage.object_store import ObjectStore
from tests.integration.operator.operator_process import find_free_port
from tests.unit.cluster.kubeconfig import write_kubeconfig

DISCOVERY = {"/api": {"versions": ["v1"]}, "/apis": {"groups": []}}
CHILDREN = {
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/batch/v1/jobs",
    "/apis/apps/v1/deployments",
    "/apis/autoscaling/v2/horizontalpodautoscalers",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/networking.k8s.io/v1/networkpolicies",
}
WATCHED = {"/apis/ocelli.dev/v1alpha1/classifiers", *CHILDREN}


class ApiServer:
    """Has discovery and empty lists. Watches stay open without an event, and the Lease cannot be reached."""

    def __init__(self) -> None:
        self.lists: Counter[str] = Counter()
        self.watches: Counter[str] = Counter()
        self.selectors: dict[str, str] = {}
        self.discovered = asyncio.Event()
        self.stop = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            self.watches[request.path] += 1
            self.selectors[request.path] = request.query.get("labelSelector", "")
            response = web.StreamResponse()
            await response.prepare(request)
            await self.stop.wait()
            return response
        if request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if request.path == "/api/v1":
            self.discovered.set()
            return web.json_response({"resources": []})
        if "leases" in request.path:
            return web.json_response({}, status=503)
        self.lists[request.path] += 1
        return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_each_kind_is_listed_and_watched_once(tmp_path: Path, store: ObjectStore) -> None:
    async def scenario() -> ApiServer:
        server = ApiServer()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        settings = {"OCELLI_STORE_URL": store.url, "OCELLI_METRICS_PORT": str(find_free_port())}
        config = load_settings(OperatorSettings, {**settings, "OCELLI_HEALTH_PORT": str(find_free_port())})
        async with await ClusterClient.connect(write_kubeconfig(tmp_path, runner.addresses[0][1])) as client:
            running = asyncio.create_task(run_operator(Operation(client, store, config), client, config))
            try:
                async with asyncio.timeout(20):
                    await server.discovered.wait()
                    while server.watches.keys() < WATCHED:  # noqa: ASYNC110 - waits for requests
                        await asyncio.sleep(0.02)
                # Time for a second watch, if there were one.
                await asyncio.sleep(0.5)
                return server
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
                server.stop.set()
                await runner.cleanup()

    server = asyncio.run(scenario())
    assert server.watches == dict.fromkeys(WATCHED, 1)
    assert server.lists == dict.fromkeys(WATCHED, 1)
    assert {path for path, selector in server.selectors.items() if selector == CLASSIFIER_LABEL} == CHILDREN
