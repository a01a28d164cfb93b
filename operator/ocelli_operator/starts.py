"""Limits how many trainings and rollouts start at the same time in the installation, and orders those that wait.

Starts in progress are counted from observed objects, so that a new leader counts as its predecessor did. Only the order of
those that wait is in memory; a new leader rebuilds it when it reconciles. This module must not know how anything is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, zip_longest

from ocelli_api.pods import Component
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.observed import ObservedDeployment, ObservedJob, ObservedPod, StartKind

COUNTED_FOR = timedelta(seconds=60)
"""A training, or the Deployment of a new revision, counts for at most this long: Pods that are unschedulable or exceed a quota
must not delay others."""


@dataclass(frozen=True, kw_only=True)
class StartLimits:
    """How many starts may be in progress at the same time."""

    trainings: int
    """Training Jobs whose trainer has not started yet."""
    rollouts: int
    """Deployments with Pods to create or replace. Upgrades get the slots that users' rollouts do not use."""
    upgrade_counted_for: timedelta
    """How long an upgrade counts that neither ends nor passes its deadline, for example of a paused Deployment."""


@dataclass(frozen=True, kw_only=True)
class Workloads:
    """The Jobs, Pods and Deployments of one Classifier."""

    served_revision: str | None
    jobs: tuple[ObservedJob, ...]
    pods: tuple[ObservedPod, ...]
    deployments: tuple[ObservedDeployment, ...]


class Starts:
    """Decides which Classifier may start what. The namespaces of those that wait take turns."""

    def __init__(self, limits: StartLimits, clock: Callable[[], datetime]) -> None:
        self._limits = limits
        self._clock = clock
        self._in_progress: dict[StartKind, dict[ObjectKey, datetime]] = {kind: {} for kind in StartKind}
        """With the time until which each counts."""
        self._claims: dict[StartKind, set[ObjectKey]] = {kind: set() for kind in StartKind}
        """Classifiers whose reconcile is about to start something that cannot be observed yet."""
        self._waiting: dict[StartKind, dict[str, dict[ObjectKey, None]]] = {kind: {} for kind in StartKind}
        """By namespace, in order of arrival. The namespace that had the last turn is last."""

    def observe(self, key: ObjectKey, workloads: Workloads) -> None:
        """Record what is in progress for a Classifier."""
        now = self._clock()
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

    def note(self, key: ObjectKey, *, begins: Iterable[StartKind], waits: Iterable[StartKind]) -> None:
        """Record what a reconcile starts and what has to wait. Call `release` when the reconcile has ended."""
        begins, waits = frozenset(begins), frozenset(waits)
        for kind in StartKind:
            if kind in begins:
                self._claims[kind].add(key)
            if kind in waits:
                self._waiting[kind].setdefault(key.namespace, {}).setdefault(key)
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
        return [key for kind in StartKind for key in self._find_first(kind, self._count_free(kind))]

    def clear(self) -> None:
        """Another operator leads: forget what waits."""
        for kind in StartKind:
            self._waiting[kind].clear()
            self._claims[kind].clear()

    def count_waiting(self, kind: StartKind) -> int:
        return sum(len(keys) for keys in list(self._waiting[kind].values()))

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
        free = self._count_free(kind)
        if key in self._waiting[kind].get(key.namespace, {}):
            return key in self._find_first(kind, free)
        return self.count_waiting(kind) < free

    def _count_free(self, kind: StartKind) -> int:
        if kind is StartKind.TRAINING:
            return max(self._limits.trainings - self.count_in_progress(kind), 0)
        free = self._limits.rollouts - self.count_in_progress(StartKind.ROLLOUT)
        if kind is StartKind.UPGRADE:
            free -= self.count_in_progress(kind) + self.count_waiting(StartKind.ROLLOUT)
        return max(free, 0)

    def _find_first(self, kind: StartKind, count: int) -> list[ObjectKey]:
        """The first `count` that wait: the first of each namespace, then the second of each, and so on."""
        rounds = zip_longest(*self._waiting[kind].values())
        return list(islice((key for keys in rounds for key in keys if key is not None), count))

    def _stop_waiting(self, kind: StartKind, key: ObjectKey) -> bool:
        """Whether it was waiting."""
        keys = self._waiting[kind].get(key.namespace, {})
        if key not in keys:
            return False
        del keys[key]
        if not keys:
            del self._waiting[kind][key.namespace]
        return True


def _find_started(kind: StartKind, workloads: Workloads) -> list[str]:
    """The creation times of what is in progress."""
    if kind is StartKind.TRAINING:
        return [
            job.created_at
            for job in workloads.jobs
            if not job.finished and not job.identity.deleting and not _has_started(job, workloads.pods)
        ]
    return [
        deployment.created_at
        for deployment in workloads.deployments
        if (deployment.identity.revision == workloads.served_revision) == (kind is StartKind.UPGRADE)
        and not deployment.identity.deleting
        and not deployment.deadline_exceeded
        and not (deployment.up_to_date and deployment.complete)
    ]


def _has_started(job: ObservedJob, pods: Iterable[ObservedPod]) -> bool:
    return any(
        pod.component == Component.TRAINING
        and (pod.identity.revision, pod.attempt, pod.step) == (job.identity.revision, job.attempt, job.step)
        and pod.phase != "Pending"
        for pod in pods
    )
