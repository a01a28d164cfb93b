"""A whole operator with a limit on running trainings: how many Jobs there are, and what is written while others wait."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ocelli_api.names import build_classifier_id
from ocelli_cluster.resources import CLASSIFIERS, JOBS
from tests.unit.operator.running_operator import NAMESPACE, Stage

WAITING = 100
NAMES = [f"c{number:03}" for number in range(WAITING)]


def list_trained(stage: Stage) -> list[str]:
    """The Classifiers that have a Job."""
    return [job["metadata"]["name"].partition("-")[0] for job in stage.cluster.all(JOBS, NAMESPACE)]


def test_a_training_that_ends_writes_to_the_next_one_only(tmp_path: Path) -> None:
    async def go() -> None:
        stage = Stage(tmp_path)
        for name in NAMES:
            stage.add(name)
        async with stage.operator(OCELLI_TRAININGS_LIMIT="2"):
            await stage.wait_for(
                "all know what they wait for",
                lambda: (
                    sum("OCELLI_TRAININGS_LIMIT" in stage.condition(name, "Trained").get("message", "") for name in NAMES)
                    == WAITING - 2
                ),
            )
            await stage.wait_until_quiet()
            first, second = list_trained(stage)
            # Adopted, then queued: no write for each place in the queue.
            waiting = set(NAMES) - {first, second}
            assert all(stage.cluster.writes.count(f"status {name}") == 2 for name in waiting)
            stage.cluster.writes.clear()
            await stage.learn(first)
            await stage.wait_for("a third Job", lambda: len(list_trained(stage)) == 3)
            await stage.wait_until_quiet()
            (third,) = set(list_trained(stage)) - {first, second}
            written = {write.split()[1] for write in stage.cluster.writes if write.startswith("status ")}
            assert written == {first, third}

    asyncio.run(go())


def make_queued_status(name: str, minute: int) -> dict[str, Any]:
    """Of a Classifier whose training has waited since that minute."""
    since = f"2026-05-04T12:{minute:02}:00.000Z"
    conditions = [
        {"type": "Trained", "status": "False", "reason": "Queued", "lastTransitionTime": since},
        {"type": "Reconciling", "status": "True", "reason": "Training", "lastTransitionTime": since},
    ]
    return {"classifierID": build_classifier_id(name, 1), "conditions": conditions}


def test_a_new_leader_starts_the_training_first_that_has_waited_longest(tmp_path: Path) -> None:
    async def go() -> None:
        stage = Stage(tmp_path)
        # The last of the list has waited longest.
        for position, name in enumerate(NAMES[:20]):
            stage.add(name)
            stage.cluster.edit(CLASSIFIERS, name, status=make_queued_status(name, 59 - position))
        async with stage.operator(OCELLI_TRAININGS_LIMIT="1"):
            await stage.wait_for("a Job", lambda: list_trained(stage))
            await stage.wait_until_quiet()
            assert list_trained(stage) == [NAMES[19]]

    asyncio.run(go())


def test_trainings_for_kueue_are_all_queued_there(tmp_path: Path) -> None:
    async def go() -> None:
        stage = Stage(tmp_path)
        for name in NAMES[:5]:
            stage.add(name, training={"queueName": "gpus"})
        async with stage.operator(OCELLI_TRAININGS_LIMIT="1"):
            await stage.wait_for("their Jobs", lambda: len(list_trained(stage)) == 5)
            assert all(job["spec"]["suspend"] for job in stage.cluster.all(JOBS, NAMESPACE))

    asyncio.run(go())
