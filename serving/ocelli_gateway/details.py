"""The details of a Classifier in the management API: its card, what it learns from, and what was trained before.

It must not know where the values come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Classifier, Source
from ocelli_api.classifier_status import HistoryEntry, RevisionComparison
from ocelli_api.revision import current_revision
from ocelli_gateway.cards import Card, ShownAccuracy
from ocelli_gateway.committed_manifest import build_committed_manifest
from ocelli_gateway.fields import DEFAULT_THRESHOLD
from ocelli_gateway.wire import wire_time


@dataclass(frozen=True, kw_only=True)
class StoredFacts:
    """What the object store knows about a Classifier."""

    upload_bytes: Mapping[str, int]
    """By digest, the size of each stored upload."""
    revisions: frozenset[str]
    """Those with something stored."""


def build_details(classifier: Classifier, stored: StoredFacts) -> dict[str, Any]:
    """The body: the card and the details, without what is not known."""
    spec, status = classifier.spec, classifier.status
    body: dict[str, Any] = {
        **Card.of(classifier).to_json(),
        "classes": [
            {"class": item.name, "sources": _build_sources(item.examples, stored.upload_bytes)} for item in spec.classes
        ],
        "negative_sources": _build_sources(spec.negative_examples, stored.upload_bytes),
        "threshold": DEFAULT_THRESHOLD,
        "conditions": [
            _without_none(
                type=item.type,
                status=str(item.status),
                reason=item.reason or None,
                message=item.message or None,
                changed=wire_time(item.last_transition_time) if item.last_transition_time else None,
            )
            for item in status.conditions
        ],
        "history": [_build_entry(classifier, entry, stored) for entry in status.history],
        "corrections": [{"image": item.image, "class": item.class_name} for item in spec.corrections],
        "manifest": build_committed_manifest(classifier),
    }
    return body | _without_none(backbone=status.backbone, endpoint=status.endpoint, pinned_revision=spec.pinned_revision)


def _build_sources(sources: Iterable[Source], upload_bytes: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        _without_none(
            url=source.url,
            upload=source.upload,
            sha256=source.sha256,
            bytes=None if source.upload is None else upload_bytes.get(source.upload),
            round=source.round,
            erased=True if source.erased else None,
        )
        for source in sources
    ]


def _build_entry(classifier: Classifier, entry: HistoryEntry, stored: StoredFacts) -> dict[str, Any]:
    promoted = None if entry.promoted_at is None else wire_time(entry.promoted_at)
    comparison = None if entry.comparison is None else _build_comparison(entry.comparison)
    return {
        "revision": entry.revision,
        "trained": wire_time(entry.trained_at),
        **_without_none(promoted=promoted, accuracy=_build_accuracy(entry), comparison=comparison),
        "served": entry.revision == classifier.status.served_revision,
        "current": entry.revision == current_revision(classifier),
        "pinned": entry.revision == classifier.spec.pinned_revision,
        "stored": entry.revision in stored.revisions,
    }


def _build_accuracy(entry: HistoryEntry) -> dict[str, Any] | None:
    interval = entry.accuracy_interval
    if entry.accuracy is None or interval is None:
        return None
    value, lower, upper = float(entry.accuracy), float(interval.lower), float(interval.upper)
    return ShownAccuracy(value=value, lower=lower, upper=upper, images=entry.judged_images).to_json()


def _build_comparison(comparison: RevisionComparison) -> dict[str, Any]:
    drop = comparison.accuracy_drop
    figures = {} if drop is None else {"drop": float(drop.drop), "lower": float(drop.lower), "upper": float(drop.upper)}
    return {
        "baseline": comparison.baseline,
        **figures,
        **_without_none(images=comparison.images, fault=comparison.fault),
    }


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
