"""How well answers agree with the classes that people gave.

The rules are those of Ocelli's own evaluation, so that the figures can be compared: balanced accuracy, and its 95 % confidence
interval by Agresti and Coull's adjustment (1998).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DECISION_THRESHOLD = 0.5
_NORMAL_QUANTILE = 1.96


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An image, the class that a person gave it (None: none of the classes), and all its scores."""

    image: str
    actual: str | None
    scores: Mapping[str, float]

    @property
    def best(self) -> tuple[str, float]:
        """The class with the highest score."""
        return max(self.scores.items(), key=lambda item: item[1])


@dataclass(frozen=True, kw_only=True)
class ClassQuality:
    """Metrics of one class at the threshold 0.5, independent of the scores of other classes. 0 / 0 counts as 0."""

    class_name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """An image with another class than expected."""

    image: str
    actual: str | None
    predicted: str | None
    score: float
    """The highest score of any class."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found. None as a class: none of the classes."""

    images: int
    accuracy: float
    """The mean recall of all classes, and of the negatives if there are any."""
    lower: float
    upper: float
    classes: tuple[ClassQuality, ...]
    confusion: tuple[tuple[str | None, str | None, int], ...]
    """Actual class, predicted class, and number of images, without zeros."""
    wrong: tuple[WrongAnswer, ...]
    """The most certain ones first."""

    def to_json(self) -> dict[str, Any]:
        """In the form of the gateway's evaluations."""
        return {
            "images": self.images,
            "accuracy": {"value": self.accuracy, "lower": self.lower, "upper": self.upper, "images": self.images},
            "classes": [
                {
                    "class": one.class_name,
                    "images": one.images,
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                }
                for one in self.classes
            ],
            "confusion": [
                {"actual": actual, "predicted": predicted, "images": images} for actual, predicted, images in self.confusion
            ],
            "wrong": [
                {"image": one.image, "actual": one.actual, "predicted": one.predicted, "score": one.score} for one in self.wrong
            ],
        }


def evaluate(answers: Sequence[Answer], class_names: Sequence[str], *, has_negatives: bool) -> Evaluation:
    """Compare answers with the given classes. There must be at least one.

    The predicted class has the highest score. With negatives, a highest score below 0.5 means "none of the classes".
    """
    predicted = [_predict(answer, has_negatives=has_negatives) for answer in answers]
    right = [answer.actual == found for answer, found in zip(answers, predicted, strict=True)]
    actual_classes = sorted({answer.actual for answer in answers}, key=lambda name: (name is None, name))
    recalls = []
    for name in actual_classes:
        of_class = [is_right for answer, is_right in zip(answers, right, strict=True) if answer.actual == name]
        recalls.append((sum(of_class) / len(of_class), len(of_class)))
    lower, upper = _build_interval(recalls)
    cells = Counter(zip((answer.actual for answer in answers), predicted, strict=True))
    wrong = [
        WrongAnswer(image=answer.image, actual=answer.actual, predicted=found, score=answer.best[1])
        for answer, found, is_right in zip(answers, predicted, right, strict=True)
        if not is_right
    ]
    return Evaluation(
        images=len(answers),
        accuracy=sum(recall for recall, _ in recalls) / len(recalls),
        lower=lower,
        upper=upper,
        classes=tuple(_judge_class(name, answers) for name in class_names),
        confusion=tuple(
            (*cell, cells[cell]) for cell in sorted(cells, key=lambda cell: tuple((n is None, n or "") for n in cell))
        ),
        wrong=tuple(sorted(wrong, key=lambda one: -abs(one.score - DECISION_THRESHOLD))),
    )


def _predict(answer: Answer, *, has_negatives: bool) -> str | None:
    name, score = answer.best
    return None if has_negatives and score < DECISION_THRESHOLD else name


def _judge_class(name: str, answers: Sequence[Answer]) -> ClassQuality:
    images = sum(answer.actual == name for answer in answers)
    found = [answer.actual == name for answer in answers if answer.scores.get(name, 0.0) >= DECISION_THRESHOLD]
    precision = sum(found) / len(found) if found else 0.0
    recall = sum(found) / images if images else 0.0
    both = precision + recall
    return ClassQuality(
        class_name=name, images=images, precision=precision, recall=recall, f1=2 * precision * recall / both if both else 0.0
    )


def _build_interval(recalls: Sequence[tuple[float, int]]) -> tuple[float, float]:
    adjusted = [((recall * count + 2) / (count + 4), count + 4) for recall, count in recalls]
    centre = sum(part for part, _ in adjusted) / len(adjusted)
    reach = _NORMAL_QUANTILE * math.sqrt(sum(part * (1 - part) / count for part, count in adjusted)) / len(adjusted)
    mean = sum(recall for recall, _ in recalls) / len(recalls)
    return max(0.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach))
