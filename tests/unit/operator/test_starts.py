"""Which Classifier may start next if the limit is reached."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ocelli_api.pods import Component
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.observed import ChildKind, StartKind
from ocelli_operator.starts import COUNTED_FOR, StartLimits, Starts, Workloads
from tests.unit.operator.factories import NOW, as_deployment, find_applied, make_classifier, make_job, make_pod, settled_world

NOTHING = Workloads(served_revision=None, jobs=(), pods=(), deployments=())
CREATED_AT = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
UPGRADE_COUNTED_FOR = timedelta(minutes=11)
CLASSIFIER = make_classifier()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def make(limit: int = 1, clock: Clock | None = None) -> Starts:
    limits = StartLimits(trainings=limit, rollouts=limit, upgrade_counted_for=UPGRADE_COUNTED_FOR)
    return Starts(limits, clock or Clock())


def keys(*names: str) -> list[ObjectKey]:
    return [ObjectKey(*name.split("/")) for name in names]


def make_training(*phases: str) -> Workloads:
    job = make_job(CLASSIFIER, created_at=CREATED_AT)
    pods = tuple(make_pod(Component.TRAINING, job.identity.revision, phase=phase) for phase in phases)
    return Workloads(served_revision=None, jobs=(job,), pods=pods, deployments=())


def make_rollout(*, served: bool = False, **fields: object) -> Workloads:
    world = settled_world()
    world.see(deployments=())
    (manifest,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
    values = {"complete": False, "created_at": CREATED_AT, **fields}
    return Workloads(
        served_revision=world.revision if served else None,
        jobs=(),
        pods=(),
        deployments=(as_deployment(manifest, **values),),
    )


def train(starts: Starts, key: ObjectKey) -> bool:
    """Reconcile a Classifier that needs a training. Returns whether it could start."""
    begins = StartKind.TRAINING in starts.find_allowed(key)
    kinds = {StartKind.TRAINING}
    starts.note(key, begins=kinds if begins else (), waits=() if begins else kinds)
    starts.release(key, make_training() if begins else NOTHING)
    return begins


def test_trainings_start_up_to_the_limit() -> None:
    starts = make(2)
    assert [train(starts, key) for key in keys("ns/a", "ns/b", "ns/c")] == [True, True, False]
    assert starts.count_waiting(StartKind.TRAINING) == 1


def test_a_reconcile_that_is_about_to_start_something_counts_already() -> None:
    starts = make(1)
    a, b = keys("ns/a", "ns/b")
    starts.note(a, begins={StartKind.TRAINING}, waits=())
    assert StartKind.TRAINING not in starts.find_allowed(b)
    starts.release(a, NOTHING)
    assert StartKind.TRAINING in starts.find_allowed(b)


def test_a_training_whose_trainer_runs_no_longer_counts() -> None:
    starts = make(1)
    a, b = keys("ns/a", "ns/b")
    train(starts, a)
    train(starts, b)
    assert starts.find_next() == []
    starts.observe(a, make_training("Pending"))
    assert starts.find_next() == []
    starts.observe(a, make_training("Running"))
    assert starts.find_next() == [b]
    assert train(starts, b)


def test_a_training_that_cannot_start_delays_others_for_at_most_a_minute() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    train(starts, a)
    train(starts, b)
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    assert starts.find_next() == [b]


def test_a_new_leader_counts_what_the_previous_one_started() -> None:
    starts = make(1)
    (a, b) = keys("ns/a", "ns/b")
    starts.observe(a, make_training("Pending"))
    assert not train(starts, b)


def test_a_new_leader_does_not_count_what_was_stuck_before() -> None:
    clock = Clock()
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    starts.observe(a, make_training("Pending"))
    assert train(starts, b)


def test_waiting_classifiers_start_in_order_of_arrival() -> None:
    starts = make(1)
    a, b, c, d = keys("ns/a", "ns/b", "ns/c", "ns/d")
    for key in (a, b, c):
        train(starts, key)
    train(starts, b)
    starts.observe(a, NOTHING)
    assert [train(starts, key) for key in (d, c, b)] == [False, False, True]


def finish_all(starts: Starts, count: int) -> list[str]:
    """The order in which waiting Classifiers start, if each ends before the next."""
    order = []
    for _ in range(count):
        (key,) = starts.find_next()
        assert train(starts, key)
        starts.observe(key, NOTHING)
        order.append(str(key))
    return order


def test_a_namespace_with_many_classifiers_does_not_delay_another() -> None:
    starts = make(1)
    (first,) = keys("ns/first")
    train(starts, first)
    for key in keys("many/1", "many/2", "many/3", "few/1"):
        train(starts, key)
    starts.observe(first, NOTHING)
    assert finish_all(starts, 4) == ["many/1", "few/1", "many/2", "many/3"]


def test_a_deleted_classifier_no_longer_waits() -> None:
    starts = make(1)
    a, b, c = keys("ns/a", "ns/b", "ns/c")
    for key in (a, b, c):
        train(starts, key)
    starts.forget(b)
    starts.observe(a, NOTHING)
    assert starts.find_next() == [c]


def roll_out(starts: Starts, key: ObjectKey, kind: StartKind) -> bool:
    begins = kind in starts.find_allowed(key)
    starts.note(key, begins={kind} if begins else (), waits=() if begins else {kind})
    served = kind is StartKind.UPGRADE
    starts.release(key, make_rollout(served=served) if begins else NOTHING)
    return begins


def test_upgrades_get_the_slots_that_rollouts_of_users_leave() -> None:
    starts = make(2)
    a, b, c, d = keys("ns/a", "ns/b", "ns/c", "ns/d")
    assert roll_out(starts, a, StartKind.ROLLOUT)
    assert roll_out(starts, b, StartKind.UPGRADE)
    assert not roll_out(starts, c, StartKind.UPGRADE)
    assert roll_out(starts, d, StartKind.ROLLOUT)


def test_an_upgrade_waits_while_a_rollout_of_a_user_waits() -> None:
    starts = make(1)
    a, b, c = keys("ns/a", "ns/b", "ns/c")
    for key in (a, b):
        roll_out(starts, key, StartKind.ROLLOUT)
    roll_out(starts, c, StartKind.UPGRADE)
    starts.observe(a, NOTHING)
    assert starts.find_next() == [b]


def test_an_upgrade_that_does_not_end_stops_the_others_until_its_deadline() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    for key in (a, b):
        roll_out(starts, key, StartKind.UPGRADE)
    clock.now = NOW + 5 * COUNTED_FOR
    assert starts.find_next() == []
    starts.observe(a, make_rollout(served=True, deadline_exceeded=True))
    assert starts.find_next() == [b]


def test_an_upgrade_that_neither_ends_nor_fails_stops_the_others_for_a_limited_time() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    for key in (a, b):
        roll_out(starts, key, StartKind.UPGRADE)
    clock.now = NOW + UPGRADE_COUNTED_FOR + timedelta(seconds=1)
    starts.observe(a, make_rollout(served=True))
    assert starts.find_next() == [b]


def test_a_new_revision_that_does_not_become_ready_delays_others_for_at_most_a_minute() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    for key in (a, b):
        roll_out(starts, key, StartKind.ROLLOUT)
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    assert starts.find_next() == [b]


def test_a_deployment_in_rollout_may_be_changed_again() -> None:
    starts = make(1)
    (a,) = keys("ns/a")
    roll_out(starts, a, StartKind.UPGRADE)
    assert roll_out(starts, a, StartKind.UPGRADE)


def test_a_complete_deployment_is_not_in_progress() -> None:
    starts = make(1)
    (a,) = keys("ns/a")
    workloads = make_rollout(served=True)
    complete = tuple(replace(item, complete=True) for item in workloads.deployments)
    starts.observe(a, replace(workloads, deployments=complete))
    assert starts.count_in_progress(StartKind.UPGRADE) == 0
