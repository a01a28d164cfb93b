"""One tenant's namespace never makes the gateway unhealthy for others, and the store never makes it not ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocelli_cluster.client import ApiError, NotFoundError, QuotaError
from tests.gateway_harness.stage import GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import assert_error, connect

pytestmark = pytest.mark.slow

MISSING = NotFoundError(404, 'namespaces "team-b" not found', "NotFound")
FULL = QuotaError(403, "exceeded quota: tenants, used: 5, limited: 5", "Forbidden")
FORBIDDEN = ApiError(403, "classifiers is forbidden", "Forbidden")


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(folder=tmp_path / "stage")
    yield stage
    stage.close()


def health(instance: GatewayInstance) -> httpx.Response:
    return httpx.get(f"{instance.internal_address}/healthz")


def readiness(instance: GatewayInstance) -> httpx.Response:
    return httpx.get(f"{instance.internal_address}/readyz")


def test_a_gateway_that_was_healthy_once_stays_ready_without_a_working_store(own_stage: Stage) -> None:
    instance = own_stage.start_gateway()
    assert readiness(instance).status_code == 200
    own_stage.upload_folder.rmdir()
    wait_for(lambda: health(instance).status_code == 503, "not healthy without its folder", 15)
    assert readiness(instance).status_code == 200


def test_log_names_the_reason_if_a_ready_gateway_cannot_store(own_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    own_stage.start_gateway()
    own_stage.upload_folder.rmdir()
    wait_for(lambda: any(record.message == "health changed" for record in caplog.records), "nothing is logged", 15)


def test_a_gateway_that_was_never_healthy_is_not_ready(own_stage: Stage) -> None:
    own_stage.upload_folder.rmdir()
    assert readiness(own_stage.start_gateway(healthy=False)).status_code == 503


def test_gateway_without_credential_sets_is_not_ready(own_stage: Stage) -> None:
    instance = own_stage.start_gateway()
    for file in own_stage.credentials_folder.iterdir():
        file.unlink()
    wait_for(lambda: readiness(instance).status_code == 503, "not ready without credentials", 15)
    assert "credential" in readiness(instance).json()["error"]


def test_namespace_that_does_not_exist_leaves_the_gateway_healthy_for_other_tenants(own_stage: Stage) -> None:
    own_stage.cluster.create_errors["team-b"] = MISSING
    assert health(own_stage.start_gateway()).status_code == 200


def test_log_names_the_namespace_that_does_not_exist(own_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    own_stage.cluster.create_errors["team-b"] = MISSING
    own_stage.start_gateway()
    said = [(record.namespace, record.problem) for record in caplog.records if "tenant" in record.message]  # type: ignore[attr-defined]
    assert said == [("team-b", "Namespace team-b of a credential set does not exist; create it")]


def test_forbidden_namespace_leaves_the_gateway_healthy_for_other_tenants(own_stage: Stage) -> None:
    own_stage.cluster.forbidden_namespace = "team-b"
    own_stage.cluster.create_errors["team-b"] = FORBIDDEN
    assert health(own_stage.start_gateway()).status_code == 200


def test_used_up_quotas_leave_the_gateway_healthy(own_stage: Stage) -> None:
    own_stage.cluster.create_errors.update({"team-a": FULL, "team-b": FULL})
    assert health(own_stage.start_gateway()).status_code == 200


def test_gateway_that_cannot_create_for_any_tenant_reports_why(own_stage: Stage) -> None:
    instance = own_stage.start_gateway()
    own_stage.cluster.create_errors.update({"team-c": NotFoundError(404, 'namespaces "team-c" not found', "NotFound")})
    own_stage.write_credentials("carl.json", user="carl", password="x", namespace="team-c", owner="owner-c")
    for file in ("anna.json", "bert.json"):
        (own_stage.credentials_folder / file).unlink()
    wait_for(lambda: health(instance).status_code == 503, "not healthy without any namespace", 15)
    assert "Namespace team-c of a credential set does not exist; create it" in health(instance).json()["error"]


def test_create_in_a_missing_namespace_names_the_remedy(own_stage: Stage) -> None:
    client = connect(own_stage.start_gateway(), own_stage)
    own_stage.cluster.create_errors["team-a"] = NotFoundError(404, 'namespaces "team-a" not found', "NotFound")
    assert_error(client.create(), 503, "unavailable", 'The namespace "team-a" of these credentials does not exist; ask')
