"""One stage and one gateway for all tests of a module; each test creates its own classifiers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, connect


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage(folder=tmp_path_factory.mktemp("stage"))
    yield built
    built.close()


@pytest.fixture(scope="module")
def gateway(stage: Stage) -> GatewayInstance:
    return stage.start_gateway()


@pytest.fixture(scope="module")
def client(gateway: GatewayInstance, stage: Stage) -> Iterator[V3Client]:
    connected = connect(gateway, stage)
    yield connected
    connected.http.close()


@pytest.fixture(scope="module")
def management(client: V3Client) -> ManagementClient:
    return ManagementClient(v3=client)
