"""An operator that cannot create NetworkPolicies: how it is reported."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import QuotaError
from ocelli_cluster.resources import JOBS, NETWORK_POLICIES, Resource
from tests.unit.operator.running_operator import Stage

PEERS = '[{"podSelector": {}}]'
METRIC = "ocelli_network_policies_blocked"


def exceed_quota(stage: Stage) -> None:
    """A quota of the namespace allows no NetworkPolicies."""
    create = stage.cluster.create

    async def refuse(resource: Resource, namespace: str, body: Manifest, **options: Any) -> Manifest:
        if resource == NETWORK_POLICIES:
            raise QuotaError(403, "exceeded quota: team, limited: count/networkpolicies.networking.k8s.io=0", "Forbidden")
        return await create(resource, namespace, body, **options)

    stage.cluster.create = refuse  # type: ignore[method-assign]


@pytest.mark.slow
def test_after_an_upgrade_a_blocked_network_policy_is_reported_and_counted(tmp_path: Path) -> None:
    async def scenario() -> tuple[dict[str, Any], float | None]:
        stage = Stage(tmp_path)
        stage.add("dogs")
        async with stage.operator():
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "dogs"))
            await stage.serve("dogs")
        exceed_quota(stage)
        async with stage.operator(OCELLI_INFERENCE_PEERS=PEERS) as operation:
            await stage.wait_for("it is reported", lambda: "NetworkPolicy" in stage.condition("dogs", "Ready")["message"])
            return stage.condition("dogs", "Ready"), operation.metrics.registry.get_sample_value(METRIC)

    ready, blocked = asyncio.run(scenario())
    assert (ready["status"], ready["reason"]) == ("True", "Served")
    assert "NetworkPolicy clf-dogs waits for quota: exceeded quota: team" in ready["message"]
    assert blocked == 1.0
