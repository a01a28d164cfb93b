"""An operator that lost its Lease writes nothing any more, whatever it was about to do."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from ocelli_cluster.lease import LeaseTimes
from ocelli_cluster.resources import DEPLOYMENTS, JOBS, ObjectKey

from tests.unit.operator.running_operator import NAMESPACE, Stage


def is_leading(stage: Stage, operation: object) -> bool:
    return operation.metrics.registry.get_sample_value("ocelli_leader") == 1.0  # type: ignore[attr-defined]


def test_passes_under_way_end_before_another_operator_may_lead(tmp_path: Path) -> None:
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
            await stage.wait_for("it leads no more", lambda: not is_leading(stage, operation))
            # Those that were under way were cancelled by then, so that none of them goes on.
            await asyncio.sleep(0)
            assert time.monotonic() - lost_at < LeaseTimes().duration_seconds
            stage.cluster.writes.clear()
            answer.set()
            await asyncio.sleep(0.2)
            assert stage.cluster.writes == []
            assert stage.find(DEPLOYMENTS, "dogs") is None

    asyncio.run(scenario())


def test_an_operator_that_stood_still_while_another_took_over_writes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        async with stage.operator() as operation:
            stage.add("dogs")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "dogs"))
            await stage.wait_until_quiet()
            stage.cluster.writes.clear()
            stage.add("cats")
            stage.cluster.leases.take_over(stage.config)
            # As a paused machine does it: nothing of the process runs meanwhile.
            time.sleep(LeaseTimes().give_up_seconds)  # noqa: ASYNC251
            await stage.wait_for("it leads no more", lambda: not is_leading(stage, operation))
            assert stage.cluster.writes == []

    asyncio.run(scenario())


def test_the_lease_gets_its_turn_while_thousands_of_settled_classifiers_are_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def find_it_settled(_key: ObjectKey) -> None:
            """Waits for nothing: what status knows needs neither API server nor store."""

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
