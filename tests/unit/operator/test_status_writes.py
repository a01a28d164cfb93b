"""A status that cannot be written is reported and counted."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ApiError, ConflictError, InvalidError, NotFoundError
from ocelli_cluster.resources import EVENTS, Resource
from ocelli_operator import operation
from tests.unit.operator.running_operator import NAMESPACE, Stage

REFUSALS = {
    "invalid": InvalidError(400, "error decoding patch", "BadRequest"),
    "no such resource": NotFoundError(404, "the server could not find the requested resource", "NotFound"),
    "broken": ApiError(500, "etcdserver: request is too large", "InternalError"),
    "lone surrogate": InvalidError(422, "a\ud83d is invalid", "Invalid"),
}


def refuse_status(stage: Stage, error: Exception) -> None:
    """Every status is refused, and everything else accepted."""
    apply = stage.cluster.apply

    async def refuse(resource: Resource, namespace: str, name: str, body: Manifest, **options: Any) -> Manifest:
        if options.get("subresource") == "status":
            raise error
        return await apply(resource, namespace, name, body, **options)

    stage.cluster.apply = refuse  # type: ignore[method-assign]


async def wait_for_event(stage: Stage) -> Manifest:
    async with asyncio.timeout(5):
        while True:
            events = [event for event in stage.cluster.all(EVENTS, NAMESPACE) if event["reason"] == "ReconcileFailed"]
            if events:
                return events[0]
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_status_is_reported_and_counted(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Captured output goes from test worker to test runner, which rejects half of a surrogate pair.
    caplog.set_level(logging.CRITICAL)

    async def scenario() -> tuple[Manifest, float, float]:
        stage = Stage(tmp_path)
        refuse_status(stage, REFUSALS[name])
        async with stage.operator() as running:
            stage.add("dogs")
            event = await wait_for_event(stage)
            read = running.metrics.registry.get_sample_value
            return event, read("ocelli_status_refused_total") or 0, read("ocelli_reconciles_total", {"result": "error"}) or 0

    event, refused, errors = asyncio.run(scenario())
    assert event["type"] == "Warning"
    assert event["regarding"]["name"] == "dogs"
    assert REFUSALS[name].message.replace("\ud83d", "?") in event["note"]
    assert refused >= 1
    assert errors >= 1


@pytest.mark.slow
def test_an_unexpected_error_is_reported_without_its_text(tmp_path: Path) -> None:
    async def scenario() -> str:
        stage = Stage(tmp_path)
        refuse_status(stage, RuntimeError("dictionary changed size during iteration"))
        async with stage.operator():
            stage.add("dogs")
            return str((await wait_for_event(stage))["note"])

    assert asyncio.run(scenario()).endswith("the operator retries: an unexpected error; the operator's log has the details")


@pytest.mark.slow
def test_a_permanent_conflict_is_reported_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "CONFLICT_DELAY_SECONDS", 0.001)

    async def scenario() -> float:
        stage = Stage(tmp_path)
        refuse_status(stage, ConflictError(409, "metadata.uid: Invalid value", "Conflict"))
        async with stage.operator() as running:
            stage.add("dogs")
            await wait_for_event(stage)
            return running.metrics.registry.get_sample_value("ocelli_reconciles_total", {"result": "error"}) or 0

    assert asyncio.run(scenario()) >= 1
