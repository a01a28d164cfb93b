"""While the object store is down, only what needs it waits and reports it; nothing else is delayed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ocelli_api.conditions import ConditionType
from ocelli_api.outcome import OutcomeReason
from ocelli_api.pods import Component
from ocelli_cluster.resources import CLASSIFIERS, DEPLOYMENTS, EVENTS, JOBS
from ocelli_operator import training_store
from ocelli_operator.operation import Operation
from tests.unit.operator.factories import (
    World,
    make_job,
    make_outcome,
    make_pod,
    settled_world,
)
from tests.unit.operator.running_operator import NAMESPACE, Stage

DOWN = "the object store http://ocelli-store.ocelli-system is not reachable"
TRAININGS = 40


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_store, "READ_DEADLINE_SECONDS", 0.5, raising=False)
    monkeypatch.setattr(training_store, "WRITE_DEADLINE_SECONDS", 0.5, raising=False)


Scenario = Callable[[Stage], Awaitable[None]]


def run(folder: Path, scenario: Scenario) -> None:
    async def staged() -> None:
        await scenario(Stage(folder))

    asyncio.run(staged())


@pytest.mark.slow
def test_a_served_revision_is_scaled_after_a_restart_during_an_outage_with_many_trainings(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.add("served")
        async with stage.operator():
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "served"))
            await stage.serve("served")
            for number in range(TRAININGS):
                stage.add(f"training-{number:02d}")
            await stage.wait_for("every Job", lambda: len(stage.cluster.all(JOBS, NAMESPACE)) == TRAININGS + 1, 60)
            await stage.wait_until_quiet()
        for job in stage.cluster.all(JOBS, NAMESPACE):
            # They ended and were deleted with their Pods: only the store has their outcome.
            stage.cluster.remove(JOBS, NAMESPACE, job["metadata"]["name"])
        stage.store.bring_down("hangs")
        stage.change("served", serving={"replicas": 3})
        async with stage.operator():
            started_at = time.monotonic()
            await stage.wait_for(
                "three replicas", lambda: (stage.find(DEPLOYMENTS, "served") or {"spec": {}})["spec"].get("replicas") == 3, 20
            )
            assert time.monotonic() - started_at < 10

    run(tmp_path, scenario)


def trained_message(stage: Stage, name: str) -> str:
    return str(stage.condition(name, "Trained").get("message", ""))


@pytest.mark.slow
def test_an_outage_costs_each_waiting_classifier_one_write_and_is_not_reported_afterwards(tmp_path: Path) -> None:
    names = ("one", "two", "three")

    async def scenario(stage: Stage) -> None:
        stage.store.bring_down("refuses")
        async with stage.operator():
            for name in names:
                stage.add(name)
            await stage.wait_for("all wait", lambda: all(DOWN in trained_message(stage, name) for name in names))
            tries = stage.store.requests
            await stage.wait_for("another request to the store", lambda: stage.store.requests >= tries + 2)
            # One when it was first reconciled, one when the store did not answer.
            assert Counter(stage.cluster.writes) == {f"status {name}": 2 for name in names}
            assert stage.condition("one", "Stalled") == {}
            assert stage.condition("one", "Ready")["reason"] == "Training"
            stage.store.bring_up()
            await stage.wait_for("every Job", lambda: all(stage.find(JOBS, name) for name in names), 20)
            await stage.wait_for("no longer reported", lambda: not any(DOWN in trained_message(stage, name) for name in names))
        assert not [event for event in stage.cluster.all(EVENTS, NAMESPACE) if event["reason"] == "ReconcileFailed"]

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_job_with_a_pending_pod_needs_no_request_to_the_store(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.operator():
            stage.add("pending")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "pending"))
            stage.add_trainer("pending")
            await stage.wait_until_quiet()
        async with stage.operator() as operation:
            await stage.wait_for("a reconcile", lambda: count_unchanged(operation) > 0)
            stage.store.requests = 0
            before = count_unchanged(operation)
            stage.cluster.edit(CLASSIFIERS, "pending", annotations={"somebody": "looks"})
            await stage.wait_for("another reconcile", lambda: count_unchanged(operation) > before)
            assert stage.store.requests == 0

    def count_unchanged(operation: Operation) -> float:
        return operation.metrics.registry.get_sample_value("ocelli_reconciles_total", {"result": "unchanged"}) or 0.0

    run(tmp_path, scenario)


@pytest.mark.slow
def test_the_outcome_of_a_trainer_is_reported_without_the_store(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.operator():
            stage.add("dogs")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "dogs"))
            stage.store.bring_down("refuses")
            status = stage.status("dogs")
            outcome = {
                "reason": "InvalidData",
                "message": 'Classifier team-a/dogs: class "cat" has 3 examples; add at least 7',
                "revision": status["trainingRevision"],
                "attempt": status["attempt"],
            }
            terminated = {"exitCode": 64, "message": json.dumps(outcome)}
            stage.add_trainer(
                "dogs", phase="Failed", containerStatuses=[{"name": "trainer", "state": {"terminated": terminated}}]
            )
            stage.end_job("dogs", "Failed")
            await stage.wait_for("Stalled", lambda: stage.condition("dogs", "Stalled").get("reason") == "InvalidData")
            assert "add at least 7" in stage.condition("dogs", "Stalled")["message"]

    run(tmp_path, scenario)


@pytest.mark.slow
def test_hanging_writes_do_not_delay_reads(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.operator():
            stage.add("before")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "before"))
            stage.store.writes = "hangs"
            for number in range(40):
                stage.add(f"new-{number}")
            names = [f"new-{number}" for number in range(40)]
            await stage.wait_for("all report it", lambda: all(DOWN in trained_message(stage, name) for name in names))
            stage.store.writes = ""
            await stage.learn("before")
            await stage.wait_for("its Deployment", lambda: stage.find(DEPLOYMENTS, "before"), 3)

    run(tmp_path, scenario)


@pytest.mark.slow
def test_uploads_that_cannot_be_dropped_yet_are_dropped_later(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.operator():
            stage.add("secret", dataRetention="DropAfterTraining")
            await stage.wait_for("its Job", lambda: stage.find(JOBS, "secret"))
            location = f"tenants/{NAMESPACE}/uploads/{stage.status('secret')['classifierID']}"
            await stage.store.put(f"{location}/{'a' * 64}.zip", b"zip")
            await stage.learn("secret", then=lambda: setattr(stage.store, "writes", "refuses"))
            deployment = await stage.wait_for("its Deployment", lambda: stage.find(DEPLOYMENTS, "secret"))
            stage.run_servers(deployment["metadata"]["name"])
            await stage.wait_for("Ready", lambda: stage.condition("secret", "Ready").get("status") == "True")
            assert await stage.store.list_objects(location)
            stage.store.bring_up()
            for _ in range(500):
                if not await stage.store.list_objects(location):
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("the uploads still exist")

    run(tmp_path, scenario)


# --- plans while the store does not answer


def make_world(**spec: object) -> World:
    world = World(**spec)
    world.step()
    return world


def test_a_running_training_does_not_report_an_outage() -> None:
    world = make_world()
    classifier = world.observed.classifier
    trainer = make_pod(Component.TRAINING, world.revision)
    world.see(jobs=(make_job(classifier),), pods=(trainer,))
    world.step()
    before = world.status
    world.see(store_error=DOWN)
    assert world.plan().status == before


def test_a_job_that_succeeded_during_an_outage_has_not_failed() -> None:
    world = make_world()
    classifier = world.observed.classifier
    outcome = make_outcome(classifier, OutcomeReason.SUCCEEDED, "learned")
    message = json.dumps(outcome.to_json())
    trainer = make_pod(Component.TRAINING, world.revision, phase="Succeeded", exit_code=0, termination_message=message)
    world.see(jobs=(make_job(classifier, finished=True, succeeded=True),), pods=(trainer,), store_error=DOWN)
    plan = world.plan()
    assert plan.status.condition(ConditionType.STALLED) is None
    trained = plan.status.condition(ConditionType.TRAINED)
    assert trained is not None
    assert DOWN in trained.message
    assert plan.status.training_revision == world.revision


def test_a_job_that_failed_without_a_message_during_an_outage_is_judged_afterwards() -> None:
    world = make_world()
    classifier = world.observed.classifier
    world.see(jobs=(make_job(classifier, finished=True, failure_reason="BackoffLimitExceeded"),), store_error=DOWN)
    assert world.plan().status.condition(ConditionType.STALLED) is None
    world.see(store_error="")
    assert world.plan().status.condition(ConditionType.STALLED) is not None


def test_a_pin_that_cannot_be_looked_up_is_not_reported_as_missing() -> None:
    world = settled_world()
    world.edit(pinnedRevision="0123456789")
    world.see(store_error=DOWN)
    plan = world.plan()
    assert plan.status.condition(ConditionType.STALLED) is None
    ready = plan.status.condition(ConditionType.READY)
    assert ready is not None
    assert DOWN in ready.message
    assert plan.status.served_revision == world.status.served_revision


def test_a_missing_revision_is_still_reported_during_an_outage() -> None:
    world = settled_world()
    world.edit(pinnedRevision="0123456789")
    world.step()
    before = world.status
    world.see(store_error=DOWN)
    assert world.plan().status == before


def test_a_superseded_job_is_deleted_during_an_outage() -> None:
    world = make_world()
    job = make_job(world.observed.classifier)
    world.see(jobs=(job,))
    world.step()
    world.edit(model={"seed": 1})
    world.see(store_error=DOWN)
    assert [action.identity for action in world.plan().actions if hasattr(action, "identity")] == [job.identity]


def test_a_rollout_past_its_deadline_restarts_during_an_outage() -> None:
    world = make_world()
    world.learn()
    world.step(available=False)
    late = tuple(replace(deployment, deadline_exceeded=True) for deployment in world.observed.deployments)
    world.see(deployments=late, store_error=DOWN)
    plan = world.plan()
    assert plan.status.condition(ConditionType.STALLED) is None
    assert [action.identity for action in plan.actions if hasattr(action, "identity")] == [late[0].identity]
    world.see(store_error="")
    assert world.plan().status.condition(ConditionType.STALLED) is not None


def test_the_attempt_is_the_same_before_and_after_an_outage() -> None:
    world = World()
    world.see(store_error=DOWN)
    world.step()
    assert world.status.training_revision is None
    world.see(store_error="")
    world.step()
    assert (world.status.training_revision, world.status.attempt) == (world.revision, 1)
