"""Problems that an administrator has to solve. Each is reported by an Event when it appears, and not again while it lasts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ocelli_cluster.resources import ObjectReference
from ocelli_operator.cluster_view import ClusterView
from ocelli_operator.events import EventRecorder
from ocelli_operator.installation import Installation
from ocelli_operator.status import Occurrence

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong for as long as it is found."""

    name: tuple[str, ...]
    """Identifies the problem, independently of its current message."""
    occurrence: Occurrence
    solved: Occurrence | None = None
    """Reported when the problem is no longer found."""
    subject: ObjectReference | None = None
    """The object that the Events are about; None: the installation."""


def find_problems(view: ClusterView, sweep_message: str) -> Iterator[Problem]:
    """The current problems; `sweep_message` says why the sweep is stopped."""
    for item in view.unreadable():
        subject = item.reference
        if not subject.key.namespace:
            # Events need a namespace, and nodes have none.
            continue
        note = (
            f"{subject.resource.kind} {subject.key}: this release of the operator cannot parse it: {item.problem}; it leaves "
            "the object and its stored data unchanged; upgrade the operator, or remove the field or value that it does not know"
        )
        yield Problem(
            name=("Unreadable", subject.resource.plural, str(subject.key), item.problem),
            occurrence=Occurrence(type="Warning", reason="Unreadable", action="Reconcile", note=note),
            subject=subject,
        )
    for namespace, plural in view.forbidden_namespaces().items():
        note = (
            f"namespace {namespace}: the operator has no right to read {plural}, so it does nothing in this namespace; other "
            "namespaces are not affected; if the namespace was deleted, remove it from OCELLI_NAMESPACES (in the chart: "
            "namespaces), else restore the operator's Role with helm upgrade"
        )
        solved = f"namespace {namespace}: the operator can read it again"
        yield Problem(
            name=("NamespaceForbidden", namespace),
            occurrence=Occurrence(type="Warning", reason="NamespaceForbidden", action="Watch", note=note),
            solved=Occurrence(type="Normal", reason="NamespaceReadable", action="Watch", note=solved),
        )
    if view.is_crd_missing:
        note = (
            "the CustomResourceDefinition classifiers.ocelli.dev was deleted, and all Classifiers with it; their stored data "
            "is kept; install the CRD again (Helm: charts/ocelli-crds), then restore the Classifiers from a backup"
        )
        yield Problem(
            name=("CRDMissing",), occurrence=Occurrence(type="Warning", reason="CRDMissing", action="Watch", note=note)
        )
    if sweep_message:
        yield Problem(
            name=("SweepStopped", sweep_message),
            occurrence=Occurrence(type="Warning", reason="SweepStopped", action="Sweep", note=sweep_message),
        )


class ProblemReporter:
    """Reports problems that are new or solved."""

    def __init__(self, installation: Installation, events: EventRecorder) -> None:
        self._installation = installation
        self._events = events
        self._known: Mapping[tuple[str, ...], Problem] = {}

    async def report(self, problems: Iterable[Problem]) -> None:
        """Send an Event for each problem that has appeared or been solved since the last call."""
        before, self._known = self._known, {problem.name: problem for problem in problems}
        for name, problem in self._known.items():
            if name not in before:
                await self._send(problem, problem.occurrence)
        for name, problem in before.items():
            if name not in self._known and problem.solved is not None:
                await self._send(problem, problem.solved)

    async def _send(self, problem: Problem, occurrence: Occurrence) -> None:
        logger.warning("event: %s", occurrence.note, extra={"reason": occurrence.reason})
        if problem.subject is None:
            await self._installation.report(occurrence)
        else:
            await self._events.record_about(problem.subject, occurrence)
