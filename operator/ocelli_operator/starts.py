"""Starts: how many trainings and rollouts begin at once in the whole installation, and whose turn it is.

What is under way is judged by what is observed, so that a successor counts as its predecessor did. Only the order of those that
wait is kept here; a successor finds it anew by its passes. It must not know how anything is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocelli_cluster.resources import ObjectKey

from ocelli_api.pods import Component
from ocelli_operator.observed import ObservedDeployment, ObservedJob, ObservedPod, StartKind

COUNTED_FOR = timedelta(seconds=60)
"""A training, or the Deployment of a new revision, counts for so long at most: Pods that no node can take, or that a quota
refuses, must not delay others."""


@dataclass(frozen=True, kw_only=True)
class StartLimits:
    """How many are under way at once."""

    trainings: int
    """Training Jobs whose trainer has not begun yet."""
    rollouts: int
    """Deployments with Pods to be replaced or made. Upgrades take what users' rollouts leave of it."""
    upgrade_counted_for: timedelta
    """For how long an upgrade counts that neither ends nor is past its deadline, such as that of a paused Deployment."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the view holds of one Classifier."""

    served_revision: str | None
    jobs: tuple[ObservedJob, ...]
    pods: tuple[ObservedPod, ...]
    deployments: tuple[ObservedDeployment, ...]


class Starts:
    """Who may start what, by Classifier. Those that wait come in turn, one namespace after the other."""

    def __init__(self, limits: StartLimits, clock: Callable[[], datetime]) -> None:
        self._limits = limits
        self._clock = clock
        self._under_way: dict[StartKind, dict[ObjectKey, datetime]] = {kind: {} for kind in StartKind}
        """Each with the time until which it counts."""
        self._claims: dict[StartKind, set[ObjectKey]] = {kind: set() for kind in StartKind}
        """Of passes that are about to start something which nobody can observe yet."""
        self._waiting: dict[StartKind, dict[str, dict[ObjectKey, None]]] = {kind: {} for kind in StartKind}
        """By namespace: each in the order in which it came, the namespace whose turn was last at the end."""

    def observe(self, key: ObjectKey, family: Family) -> None:
        """Note what is under way for a Classifier."""
        now = self._clock()
        for kind in StartKind:
            counted, started = self._under_way[kind], _find_started(kind, family)
            if not started:
                counted.pop(key, None)
            elif kind is StartKind.UPGRADE:
                # From when it is seen first: the Deployment may be years old.
                counted.setdefault(key, now + self._limits.upgrade_counted_for)
            else:
                counted[key] = max(datetime.fromisoformat(created_at) for created_at in started) + COUNTED_FOR

    def find_allowed(self, key: ObjectKey) -> frozenset[StartKind]:
        """What a Classifier may start now."""
        return frozenset(kind for kind in StartKind if self._is_allowed(kind, key))

    def note(self, key: ObjectKey, *, begins: Iterable[StartKind], waits: Iterable[StartKind]) -> None:
        """A pass over a Classifier decided what it starts, and what has to wait. Call `release` when that pass has ended."""
        begins, waits = frozenset(begins), frozenset(waits)
        for kind in StartKind:
            if kind in begins:
                self._claims[kind].add(key)
            if kind in waits:
                self._waiting[kind].setdefault(key.namespace, {}).setdefault(key)
            elif self._leave(kind, key) and kind in begins and key.namespace in self._waiting[kind]:
                self._waiting[kind][key.namespace] = self._waiting[kind].pop(key.namespace)

    def release(self, key: ObjectKey, family: Family) -> None:
        """The pass has ended: what it started is observed from now on."""
        self.observe(key, family)
        for kind in StartKind:
            self._claims[kind].discard(key)

    def forget(self, key: ObjectKey) -> None:
        """A Classifier went away, or could not be looked at: it loses its place."""
        for kind in StartKind:
            self._leave(kind, key)

    def find_next(self) -> list[ObjectKey]:
        """Those that wait and may start now."""
        return [key for kind in StartKind for key in self._first(kind, self._room(kind))]

    def clear(self) -> None:
        """Nobody waits here any more."""
        for kind in StartKind:
            self._waiting[kind].clear()
            self._claims[kind].clear()

    def count_waiting(self, kind: StartKind) -> int:
        return sum(len(keys) for keys in list(self._waiting[kind].values()))

    def count_under_way(self, kind: StartKind) -> int:
        now = self._clock()
        counted = self._under_way[kind]
        return sum(until > now and key not in self._claims[kind] for key, until in list(counted.items())) + len(
            self._claims[kind]
        )

    def _is_allowed(self, kind: StartKind, key: ObjectKey) -> bool:
        if key in self._claims[kind] or self._counts(kind, key):
            return True
        room = self._room(kind)
        if key in self._waiting[kind].get(key.namespace, {}):
            return key in self._first(kind, room)
        return self.count_waiting(kind) < room

    def _counts(self, kind: StartKind, key: ObjectKey) -> bool:
        until = self._under_way[kind].get(key)
        return until is not None and until > self._clock()

    def _room(self, kind: StartKind) -> int:
        if kind is StartKind.TRAINING:
            return max(self._limits.trainings - self.count_under_way(kind), 0)
        room = self._limits.rollouts - self.count_under_way(StartKind.ROLLOUT)
        if kind is StartKind.UPGRADE:
            room -= self.count_under_way(kind) + self.count_waiting(StartKind.ROLLOUT)
        return max(room, 0)

    def _first(self, kind: StartKind, count: int) -> list[ObjectKey]:
        """The first of those that wait: one of each namespace, then the second of each, and so on."""
        found: list[ObjectKey] = []
        turns = [iter(keys) for keys in self._waiting[kind].values()]
        while turns and len(found) < count:
            left = []
            for turn in turns:
                key = next(turn, None)
                if key is not None:
                    found.append(key)
                    left.append(turn)
            turns = left
        return found[:count]

    def _leave(self, kind: StartKind, key: ObjectKey) -> bool:
        """It does not wait any more; whether it did."""
        keys = self._waiting[kind].get(key.namespace, {})
        if key not in keys:
            return False
        del keys[key]
        if not keys:
            del self._waiting[kind][key.namespace]
        return True


def _find_started(kind: StartKind, family: Family) -> list[str]:
    """When each was made of what is under way."""
    if kind is StartKind.TRAINING:
        return [
            job.created_at
            for job in family.jobs
            if not job.finished and not job.identity.deleting and not _has_begun(job, family.pods)
        ]
    return [
        deployment.created_at
        for deployment in family.deployments
        if (deployment.identity.revision == family.served_revision) == (kind is StartKind.UPGRADE)
        and not deployment.identity.deleting
        and not deployment.deadline_exceeded
        and not (deployment.up_to_date and deployment.complete)
    ]


def _has_begun(job: ObservedJob, pods: Iterable[ObservedPod]) -> bool:
    return any(
        pod.component == Component.TRAINING
        and (pod.identity.revision, pod.attempt) == (job.identity.revision, job.attempt)
        and pod.phase != "Pending"
        for pod in pods
    )
