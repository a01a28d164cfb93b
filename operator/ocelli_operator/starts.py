"""Limits how many trainings and rollouts start, and how many trainings run, at the same time, and orders those that wait.

Both are counted from observed objects, so that a new leader counts as its predecessor did. Only the order of those that wait is
in memory; a new leader rebuilds it when it reconciles, from the times since when they wait. This module must not know how
anything is started.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ocelli_api.classifier import Classifier
from ocelli_api.conditions import ConditionType
from ocelli_api.pods import Component
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.observed import ObservedDeployment, ObservedJob, ObservedPod, StartKind, TrainingLimit

COUNTED_FOR = timedelta(seconds=60)
"""A training, or the Deployment of a new revision, counts for at most this long: Pods that are unschedulable or exceed a quota
must not delay others."""
PENDING_COUNTED_FOR = timedelta(minutes=10)
"""A training whose trainer does not run yet counts as running for at most this long after its Job or its last Pod was created:
longer than a node pool needs for another node, but a training that no node can take must not keep others waiting forever."""

_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class StartLimits:
    """How many starts may be in progress at the same time."""

    trainings: int
    """Training Jobs whose trainer has not started yet."""
    rollouts: int
    """Deployments with Pods to create or replace. Upgrades get the slots that users' rollouts do not use."""
    upgrade_counted_for: timedelta
    """How long an upgrade counts that neither ends nor passes its deadline, for example of a paused Deployment."""
    running: int = 0
    """Trainings that run or are about to; 0: no limit."""
    running_in_namespace: int = 0
    """The same in each namespace."""


@dataclass(frozen=True, kw_only=True)
class Workloads:
    """The Jobs, Pods and Deployments of one Classifier."""

    served_revision: str | None
    jobs: tuple[ObservedJob, ...]
    pods: tuple[ObservedPod, ...]
    deployments: tuple[ObservedDeployment, ...]


