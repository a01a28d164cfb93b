"""Answers of classify. Scores stay as the gateway sent them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocelli_client.errors import AnswerError


@dataclass(frozen=True, kw_only=True)
class ScoredClass:
    """A class and its score, 0 to 1."""

    class_name: str
    score: float
    type_hierarchy: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierScores:
    """What one classifier says of an image: the classes at or above the threshold, highest score first."""

    classifier_id: str
    name: str
    classes: tuple[ScoredClass, ...]


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """What all classifiers say of an image, or why it could not be read."""

    image: str
    classifiers: tuple[ClassifierScores, ...] = ()
    error: str | None = None
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def best(self) -> ScoredClass | None:
        """The class with the highest score of the first classifier; None where none reaches the threshold."""
        classes = self.classifiers[0].classes if self.classifiers else ()
        return classes[0] if classes else None


@dataclass(frozen=True, kw_only=True)
class Classified:
    """The answer for several images, in the order in which they were given."""

    images: tuple[ImagePrediction, ...]
    warnings: tuple[str, ...] = ()


def parse_predictions(document: Mapping[str, Any]) -> Classified:
    """The answer of v3, whose images are in the order in which they were sent."""
    try:
        images = tuple(_parse_image(item) for item in document["images"])
        return Classified(images=images, warnings=tuple(item["description"] for item in document.get("warnings", ())))
    except (KeyError, TypeError) as error:
        raise AnswerError(f"The answer of classify lacks {error}") from error


def _parse_image(item: Mapping[str, Any]) -> ImagePrediction:
    classifiers = tuple(
        ClassifierScores(
            classifier_id=answer["classifier_id"],
            name=answer["name"],
            classes=tuple(
                sorted(
                    (
                        ScoredClass(class_name=one["class"], score=one["score"], type_hierarchy=one.get("type_hierarchy"))
                        for one in answer["classes"]
                    ),
                    key=lambda one: -one.score,
                )
            ),
        )
        for answer in item["classifiers"]
    )
    error = item.get("error")
    return ImagePrediction(
        image=item.get("image") or item.get("source_url") or "",
        classifiers=classifiers,
        error=None if error is None else error["description"],
        raw=item,
    )
