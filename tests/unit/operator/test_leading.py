"""An operator that lost its Lease writes nothing more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ocelli_cluster.lease import LeaseTimes
from ocelli_cluster.resources import DEPLOYMENTS, JOBS, ObjectKey
from tests.unit.operator.running_operator import NAMESPACE, Stage


def is_leading(stage: Stage, operation: object) -> bool:
    return operation.metrics.registry.get_sample_value("ocelli_leader") == 1.0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_running_reconciles_end_before_another_operator_may_lead(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        async with stage.operator() as operation:
            stage.add("dogs")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "dogs"))
            await stage.wait_until_quiet()
            answer = stage.cluster.hold_writes = asyncio.Event()
            await stage.learn("dogs")
            stage.cluster.leases.reachable = False
            lost_at = time.monotonic()
            await stage.wait_for("it no longer leads", lambda: not is_leading(stage, operation))
            # Running reconciles have been cancelled, so none of them continues.
            await asyncio.sleep(0)
            assert time.monotonic() - lost_at < LeaseTimes().duration_seconds
            stage.cluster.writes.clear()
            answer.set()
            await asyncio.sleep(0.2)
            assert stage.cluster.writes == []
            assert stage.find(DEPLOYMENTS, "dogs") is None

    asyncio.run(scenario())


@pytest.mark.slow
def test_an_operator_that_was_paused_while_another_took_over_writes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        async with stage.operator() as operation:
            stage.add("dogs")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "dogs"))
            await stage.wait_until_quiet()
            stage.cluster.writes.clear()
            stage.add("cats")
            stage.cluster.leases.take_over(stage.config)
            # Blocks the whole process, as on a paused machine.
            time.sleep(LeaseTimes().give_up_seconds)  # noqa: ASYNC251
            await stage.wait_for("it no longer leads", lambda: not is_leading(stage, operation))
            assert stage.cluster.writes == []

    asyncio.run(scenario())


@pytest.mark.slow
def test_the_lease_is_renewed_while_thousands_of_settled_classifiers_are_reconciled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def find_it_settled(_key: ObjectKey) -> None:
            """Never awaits: a settled Classifier needs neither the API server nor the store."""

        stage = Stage(tmp_path)
        async with stage.operator() as operation:
            await stage.wait_for("it leads", lambda: is_leading(stage, operation))
            await stage.wait_until_quiet()
            operation._reconciler.reconcile = find_it_settled  # type: ignore[method-assign]
            for number in range(2000):
                operation.wake(ObjectKey(NAMESPACE, f"dogs-{number}"))
            turns = 0
            while len(operation._queue):
                turns += 1
                await asyncio.sleep(0)
            assert turns > 100

    asyncio.run(scenario())
