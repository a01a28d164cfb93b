"""Each problem is reported by one Event when it appears, and a solved one if that is worth an Event."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ocelli_cluster.resource_cache import UnreadableObject
from ocelli_cluster.resources import CLASSIFIERS, NODES, ObjectKey, ObjectReference
from ocelli_operator.problems import ProblemReporter, find_problems
from ocelli_operator.status import Occurrence

pytestmark = pytest.mark.anyio

DOGS = ObjectReference(resource=CLASSIFIERS, key=ObjectKey("team-a", "dogs"), uid="uid-1", resource_version="5")


class Reporter:
    """A reporter over a view that a test changes, and the Events that it sends."""

    def __init__(self) -> None:
        self.unreadable: list[UnreadableObject] = []
        self.forbidden: dict[str, str] = {}
        self.crd_missing = False
        self.sweep_message = ""
        self.events: list[tuple[ObjectReference | None, Occurrence]] = []
        stand_in: Any = self
        self._reporter = ProblemReporter(stand_in, stand_in)

    async def report(self, occurrence: Occurrence) -> None:
        self.events.append((None, occurrence))

    async def record_about(self, subject: ObjectReference, occurrence: Occurrence) -> None:
        self.events.append((subject, occurrence))

    async def look(self) -> list[str]:
        """The reasons of the Events that are sent now."""
        sent = len(self.events)
        view: Any = SimpleNamespace(
            unreadable=lambda: self.unreadable,
            forbidden_namespaces=lambda: self.forbidden,
            is_crd_missing=self.crd_missing,
        )
        await self._reporter.report(find_problems(view, self.sweep_message))
        return [occurrence.reason for _, occurrence in self.events[sent:]]


async def test_a_problem_is_reported_once() -> None:
    reporter = Reporter()
    reporter.crd_missing = True
    assert [await reporter.look() for _ in range(3)] == [["CRDMissing"], [], []]


async def test_a_problem_that_returns_is_reported_again() -> None:
    reporter = Reporter()
    reasons = []
    for reporter.crd_missing in (True, False, True):
        reasons.append(await reporter.look())
    assert reasons == [["CRDMissing"], [], ["CRDMissing"]]


async def test_a_forbidden_namespace_is_reported_once_and_when_it_is_readable_again() -> None:
    reporter = Reporter()
    reasons = []
    for reporter.forbidden in ({"team-b": "classifiers"}, {"team-b": "pods"}, {}):
        reasons.append(await reporter.look())
    assert reasons == [["NamespaceForbidden"], [], ["NamespaceReadable"]]
    assert "no right to read classifiers" in reporter.events[0][1].note


async def test_an_unreadable_object_is_reported_on_the_object_and_again_with_another_problem() -> None:
    reporter = Reporter()
    reasons = []
    for problem in ('unknown value "Archive"', 'unknown value "Archive"', 'field "name" is missing'):
        reporter.unreadable = [UnreadableObject(reference=DOGS, problem=problem)]
        reasons.append(await reporter.look())
    assert reasons == [["Unreadable"], [], ["Unreadable"]]
    assert [subject for subject, _ in reporter.events] == [DOGS, DOGS]
    assert reporter.events[0][1].note.startswith(
        "Classifier team-a/dogs: this release of the operator cannot parse it: unknown"
    )


async def test_an_unreadable_node_is_not_reported_because_events_need_a_namespace() -> None:
    node = ObjectReference(resource=NODES, key=ObjectKey("", "node-1"), uid="uid-2", resource_version="5")
    reporter = Reporter()
    reporter.unreadable = [UnreadableObject(reference=node, problem="a field has an unexpected type")]
    assert await reporter.look() == []


async def test_a_stopped_sweep_is_reported_for_each_message() -> None:
    reporter = Reporter()
    reasons = []
    for reporter.sweep_message in ("team-a is not swept", "team-a is not swept", "team-b is not swept", ""):
        reasons.append(await reporter.look())
    assert reasons == [["SweepStopped"], [], ["SweepStopped"], []]
