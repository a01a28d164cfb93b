"""Gateways as processes of their own, under the ServiceAccount and with the rights of the shipped manifests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocelli_gateway.credential_sets import build_credential_set
from ocelli_local import SyncClusterAccess
from tests.integration.gateway.gateway_process import PASSWORD, USER, GatewayProcess
from tests.shipped_rights import NAMESPACE_FILE, load_rights

CHECKOUT = Path(__file__).resolve().parents[3]
SYSTEM_NAMESPACE = "ocelli-system"


@pytest.fixture(scope="session")
def gateway_kubeconfig(local_cluster: SyncClusterAccess) -> Path:
    local_cluster.apply(CHECKOUT / "crds" / "classifier.yaml")
    local_cluster.apply(NAMESPACE_FILE)
    local_cluster.apply(load_rights("gateway"))
    return local_cluster.service_account_kubeconfig(SYSTEM_NAMESPACE, "ocelli-gateway")


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(gateway_kubeconfig: Path, tmp_path: Path) -> Iterator[StartGateway]:
    """Start a gateway for a namespace; upper-case keyword arguments are settings."""
    with starting_gateways(gateway_kubeconfig, tmp_path) as start:
        yield start


@contextlib.contextmanager
def starting_gateways(kubeconfig: Path, folder: Path) -> Iterator[StartGateway]:
    """What starts gateways with a store in the folder; all of them are stopped in the end."""
    started: list[GatewayProcess] = []

    def start(namespace: str, **settings: str) -> GatewayProcess:
        credentials = folder / f"credentials-{namespace}"
        credentials.mkdir(exist_ok=True)
        built = build_credential_set(user=USER, password=PASSWORD, namespace=namespace, owner="owner")
        (credentials / "set.json").write_text(json.dumps(built.to_json()))
        gateway = GatewayProcess(
            kubeconfig=kubeconfig,
            store=folder / "store",
            credentials=credentials,
            log=folder / f"gateway-{len(started)}.log",
            settings=settings,
        )
        started.append(gateway)
        gateway.start()
        return gateway

    try:
        yield start
    finally:
        for gateway in started:
            gateway.stop()
