"""Two gateways on a real API server: each knows what the other has answered, in 500 lives of a classifier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ocelli_api.classifier import parse_classifier
from ocelli_api.names import build_object_name
from ocelli_api.revision import spec_revision
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_local import SyncClusterAccess
from tests.gateway_harness.images import examples, png
from tests.gateway_harness.v3_client import basic
from tests.integration.gateway.gateway_process import PASSWORD, USER, GatewayProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]

TIMES = 500
AT_ONCE = 50
VERSION = {"version": "2018-03-19"}
HERON, OWL, IMAGE = examples(1), examples(2), png()


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Two replicas, and the API server as the operator reaches it."""

    first: str
    second: str
    namespace: str
    session: aiohttp.ClientSession
    cluster: ClusterClient

    async def send(self, method: str, replica: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.request(method, replica + path, params=VERSION, **options) as response:
            return response.status, await response.json()

    async def create(self) -> str:
        form = aiohttp.FormData({"name": "replicas"})
        form.add_field("heron_positive_examples", HERON, filename="heron.zip")
        form.add_field("owl_positive_examples", OWL, filename="owl.zip")
        status, body = await self.send("POST", self.first, "/v3/classifiers", data=form)
        assert status == 200, body
        identity: str = body["classifier_id"]
        return identity

    async def classify(self, replica: str, identity: str) -> tuple[int, str]:
        form = aiohttp.FormData({"classifier_ids": identity})
        form.add_field("images_file", IMAGE, filename="a.png")
        status, body = await self.send("POST", replica, "/v3/classify", data=form)
        return status, body["error_id"]

    async def settle(self, identity: str) -> None:
        """Set the status of a served first revision, as the operator does."""
        name = build_object_name(identity)
        spec = parse_classifier(await self.cluster.get(CLASSIFIERS, self.namespace, name)).spec
        revision = spec_revision(spec)
        status = {"classifierID": identity, "servedRevision": revision, "settledRevision": revision}
        await self.cluster.apply(
            CLASSIFIERS, self.namespace, name, {"status": status}, field_manager="ocelli-operator", subresource="status"
        )


@dataclass(frozen=True, kw_only=True)
class Mismatches:
    """Wrong answers of the second replica after each answer of the first one; empty if all are correct."""

    created: str
    ready: str
    deleted: str


async def live(replicas: Replicas) -> Mismatches:
    """A classifier's life, in which the second replica is asked each time the first one has answered."""
    identity = await replicas.create()
    # The second replica sees it as it is.
    found, details = await replicas.send("GET", replicas.second, f"/v3/classifiers/{identity}")
    created = "" if (found, details.get("status")) == (200, "training") else f"{identity}: {found} {details}"
    await replicas.settle(identity)
    _, shown = await replicas.send("GET", replicas.first, f"/v3/classifiers/{identity}")
    # No server runs here: 503 says that the second one knows the revision and asked for its servers.
    refused = await replicas.classify(replicas.second, identity)
    _, details = await replicas.send("GET", replicas.second, f"/v3/classifiers/{identity}")
    known = (shown["status"], refused, details["status"]) == ("ready", (503, "unavailable"), "ready")
    ready = "" if known else f"{identity}: the first says {shown}, the second {refused} {details}"
    await replicas.send("DELETE", replicas.first, f"/v3/classifiers/{identity}")
    status, _ = await replicas.send("GET", replicas.second, f"/v3/classifiers/{identity}")
    refused = await replicas.classify(replicas.second, identity)
    deleted = "" if (status, refused) == (404, (404, "not_found")) else f"{identity}: {status} {refused}"
    return Mismatches(created=created, ready=ready, deleted=deleted)


def live_many(kubeconfig: Path, namespace: str, gateways: Sequence[GatewayProcess]) -> list[Mismatches]:
    """`TIMES` lives, `AT_ONCE` at a time."""

    async def run() -> list[Mismatches]:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            await ClusterClient.connect({"KUBECONFIG": str(kubeconfig)}) as cluster,
            aiohttp.ClientSession(connector=connector, headers={"Authorization": basic(USER, PASSWORD)}) as session,
        ):
            replicas = Replicas(
                first=gateways[0].address,
                second=gateways[1].address,
                namespace=namespace,
                session=session,
                cluster=cluster,
            )
            slots = asyncio.Semaphore(AT_ONCE)

            async def once() -> Mismatches:
                async with slots:
                    return await live(replicas)

            return await asyncio.gather(*(once() for _ in range(TIMES)))

    return asyncio.run(run())


def test_other_replica_knows_each_answer(
    local_cluster: SyncClusterAccess, namespace: str, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateways = [start_gateway(namespace), start_gateway(namespace)]
    for gateway in gateways:
        gateway.wait_until_healthy()
    lives = live_many(local_cluster.kubeconfig, namespace, gateways)
    assert len(lives) == TIMES
    assert [life.created for life in lives if life.created] == []
    assert [life.ready for life in lives if life.ready] == []
    assert [life.deleted for life in lives if life.deleted] == []
