"""Subscriptions to changes of cards."""

from __future__ import annotations

import asyncio

from ocelli_api.classifier import parse_classifier
from ocelli_cluster.resource_cache import Change
from ocelli_cluster.resources import ObjectKey
from ocelli_gateway.card_events import PENDING_LIMIT, CardEvents
from ocelli_gateway.known_classifiers import KnownClassifier, project_with_card


def known(number: int, *, name: str = "birds", deleted: bool = False) -> KnownClassifier:
    manifest = {
        "metadata": {
            "namespace": "team-a",
            "name": f"birds-{number}",
            "uid": str(number),
            "resourceVersion": "1",
            "creationTimestamp": "2026-05-04T12:00:00Z",
            "labels": {"ocelli.dev/classifier-id": f"birds_{number}"},
            **({"deletionTimestamp": "2026-05-04T12:00:00Z"} if deleted else {}),
        },
        "spec": {"displayName": name, "classes": [{"name": item, "examples": [{"upload": item * 64}]} for item in "ab"]},
    }
    assert parse_classifier(manifest).classifier_id == f"birds_{number}"
    projected = project_with_card(manifest)
    assert projected is not None
    return projected


def change(before: KnownClassifier | None, after: KnownClassifier | None) -> Change[KnownClassifier | None]:
    return Change(key=ObjectKey("team-a", "birds"), before=before, after=after)


def test_slow_subscriber_gets_the_latest_card_of_each_classifier_once() -> None:
    async def scenario() -> list[str]:
        events = CardEvents()
        with events.subscribed(None) as subscription:
            for name in ("first", "second", "third"):
                events.report(change(None, known(1, name=name)))
            events.report(change(None, known(2, name="other")))
            return [event.card.name for event in await subscription.wait() if event.card is not None]

    assert asyncio.run(scenario()) == ["third", "other"]


def test_subscriber_that_falls_too_far_behind_is_ended_and_keeps_nothing() -> None:
    async def scenario() -> tuple[bool, int]:
        events = CardEvents()
        with events.subscribed(None) as subscription:
            for number in range(PENDING_LIMIT + 1):
                events.report(change(known(number), None))
            return subscription.ended, len(await subscription.wait())

    assert asyncio.run(scenario()) == (True, 0)


def test_object_that_is_being_deleted_counts_as_deleted() -> None:
    async def scenario() -> list[object]:
        events = CardEvents()
        with events.subscribed(None) as subscription:
            events.report(change(known(1), known(1, deleted=True)))
            return [event.card for event in await subscription.wait()]

    assert asyncio.run(scenario()) == [None]


def test_subscriber_that_has_left_gets_nothing() -> None:
    events = CardEvents()

    async def scenario() -> bool:
        with events.subscribed(None) as subscription:
            pass
        events.report(change(None, known(1)))
        try:
            async with asyncio.timeout(0.01):
                await subscription.wait()
        except TimeoutError:
            return True
        return False

    assert asyncio.run(scenario())
