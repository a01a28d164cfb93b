"""Status documents and Events."""

from __future__ import annotations

from dataclasses import replace

from ocelli_api.classifier_status import HistoryEntry, parse_status
from ocelli_api.conditions import ConditionType
from ocelli_api.documents import build_document
from ocelli_operator.status import extend_history, find_occurrences
from tests.unit.operator.factories import World, make_artifact, make_history, settled_world

NEW = HistoryEntry(revision="ffffffffff", trained_at="2026-01-02T00:00:00.000Z")


def test_a_status_survives_its_document() -> None:
    world = settled_world()
    world.edit(model={"seed": 1})
    world.step()
    assert parse_status(build_document(world.status)) == world.status


def world_of_earlier_release() -> World:
    """A Classifier whose served revision was trained before accuracies had intervals."""
    world = World()
    world.step()
    world.see(artifact=replace(make_artifact(world.observed.classifier), accuracy_interval=None, judged_images=None))
    world.settle()
    return world


def training_message(world: World) -> str:
    condition = world.status.condition(ConditionType.TRAINED)
    assert condition is not None
    return condition.message.removeprefix(f"revision {world.revision} ")


def test_the_document_has_the_figures_as_the_resource_does() -> None:
    document = build_document(settled_world().status)
    figures = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "0.967"}, "judgedImages": 100}
    assert figures.items() <= document.items()
    assert figures.items() <= document["history"][0].items()


def test_the_accuracy_is_reported_with_its_interval() -> None:
    assert training_message(settled_world()) == (
        "was learned with an accuracy of 0.934, balanced over the classes (95 % interval 0.871 to 0.967, 100 images judged)"
    )


def test_linear_heads_that_fine_tuning_did_not_improve_have_a_reason_of_their_own() -> None:
    world = World()
    world.step()
    world.see(artifact=replace(make_artifact(world.observed.classifier), not_improved=True))
    world.settle()
    trained, ready = (world.status.condition(name) for name in (ConditionType.TRAINED, ConditionType.READY))
    assert trained is not None
    assert (str(trained.status), trained.reason) == ("True", "NotImproved")
    assert training_message(world).startswith("consists of linear heads with an accuracy of 0.934")
    assert ready is not None
    assert ready.reason == "Served"
    assert build_document(world.status)["history"][0]["notImproved"] is True


def test_a_status_of_an_earlier_release_stays_as_it_is() -> None:
    world = world_of_earlier_release()
    assert training_message(world) == "was learned with an accuracy of 0.934 on held-out examples"
    document = build_document(world.status)
    assert not {"accuracyInterval", "judgedImages"} & (document.keys() | document["history"][0].keys())
    world.see(classifier=replace(world.observed.classifier, status=parse_status(document)))
    plan = world.plan()
    assert (plan.actions, plan.status) == ((), world.status)


def test_only_revisions_trained_after_the_upgrade_have_an_interval() -> None:
    world = world_of_earlier_release()
    earlier = world.revision
    world.edit(model={"seed": 1})
    world.step()
    world.learn()
    world.settle()
    assert world.status.judged_images == 100
    assert [entry.judged_images for entry in world.status.history] == [100, None]
    world.edit(model={"seed": 1}, pinnedRevision=earlier)
    world.see(
        artifact=replace(make_artifact(world.observed.classifier), revision=earlier, accuracy_interval=None, judged_images=None)
    )
    world.settle()
    assert world.status.served_revision == earlier
    assert (world.status.accuracy_interval, world.status.judged_images) == (None, None)


def test_history_has_no_revision_twice() -> None:
    assert extend_history((NEW,), NEW, frozenset()) == (NEW,)


def test_a_retrained_artifact_replaces_the_lost_one_in_history() -> None:
    lost, again = replace(NEW, artifact_digest="1" * 64, accuracy="0.900"), replace(NEW, artifact_digest="2" * 64)
    assert extend_history((lost,), again, frozenset()) == (again,)


def test_the_oldest_unneeded_revision_is_removed_from_history() -> None:
    history = make_history(10)
    revisions = [entry.revision for entry in extend_history(history, NEW, frozenset({history[-1].revision}))]
    assert revisions == [NEW.revision, *(entry.revision for entry in history[:8]), history[-1].revision]


def test_each_transition_of_a_first_training_has_its_event_once() -> None:
    world = World()
    reported: list[str] = []
    for number in range(8):
        before = world.status
        world.step()
        reported += [occurrence.reason for occurrence in find_occurrences(before, world.status)]
        if number == 1:
            world.learn()
    assert reported == ["ArtifactStored", "Switched", "Served"]


def test_a_stall_is_reported_once() -> None:
    world = settled_world()
    world.edit(pinnedRevision="0123456789")
    before = world.status
    world.step()
    stalled = world.status
    assert [occurrence.type for occurrence in find_occurrences(before, stalled)] == ["Warning"]
    assert find_occurrences(stalled, replace(stalled, observed_generation=9)) == ()