class Starts:
    """Decides which Classifier may start what. The namespaces of those that wait take turns; one with fewer running trainings
    comes first."""

    def __init__(self, limits: StartLimits, clock: Callable[[], datetime]) -> None:
        self._limits = limits
        self._clock = clock
        self._in_progress: dict[StartKind, dict[ObjectKey, datetime]] = {kind: {} for kind in StartKind}
        """With the time until which each counts."""
        self._running: dict[ObjectKey, datetime] = {}
        """Classifiers with a training that runs or is about to, with the time until which it counts."""
        self._claims: dict[StartKind, set[ObjectKey]] = {kind: set() for kind in StartKind}
        """Classifiers whose reconcile is about to start something that cannot be observed yet."""
        self._waiting: dict[StartKind, dict[str, dict[ObjectKey, datetime]]] = {kind: {} for kind in StartKind}
        """By namespace, with the time since when each waits, in the order of these times. The namespace that had the last turn
        is last."""

    def observe(self, key: ObjectKey, workloads: Workloads) -> None:
        """Record what is in progress for a Classifier."""
        now = self._clock()
        if (running_until := _find_running_until(workloads)) is None:
            self._running.pop(key, None)
        else:
            self._running[key] = running_until
        for kind in StartKind:
            counted, started = self._in_progress[kind], _find_started(kind, workloads)
            if not started:
                counted.pop(key, None)
            elif kind is StartKind.UPGRADE:
                # From the time it is first seen: the Deployment may be years old.
                counted.setdefault(key, now + self._limits.upgrade_counted_for)
            else:
                counted[key] = max(datetime.fromisoformat(created_at) for created_at in started) + COUNTED_FOR

    def find_allowed(self, key: ObjectKey) -> frozenset[StartKind]:
        """What a Classifier may start now."""
        return frozenset(kind for kind in StartKind if self._is_allowed(kind, key))

    def find_training_limit(self, namespace: str) -> TrainingLimit:
        """The limit that a training of the namespace waits for, if it may not start."""
        free, running = self._count_free_places(), self._count_running()
        if 0 < self._limits.running_in_namespace <= running[namespace]:
            return TrainingLimit.NAMESPACE
        starting = self._limits.trainings - self.count_in_progress(StartKind.TRAINING)
        return TrainingLimit.INSTALLATION if free is not None and free < starting else TrainingLimit.STARTING

    def note(
        self, key: ObjectKey, *, begins: Iterable[StartKind], waits: Iterable[StartKind], since: datetime | None = None
    ) -> None:
        """Record what a reconcile starts and what has to wait. Call `release` when the reconcile has ended.

        `since` is since when the Classifier waits, if another leader may have seen it wait before.
        """
        begins, waits = frozenset(begins), frozenset(waits)
        for kind in StartKind:
            if kind in begins:
                self._claims[kind].add(key)
            if kind in waits:
                self._wait(kind, key, since or self._clock())
            elif self._stop_waiting(kind, key) and kind in begins and key.namespace in self._waiting[kind]:
                self._waiting[kind][key.namespace] = self._waiting[kind].pop(key.namespace)

    def release(self, key: ObjectKey, workloads: Workloads) -> None:
        """The reconcile has ended: from now on its starts are observed."""
        self.observe(key, workloads)
        for kind in StartKind:
            self._claims[kind].discard(key)

    def forget(self, key: ObjectKey) -> None:
        """A Classifier was deleted or could not be reconciled: it loses its place."""
        for kind in StartKind:
            self._stop_waiting(kind, key)

    def find_next(self) -> list[ObjectKey]:
        """The waiting Classifiers that may start now."""
        return [key for kind in StartKind for key in self._find_first(kind)]

    def clear(self) -> None:
        """Another operator leads: forget what waits."""
        for kind in StartKind:
            self._waiting[kind].clear()
            self._claims[kind].clear()

    def count_waiting(self, kind: StartKind) -> int:
        return sum(len(keys) for keys in list(self._waiting[kind].values()))

    def count_running(self) -> int:
        """Trainings that run or are about to."""
        return self._count_running().total()

    def count_in_progress(self, kind: StartKind) -> int:
        now = self._clock()
        counted = self._in_progress[kind]
        return sum(until > now and key not in self._claims[kind] for key, until in list(counted.items())) + len(
            self._claims[kind]
        )

    def _is_allowed(self, kind: StartKind, key: ObjectKey) -> bool:
        until = self._in_progress[kind].get(key)
        if key in self._claims[kind] or (until is not None and until > self._clock()):
            return True
        first, namespace = self._find_first(kind), key.namespace
        if key in self._waiting[kind].get(namespace, {}):
            return key in first
        if kind is StartKind.TRAINING and self._is_running(key):
            # Its Job is replaced, and keeps its place.
            return self.count_waiting(kind) < self._count_free_starts(kind)
        if len(first) >= self._count_free(kind):
            return False
        limit = self._limit_in_namespace(kind)
        return limit is None or self._count_running()[namespace] + sum(item.namespace == namespace for item in first) < limit

    def _count_free(self, kind: StartKind) -> int:
        free, places = self._count_free_starts(kind), self._count_free_places()
        return free if places is None or kind is not StartKind.TRAINING else min(free, places)

    def _count_free_places(self) -> int | None:
        """How many more trainings can run; None: any number."""
        return max(self._limits.running - self.count_running(), 0) if self._limits.running else None

    def _count_free_starts(self, kind: StartKind) -> int:
        if kind is StartKind.TRAINING:
            return max(self._limits.trainings - self.count_in_progress(kind), 0)
        free = self._limits.rollouts - self.count_in_progress(StartKind.ROLLOUT)
        if kind is StartKind.UPGRADE:
            free -= self.count_in_progress(kind) + self.count_waiting(StartKind.ROLLOUT)
        return max(free, 0)

    def _limit_in_namespace(self, kind: StartKind) -> int | None:
        return (self._limits.running_in_namespace or None) if kind is StartKind.TRAINING else None

    def _is_running(self, key: ObjectKey) -> bool:
        until = self._running.get(key)
        return until is not None and until > self._clock()

    def _count_running(self) -> Counter[str]:
        """Trainings that run or are about to, by namespace."""
        now, claims = self._clock(), self._claims[StartKind.TRAINING]
        counted = {key for key, until in list(self._running.items()) if until > now} | claims
        return Counter(key.namespace for key in counted)

    def _find_first(self, kind: StartKind) -> list[ObjectKey]:
        """Those that wait and may start now: again and again the first of the namespace with the fewest running trainings, of
        several the one whose turn is next."""
        free, limit = self._count_free(kind), self._limit_in_namespace(kind)
        if not free or not self._waiting[kind]:
            return []
        running = self._count_running() if kind is StartKind.TRAINING else Counter[str]()
        turns = [(running[namespace], turn, iter(keys)) for turn, (namespace, keys) in enumerate(self._waiting[kind].items())]
        heapq.heapify(turns)
        found: list[ObjectKey] = []
        while turns and len(found) < free:
            count, turn, keys = heapq.heappop(turns)
            key = None if limit is not None and count >= limit else next(keys, None)
            if key is not None:
                found.append(key)
                heapq.heappush(turns, (count + 1, turn, keys))
        return found

    def _wait(self, kind: StartKind, key: ObjectKey, since: datetime) -> None:
        keys = self._waiting[kind].setdefault(key.namespace, {})
        if key in keys:
            return
        is_last = not keys or since >= next(reversed(keys.values()))
        keys[key] = since
        if not is_last:
            self._waiting[kind][key.namespace] = dict(sorted(keys.items(), key=lambda item: item[1]))

    def _stop_waiting(self, kind: StartKind, key: ObjectKey) -> bool:
        """Whether it was waiting."""
        keys = self._waiting[kind].get(key.namespace, {})
        if key not in keys:
            return False
        del keys[key]
        if not keys:
            del self._waiting[kind][key.namespace]
        return True


