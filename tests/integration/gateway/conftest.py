"""Gateways as processes of their own, under the ServiceAccount and with the rights of the shipped manifests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocelli_gateway.credentials import build_credential_set
from ocelli_local import SyncClusterAccess
from tests.integration.gateway.gateway_process import PASSWORD, USER, GatewayProcess

CHECKOUT = Path(__file__).resolve().parents[3]
SYSTEM_NAMESPACE = "ocelli-system"


@pytest.fixture(scope="session")
def gateway_kubeconfig(local_cluster: SyncClusterAccess) -> Path:
    local_cluster.apply(CHECKOUT / "crds" / "classifier.yaml")
    for name in ("namespace.yaml", "gateway-rbac.yaml"):
        local_cluster.apply(CHECKOUT / "deploy" / name)
    return local_cluster.service_account_kubeconfig(SYSTEM_NAMESPACE, "ocelli-gateway")


@pytest.fixture
def start_gateway(gateway_kubeconfig: Path, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a gateway for a namespace; upper-case keyword arguments are settings."""
    started: list[GatewayProcess] = []

    def start(namespace: str, **settings: str) -> GatewayProcess:
        credentials = tmp_path / f"credentials-{namespace}"
        credentials.mkdir(exist_ok=True)
        built = build_credential_set(user=USER, password=PASSWORD, namespace=namespace, owner="owner")
        (credentials / "set.json").write_text(json.dumps(built.to_json()))
        gateway = GatewayProcess(
            kubeconfig=gateway_kubeconfig,
            store=tmp_path / "store",
            credentials=credentials,
            log=tmp_path / f"gateway-{len(started)}.log",
            settings=settings,
        )
        started.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in started:
        gateway.stop()
