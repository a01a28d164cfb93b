"""Status documents and Events."""

from __future__ import annotations

from dataclasses import replace

from ocelli_api.classifier import HistoryEntry, parse_status
from ocelli_operator.status import build_status_document, extend_history, find_occurrences
from tests.unit.operator.factories import World, make_history, settled_world

NEW = HistoryEntry(revision="ffffffffff", trained_at="2026-01-02T00:00:00.000Z")


def test_a_status_survives_its_document() -> None:
    world = settled_world()
    world.edit(model={"seed": 1})
    world.step()
    assert parse_status(build_status_document(world.status)) == world.status


def test_history_has_no_revision_twice() -> None:
    assert extend_history((NEW,), NEW, frozenset()) == (NEW,)


def test_the_oldest_revision_goes_that_nobody_needs() -> None:
    history = make_history(10)
    revisions = [entry.revision for entry in extend_history(history, NEW, frozenset({history[-1].revision}))]
    assert revisions == [NEW.revision, *(entry.revision for entry in history[:8]), history[-1].revision]


def test_each_transition_of_a_first_training_has_its_event_once() -> None:
    world = World()
    told: list[str] = []
    for number in range(8):
        before = world.status
        world.step()
        told += [occurrence.reason for occurrence in find_occurrences(before, world.status)]
        if number == 1:
            world.learn()
    assert told == ["ArtifactStored", "Switched", "Served"]


def test_the_same_stall_is_told_once() -> None:
    world = settled_world()
    world.edit(pinnedRevision="0123456789")
    before = world.status
    world.step()
    stalled = world.status
    assert [occurrence.type for occurrence in find_occurrences(before, stalled)] == ["Warning"]
    assert find_occurrences(stalled, replace(stalled, observed_generation=9)) == ()