def find_waiting_since(classifier: Classifier) -> datetime | None:
    """Since when the operator has been working on a Classifier: its place among those that wait, which a new leader finds in
    status. None if it starts only now."""
    reconciling = classifier.status.condition(ConditionType.RECONCILING)
    return None if reconciling is None else datetime.fromisoformat(reconciling.last_transition_time)


def _find_started(kind: StartKind, workloads: Workloads) -> list[str]:
    """The creation times of what is in progress."""
    if kind is StartKind.TRAINING:
        return [
            job.created_at
            for job in workloads.jobs
            if not (job.finished or job.suspended or job.identity.deleting or _has_started(job, workloads.pods))
        ]
    return [
        deployment.created_at
        for deployment in workloads.deployments
        if (deployment.identity.revision == workloads.served_revision) == (kind is StartKind.UPGRADE)
        and not deployment.identity.deleting
        and not deployment.deadline_exceeded
        and not (deployment.up_to_date and deployment.complete)
    ]


def _find_running_until(workloads: Workloads) -> datetime | None:
    """Until when a Classifier's training counts as running; None: it has none that could run."""
    found: datetime | None = None
    for job in workloads.jobs:
        pods = [pod for pod in workloads.pods if _is_trainer_of(job, pod)]
        if any(pod.phase == "Running" and not pod.held_open for pod in pods):
            # Also of a Job that is suspended or being deleted: its trainer still computes.
            return _FOREVER
        if not (job.finished or job.suspended or job.identity.deleting):
            created = max(datetime.fromisoformat(time) for time in (job.created_at, *(pod.created_at for pod in pods)))
            found = max(found or created, created + PENDING_COUNTED_FOR)
    return found


def _is_trainer_of(job: ObservedJob, pod: ObservedPod) -> bool:
    own = (pod.identity.revision, pod.attempt, pod.step) == (job.identity.revision, job.attempt, job.step)
    return own and pod.component == Component.TRAINING


def _has_started(job: ObservedJob, pods: Iterable[ObservedPod]) -> bool:
    return any(_is_trainer_of(job, pod) and pod.phase != "Pending" for pod in pods)
