"""Which Classifier may start next if the limit is reached."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ocelli_api.pods import Component
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.observed import ChildKind, StartKind, TrainingLimit
from ocelli_operator.starts import COUNTED_FOR, PENDING_COUNTED_FOR, StartLimits, Starts, Workloads
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


def make_limited(running: int = 0, running_in_namespace: int = 0, clock: Clock | None = None) -> Starts:
    """Limits on running trainings alone."""
    limits = StartLimits(
        trainings=100,
        rollouts=20,
        upgrade_counted_for=UPGRADE_COUNTED_FOR,
        running=running,
        running_in_namespace=running_in_namespace,
    )
    return Starts(limits, clock or Clock())


def run(starts: Starts, key: ObjectKey) -> bool:
    """The same as `train`, and a trainer that may start runs at once."""
    begins = train(starts, key)
    if begins:
        starts.observe(key, make_training("Running"))
    return begins


def test_trainings_run_up_to_the_limit_of_the_installation() -> None:
    starts = make_limited(2)
    a, b, c = keys("one/a", "two/b", "three/c")
    assert [run(starts, key) for key in (a, b, c)] == [True, True, False]
    assert starts.count_running() == 2
    starts.observe(a, NOTHING)
    assert starts.find_next() == [c]


def test_trainings_run_up_to_the_limit_of_each_namespace() -> None:
    starts = make_limited(running_in_namespace=1)
    a, b, c = keys("one/a", "one/b", "two/c")
    assert [run(starts, key) for key in (a, b, c)] == [True, False, True]
    assert starts.find_next() == []
    starts.observe(a, NOTHING)
    assert starts.find_next() == [b]


def test_a_namespace_at_its_limit_does_not_keep_others_waiting() -> None:
    starts = make_limited(3, running_in_namespace=1)
    for key in keys("many/1", "many/2", "many/3", "many/4"):
        run(starts, key)
    (other,) = keys("few/1")
    assert run(starts, other)


def test_without_limits_any_number_of_trainings_runs() -> None:
    starts = make_limited()
    assert all(run(starts, key) for key in keys(*(f"ns/{number}" for number in range(50))))


def test_a_free_place_goes_to_the_namespace_with_the_fewest_running_trainings() -> None:
    starts = make_limited(4)
    running = keys("many/1", "many/2", "many/3", "many/4")
    for key in running:
        run(starts, key)
    for key in keys("many/5", "many/6", "few/1", "few/2", "few/3"):
        run(starts, key)
    order = []
    for ended in running:
        starts.observe(ended, NOTHING)
        (key,) = starts.find_next()
        assert run(starts, key)
        order.append(str(key))
    # Two each: then both namespaces have the same share.
    assert order == ["few/1", "few/2", "many/5", "many/6"]


def test_two_hundred_waiting_trainings_all_run_in_their_order() -> None:
    starts = make_limited(1)
    (first,) = keys("ns/first")
    run(starts, first)
    names = [f"ns/{number:03}" for number in range(200)]
    for key in keys(*names):
        run(starts, key)
    assert starts.count_waiting(StartKind.TRAINING) == 200
    starts.observe(first, NOTHING)
    assert finish_all(starts, 200) == names


def test_a_new_leader_finds_the_order_of_its_predecessor() -> None:
    starts = make_limited(1)
    (first,) = keys("ns/first")
    starts.observe(first, make_training("Running"))
    for name, minutes in (("ns/late", 1), ("ns/early", 9), ("ns/between", 5)):
        (key,) = keys(name)
        starts.note(key, begins=(), waits={StartKind.TRAINING}, since=NOW - timedelta(minutes=minutes))
    starts.observe(first, NOTHING)
    assert finish_all(starts, 3) == ["ns/early", "ns/between", "ns/late"]


def test_a_training_that_no_node_takes_gives_its_place_back_after_ten_minutes() -> None:
    clock = Clock()
    starts = make_limited(1, clock=clock)
    a, b = keys("ns/a", "ns/b")
    starts.observe(a, make_training("Pending"))
    assert not train(starts, b)
    clock.now = NOW + PENDING_COUNTED_FOR + timedelta(seconds=1)
    assert starts.find_next() == [b]


def test_a_training_that_runs_for_hours_keeps_its_place() -> None:
    clock = Clock()
    starts = make_limited(1, clock=clock)
    a, b = keys("ns/a", "ns/b")
    assert run(starts, a)
    clock.now = NOW + timedelta(hours=9)
    assert not train(starts, b)


def test_a_suspended_training_holds_no_place() -> None:
    starts = make_limited(1)
    a, b = keys("ns/a", "ns/b")
    training = make_training()
    starts.observe(a, replace(training, jobs=tuple(replace(job, suspended=True) for job in training.jobs)))
    assert (starts.count_running(), starts.count_in_progress(StartKind.TRAINING)) == (0, 0)
    assert train(starts, b)


def test_a_suspended_training_counts_until_its_trainer_has_ended() -> None:
    starts = make_limited(1)
    (a,) = keys("ns/a")
    training = make_training("Running")
    starts.observe(a, replace(training, jobs=tuple(replace(job, suspended=True) for job in training.jobs)))
    assert starts.count_running() == 1


def test_a_training_that_is_replaced_keeps_its_place() -> None:
    starts = make_limited(1)
    a, b = keys("ns/a", "ns/b")
    run(starts, a)
    run(starts, b)
    assert StartKind.TRAINING in starts.find_allowed(a)


def test_the_limit_that_a_training_waits_for_is_named() -> None:
    starts = make_limited(2, running_in_namespace=1)
    one, two = keys("one/a", "two/b")
    run(starts, one)
    assert starts.find_training_limit("one") is TrainingLimit.NAMESPACE
    run(starts, two)
    assert starts.find_training_limit("three") is TrainingLimit.INSTALLATION


def test_without_limits_on_running_trainings_a_training_waits_for_a_start() -> None:
    assert make(1).find_training_limit("one") is TrainingLimit.STARTING
