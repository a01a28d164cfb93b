"""The first reconcile of a Classifier: which id it gets, without reading all the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.starts import StartLimits, Starts, Workloads
from tests.unit.operator.factories import NOW, make_classifier, make_polls, make_settings


class IndexedView:
    """Finds Classifiers only by key and by id."""

    def __init__(self, *classifiers: Classifier) -> None:
        self._classifiers = {ObjectKey(item.namespace, item.name): item for item in classifiers}

    def __getattr__(self, name: str) -> Any:
        if name == "classifiers":
            raise AssertionError("every Classifier was looked at")
        return lambda *_: ()

    def classifier(self, key: ObjectKey) -> Classifier | None:
        return self._classifiers.get(key)

    def workloads(self, _key: ObjectKey) -> Workloads:
        return Workloads(served_revision=None, jobs=(), pods=(), deployments=())

    def classifiers_with_id(self, namespace: str, classifier_id: str) -> tuple[Classifier, ...]:
        return tuple(
            item for item in self._classifiers.values() if (item.namespace, item.classifier_id) == (namespace, classifier_id)
        )


class StatusWrites:
    """A stand-in for the API server."""

    def __init__(self) -> None:
        self.written: list[Manifest] = []

    def __getattr__(self, _name: str) -> Any:
        async def accept(*_: object, **__: object) -> Manifest:
            return {}

        return accept

    async def apply(self, _resource: object, _namespace: str, _name: str, body: Manifest, **_: object) -> Manifest:
        self.written.append(body)
        return body


def make_unseen(name: str, *, label: str | None = None, created_at: str = "2026-05-04T11:00:00Z") -> Classifier:
    classifier = make_classifier(status=ClassifierStatus(), labels={} if label is None else {CLASSIFIER_ID_LABEL: label})
    return replace(classifier, name=name, uid=f"uid-{name}", created_at=created_at)


def adopt(*classifiers: Classifier) -> str:
    """The id that the first of them gets."""
    client = StatusWrites()
    parts: dict[str, Any] = {
        "client": client,
        "view": IndexedView(*classifiers),
        "store": None,
        "events": StatusWrites(),
        "metrics": OperatorMetrics(),
        "starts": Starts(StartLimits(trainings=1, rollouts=1, upgrade_counted_for=timedelta(minutes=10)), lambda: NOW),
        "source_polls": make_polls(),
        "settings": make_settings(),
        "clock": lambda: NOW,
    }
    first = classifiers[0]
    asyncio.run(Reconciler(ReconcilerParts(**parts)).reconcile(ObjectKey(first.namespace, first.name)))
    (body,) = client.written
    classifier_id: str = body["status"]["classifierID"]
    return classifier_id


def test_a_classifier_without_an_id_gets_one() -> None:
    assert adopt(make_unseen("dogs"), make_unseen("cats")).startswith("dogs_")


def test_an_id_in_a_label_is_kept() -> None:
    assert adopt(make_unseen("dogs", label="dogs_7"), make_unseen("cats", label="cats_7")) == "dogs_7"


def test_the_newer_of_two_with_the_same_id_gets_another() -> None:
    older = make_unseen("cats", label="dogs_7", created_at="2026-05-04T10:00:00Z")
    assert adopt(make_unseen("dogs", label="dogs_7"), older) != "dogs_7"
    assert adopt(older, make_unseen("dogs", label="dogs_7")) == "dogs_7"
