"""Whose turn it is, where more wants to begin than may."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ocelli_cluster.resources import ObjectKey

from ocelli_api.pods import Component
from ocelli_operator.observed import ChildKind, StartKind
from ocelli_operator.starts import COUNTED_FOR, Family, StartLimits, Starts
from tests.unit.operator.factories import NOW, as_deployment, find_applied, make_classifier, make_job, make_pod, settled_world

NOTHING = Family(served_revision=None, jobs=(), pods=(), deployments=())
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


def family_in_training(*phases: str) -> Family:
    job = make_job(CLASSIFIER, created_at=CREATED_AT)
    pods = tuple(make_pod(Component.TRAINING, job.identity.revision, phase=phase) for phase in phases)
    return Family(served_revision=None, jobs=(job,), pods=pods, deployments=())


def family_rolling_out(*, served: bool = False, **fields: object) -> Family:
    world = settled_world()
    world.see(deployments=())
    (manifest,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
    values = {"complete": False, "created_at": CREATED_AT, **fields}
    return Family(
        served_revision=world.revision if served else None,
        jobs=(),
        pods=(),
        deployments=(as_deployment(manifest, **values),),
    )


def train(starts: Starts, key: ObjectKey) -> bool:
    """A pass over a Classifier that wants to train; whether it could."""
    begins = StartKind.TRAINING in starts.find_allowed(key)
    kinds = {StartKind.TRAINING}
    starts.note(key, begins=kinds if begins else (), waits=() if begins else kinds)
    starts.release(key, family_in_training() if begins else NOTHING)
    return begins


def test_so_many_trainings_start_as_may() -> None:
    starts = make(2)
    assert [train(starts, key) for key in keys("ns/a", "ns/b", "ns/c")] == [True, True, False]
    assert starts.count_waiting(StartKind.TRAINING) == 1


def test_a_pass_that_is_about_to_start_something_counts_already() -> None:
    starts = make(1)
    a, b = keys("ns/a", "ns/b")
    starts.note(a, begins={StartKind.TRAINING}, waits=())
    assert StartKind.TRAINING not in starts.find_allowed(b)
    starts.release(a, NOTHING)
    assert StartKind.TRAINING in starts.find_allowed(b)


def test_a_training_whose_trainer_runs_makes_room() -> None:
    starts = make(1)
    a, b = keys("ns/a", "ns/b")
    train(starts, a)
    train(starts, b)
    assert starts.find_next() == []
    starts.observe(a, family_in_training("Pending"))
    assert starts.find_next() == []
    starts.observe(a, family_in_training("Running"))
    assert starts.find_next() == [b]
    assert train(starts, b)


def test_a_training_that_cannot_start_holds_nobody_up_for_more_than_a_minute() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    train(starts, a)
    train(starts, b)
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    assert starts.find_next() == [b]


def test_a_successor_counts_what_its_predecessor_started() -> None:
    starts = make(1)
    (a, b) = keys("ns/a", "ns/b")
    starts.observe(a, family_in_training("Pending"))
    assert not train(starts, b)


def test_a_successor_does_not_count_what_was_stuck_before_it_came() -> None:
    clock = Clock()
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    starts.observe(a, family_in_training("Pending"))
    assert train(starts, b)


def test_those_that_wait_come_in_their_order() -> None:
    starts = make(1)
    a, b, c, d = keys("ns/a", "ns/b", "ns/c", "ns/d")
    for key in (a, b, c):
        train(starts, key)
    train(starts, b)
    starts.observe(a, NOTHING)
    assert [train(starts, key) for key in (d, c, b)] == [False, False, True]


def finish_all(starts: Starts, count: int) -> list[str]:
    """The order in which those that wait get their turn, where each ends before the next."""
    order = []
    for _ in range(count):
        (key,) = starts.find_next()
        assert train(starts, key)
        starts.observe(key, NOTHING)
        order.append(str(key))
    return order


def test_a_namespace_with_many_does_not_keep_another_waiting() -> None:
    starts = make(1)
    (first,) = keys("ns/first")
    train(starts, first)
    for key in keys("many/1", "many/2", "many/3", "few/1"):
        train(starts, key)
    starts.observe(first, NOTHING)
    assert finish_all(starts, 4) == ["many/1", "few/1", "many/2", "many/3"]


def test_whoever_went_away_waits_no_more() -> None:
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
    starts.release(key, family_rolling_out(served=served) if begins else NOTHING)
    return begins


def test_upgrades_take_what_the_rollouts_of_users_leave() -> None:
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
    starts.observe(a, family_rolling_out(served=True, deadline_exceeded=True))
    assert starts.find_next() == [b]


def test_an_upgrade_that_neither_ends_nor_fails_stops_the_others_for_a_while_only() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    for key in (a, b):
        roll_out(starts, key, StartKind.UPGRADE)
    clock.now = NOW + UPGRADE_COUNTED_FOR + timedelta(seconds=1)
    starts.observe(a, family_rolling_out(served=True))
    assert starts.find_next() == [b]


def test_a_new_revision_that_does_not_get_ready_holds_nobody_up_for_more_than_a_minute() -> None:
    clock = Clock()
    starts = make(1, clock)
    a, b = keys("ns/a", "ns/b")
    for key in (a, b):
        roll_out(starts, key, StartKind.ROLLOUT)
    clock.now = NOW + COUNTED_FOR + timedelta(seconds=1)
    assert starts.find_next() == [b]


def test_what_is_rolled_out_may_be_changed_once_more() -> None:
    starts = make(1)
    (a,) = keys("ns/a")
    roll_out(starts, a, StartKind.UPGRADE)
    assert roll_out(starts, a, StartKind.UPGRADE)


def test_a_finished_deployment_is_not_under_way() -> None:
    starts = make(1)
    (a,) = keys("ns/a")
    family = family_rolling_out(served=True)
    starts.observe(a, replace(family, deployments=tuple(replace(item, complete=True) for item in family.deployments)))
    assert starts.count_under_way(StartKind.UPGRADE) == 0
