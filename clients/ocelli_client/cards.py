"""Classifiers as the gateway describes them. A field is None where the gateway does not know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ocelli_client.errors import AnswerError

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Balanced accuracy with its 95 % confidence interval, and on how many images it was measured."""

    value: float
    lower: float | None = None
    upper: float | None = None
    images: int | None = None

    @classmethod
    def parse(cls, document: Document | None) -> Accuracy | None:
        if document is None:
            return None
        return cls(
            value=document["value"],
            lower=document.get("lower"),
            upper=document.get("upper"),
            images=document.get("images"),
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is."""

    stage: str
    percent: int
    images: int | None = None
    images_total: int | None = None
    device: str | None = None
    estimated_completion: str | None = None

    @classmethod
    def parse(cls, document: Document | None) -> Progress | None:
        if document is None:
            return None
        known = {name: document.get(name) for name in ("images", "images_total", "device", "estimated_completion")}
        return cls(stage=document["stage"], percent=document["percent"], **known)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A classifier in the list."""

    classifier_id: str
    name: str
    status: str
    """training, ready, retraining or failed."""
    resource: str | None = None
    """Namespace and name of its Classifier."""
    reason: str | None = None
    explanation: str | None = None
    created: str | None = None
    updated: str | None = None
    managed_by: str | None = None
    writable: bool = True
    class_count: int | None = None
    suspended: bool = False
    built_in: bool = False
    accuracy: Accuracy | None = None
    progress: Progress | None = None
    served_revision: str | None = None
    current_revision: str | None = None
    training_revision: str | None = None
    awaits_approval: str | None = None
    raw: Document = field(repr=False)
    """The document as the gateway sent it."""

    @classmethod
    def parse(cls, document: Document) -> Card:
        with _complete_description():
            return cls(**_read_card(document))


_OPTIONAL = (
    "resource",
    "reason",
    "explanation",
    "created",
    "updated",
    "managed_by",
    "class_count",
    "served_revision",
    "current_revision",
    "training_revision",
    "awaits_approval",
)


def _read_card(document: Document) -> dict[str, Any]:
    return {
        **{name: document[name] for name in ("classifier_id", "name", "status")},
        **{name: document.get(name) for name in _OPTIONAL},
        "writable": document.get("writable", True),
        "suspended": document.get("suspended", False),
        "built_in": document.get("built_in", False),
        "accuracy": Accuracy.parse(document.get("accuracy")),
        "progress": Progress.parse(document.get("progress")),
        "raw": document,
    }


@contextmanager
def _complete_description() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise AnswerError(f"The gateway's description of a classifier lacks {error}; its version may be too old") from error


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where examples come from: a URL, or an upload by its SHA-256."""

    url: str | None = None
    upload: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClassExamples:
    """A class and its sources."""

    class_name: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A revision in the history."""

    revision: str
    trained: str | None
    promoted: str | None
    accuracy: Accuracy | None
    served: bool
    current: bool
    pinned: bool
    stored: bool
    """Its artifact exists, so that it can be pinned."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition of the Classifier."""

    type: str
    status: str
    reason: str | None
    message: str | None
    changed: str | None


@dataclass(frozen=True, kw_only=True)
class Correction:
    """An image with another class than its source says. An empty class drops it, None removes the correction."""

    image: str
    class_name: str | None


@dataclass(frozen=True, kw_only=True)
class Details(Card):
    """A classifier with all that is known of it."""

    classes: tuple[ClassExamples, ...] = ()
    negative_sources: tuple[Source, ...] = ()
    threshold: float | None = None
    backbone: str | None = None
    endpoint: str | None = None
    conditions: tuple[Condition, ...] = ()
    history: tuple[Revision, ...] = ()
    """Newest first."""
    pinned_revision: str | None = None
    corrections: tuple[Correction, ...] = ()
    manifest: str | None = None
    """YAML of the Classifier as one would commit it."""

    @classmethod
    def parse(cls, document: Document) -> Details:
        with _complete_description():
            return cls(
                **_read_card(document),
                classes=tuple(
                    ClassExamples(class_name=item["class"], sources=_read_sources(item.get("sources", ())))
                    for item in document.get("classes", ())
                ),
                negative_sources=_read_sources(document.get("negative_sources", ())),
                conditions=tuple(
                    Condition(**{name: item.get(name) for name in ("type", "status", "reason", "message", "changed")})
                    for item in document.get("conditions", ())
                ),
                history=tuple(_read_revision(item) for item in document.get("history", ())),
                corrections=parse_corrections(document.get("corrections", ())),
                threshold=document.get("threshold"),
                backbone=document.get("backbone"),
                endpoint=document.get("endpoint"),
                pinned_revision=document.get("pinned_revision"),
                manifest=document.get("manifest"),
            )


def parse_corrections(items: Any) -> tuple[Correction, ...]:
    """The corrections of an answer."""
    return tuple(Correction(image=item["image"], class_name=item["class"]) for item in items)


def _read_sources(items: Any) -> tuple[Source, ...]:
    return tuple(Source(url=item.get("url"), upload=item.get("upload"), size_bytes=item.get("bytes")) for item in items)


def _read_revision(item: Document) -> Revision:
    return Revision(
        revision=item["revision"],
        trained=item.get("trained"),
        promoted=item.get("promoted"),
        accuracy=Accuracy.parse(item.get("accuracy")),
        **{name: item.get(name, False) for name in ("served", "current", "pinned", "stored")},
    )
