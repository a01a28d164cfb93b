"""Changes of cards, for subscribers: the latest change of each classifier that the watch cache of a namespace reports.

A subscriber that does not keep up gets the latest card of each classifier, not every one; one that falls too far behind is
ended. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocelli_cluster.resource_cache import Change
from ocelli_gateway.cards import Card
from ocelli_gateway.known_classifiers import KnownClassifier

PENDING_LIMIT = 1000
"""Classifiers with a change that a subscriber has not taken yet."""


@dataclass(frozen=True, kw_only=True)
class CardEvent:
    """A classifier after a change."""

    classifier_id: str
    card: Card | None
    """None: it was deleted."""


class CardSubscription:
    """The changes that one subscriber has not taken yet. Belongs to one event loop."""

    def __init__(self, classifier_id: str | None) -> None:
        self.ended = False
        """No more changes come: the subscriber is too slow, or should leave."""
        self._classifier_id = classifier_id
        self._pending: dict[str, CardEvent] = {}
        self._woken = asyncio.Event()

    def add(self, event: CardEvent) -> None:
        if self._classifier_id not in (None, event.classifier_id):
            return
        self._pending.pop(event.classifier_id, None)
        self._pending[event.classifier_id] = event
        if len(self._pending) > PENDING_LIMIT:
            self.end()
        self._woken.set()

    def end(self) -> None:
        """Wake the subscriber for the last time."""
        self.ended = True
        self._pending.clear()
        self._woken.set()

    async def wait(self) -> list[CardEvent]:
        """The changes since the last call, as soon as there are any; none once it has ended."""
        await self._woken.wait()
        self._woken.clear()
        events = list(self._pending.values())
        self._pending.clear()
        return events


class CardEvents:
    """The subscribers of one namespace."""

    def __init__(self) -> None:
        self._subscriptions: set[CardSubscription] = set()

    @contextmanager
    def subscribed(self, classifier_id: str | None) -> Iterator[CardSubscription]:
        """Changes of one classifier, or of all (None), while the context is open."""
        subscription = CardSubscription(classifier_id)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def end(self) -> None:
        """The namespace is not watched any more."""
        for subscription in self._subscriptions:
            subscription.end()

    def report(self, change: Change[KnownClassifier | None]) -> None:
        """Pass on a change of the watch cache."""
        for event in _read_events(change.before, change.after):
            for subscription in self._subscriptions:
                subscription.add(event)


def _read_events(before: KnownClassifier | None, after: KnownClassifier | None) -> Iterator[CardEvent]:
    living = None if after is None or after.deleted else after
    if before is not None and (living is None or living.classifier_id != before.classifier_id):
        yield CardEvent(classifier_id=before.classifier_id, card=None)
    # Without a card a later release has written it, and it is not listed either.
    if living is not None and living.card is not None:
        yield CardEvent(classifier_id=living.classifier_id, card=living.card)
