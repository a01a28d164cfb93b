"""Evaluation of heads on images that they were not trained on. Pure: from scores and actual classes to metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.documents import build_document, named
from ocelli_api.outcome import EvaluationProtocol
from ocelli_api.prediction import DECISION_THRESHOLD
from ocelli_storage.judged import NEGATIVE, predict_classes
from ocelli_training.fit import Fit

CALIBRATION_BINS = 10
_DECIMALS = 6
_NORMAL_QUANTILE = 1.96
"""Of 95 %, two-sided."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class at the threshold 0.5, independent of the scores of other classes. 0 / 0 counts as 0."""

    class_name: str = field(metadata=named("class"))
    images: int
    """Evaluated images of the class."""
    precision: float
    recall: float
    f1: float
    calibration_error: float
    """Expected calibration error of the class's scores over all images."""


@dataclass(frozen=True, kw_only=True)
class ConfusionCell:
    """How many images of the actual class were predicted as the predicted one. None: none of the classes."""

    actual: str | None
    predicted: str | None
    images: int


@dataclass(frozen=True, kw_only=True)
class JudgedImage:
    """How a report names an image."""

    name: str
    """Its file and source."""
    sha256: str
    """SHA-256 (hex) of its bytes."""


@dataclass(frozen=True, kw_only=True)
class Misclassified:
    """An image with a wrong prediction. None: none of the classes."""

    image: str
    sha256: str
    actual: str | None
    predicted: str | None
    score: float
    """The highest score of any class."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of one training. All scores come from heads and calibrations that were fitted without the scored image."""

    protocol: EvaluationProtocol = EvaluationProtocol.CROSS_VALIDATION
    images: int
    """Evaluated images, negatives included."""
    accuracy: float
    """Balanced: the mean recall of all classes, and of the negatives if there are any. Near duplicates count as one image."""
    accuracy_interval: tuple[float, float]
    """The 95 % confidence interval of the accuracy."""
    calibration_error: float
    """Expected calibration error of each image's highest score, in `CALIBRATION_BINS` bins of equal width (Naeini, 2015)."""
    lost_by_rejection: float
    """Share of correctly scored images of classes (0.5 or more) that rejection lowers below 0.5."""
    classes: tuple[ClassMetrics, ...]
    """In the definition's order."""
    confusion: tuple[ConfusionCell, ...]
    """The confusion matrix without its zeros, row by row."""
    misclassified: tuple[Misclassified, ...]
    """Errors with the most certain scores first."""
    excluded: int = 0
    """Number of images of the test set that are left out, because they are examples or near duplicates of examples."""

    def to_json(self) -> dict[str, Any]:
        """All metrics, for the report."""
        return {
            **self.summary(),
            "confusion": [asdict(cell) for cell in self.confusion],
            "misclassified": [asdict(image) for image in self.misclassified],
        }

    def summary(self) -> dict[str, Any]:
        """The metrics that the artifact contains: without image names, and of a size that does not grow with the images."""
        return {
            "protocol": str(self.protocol),
            "images": self.images,
            "accuracy": _rounded(self.accuracy),
            "accuracyInterval": [_rounded(bound) for bound in self.accuracy_interval],
            "calibrationError": _rounded(self.calibration_error),
            "lostByRejection": _rounded(self.lost_by_rejection),
            "classes": [build_document(item) for item in self.classes],
            **({"excludedImages": self.excluded} if self.protocol is EvaluationProtocol.TEST_SET else {}),
        }


def evaluate(
    fit: Fit,
    membership: NDArray[np.bool_],
    groups: NDArray[np.intp],
    class_names: Sequence[str],
    images: Sequence[JudgedImage],
    *,
    learned_negatives: bool = False,
    protocol: EvaluationProtocol = EvaluationProtocol.CROSS_VALIDATION,
) -> Evaluation:
    """Evaluate a fit. `membership` (bool[N, C]), `groups` of near duplicates (intp[N]) and `images` are those of its examples.

    The predicted class of an image is the one with the highest score. If there are negative examples, or the heads learned from
    some (`learned_negatives`), a highest score below 0.5 means "none of the classes", which is correct for a negative and wrong
    for every other image; otherwise a class is always predicted. For an image of several classes, each of them is correct.
    """
    scores = fit.scores
    nothing = len(class_names)
    best, highest = scores.argmax(axis=1), scores.max(axis=1)
    of_class = np.asarray(membership.any(axis=1))
    has_negatives = learned_negatives or not bool(of_class.all())
    predicted = predict_classes(scores, has_negatives=has_negatives)
    predicted[predicted == NEGATIVE] = nothing
    actual = np.where(of_class, membership.argmax(axis=1), nothing)
    # An image of several classes counts for the predicted one.
    right = np.concatenate([membership, ~of_class[:, np.newaxis]], axis=1)[np.arange(len(scores)), predicted]
    actual = np.where(right, predicted, actual)
    names: list[str | None] = [*class_names, None]
    cells = Counter(zip(actual.tolist(), predicted.tolist(), strict=True))
    wrong = np.flatnonzero(~right)
    strata = [np.flatnonzero(actual == index) for index in range(nothing + 1) if (actual == index).any()]
    recalls = [_recall(right[rows], groups[rows]) for rows in strata]
    return Evaluation(
        protocol=protocol,
        images=len(scores),
        accuracy=float(np.mean([recall for recall, _ in recalls])),
        accuracy_interval=_interval(recalls),
        calibration_error=_calibration_error(highest, membership[np.arange(len(scores)), best]),
        lost_by_rejection=_lost(fit, membership),
        classes=tuple(_class_metrics(name, scores[:, index], membership[:, index]) for index, name in enumerate(class_names)),
        confusion=tuple(
            ConfusionCell(actual=names[row], predicted=names[column], images=count)
            for (row, column), count in sorted(cells.items())
        ),
        misclassified=tuple(
            Misclassified(
                image=images[int(index)].name,
                sha256=images[int(index)].sha256,
                actual=names[actual[index]],
                predicted=names[predicted[index]],
                score=_rounded(float(highest[index])),
            )
            for index in sorted(wrong, key=lambda index: (-abs(float(highest[index]) - DECISION_THRESHOLD), index))
        ),
    )


def _recall(right: NDArray[np.bool_], groups: NDArray[np.intp]) -> tuple[float, int]:
    """The share of groups of near duplicates that is predicted correctly, and the number of groups."""
    _, group, images = np.unique(groups, return_inverse=True, return_counts=True)
    return float(np.average(right, weights=1.0 / images[group])), len(images)


def _interval(recalls: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The 95 % interval of the mean recall; each recall comes with its number of images.

    Agresti and Coull's adjustment (1998), which adds two correct and two wrong images to each recall, keeps the interval
    realistic where a few images were all correct.
    """
    adjusted = [((recall * count + 2) / (count + 4), count + 4) for recall, count in recalls]
    centre = float(np.mean([part for part, _ in adjusted]))
    variance = sum(part * (1 - part) / count for part, count in adjusted) / len(adjusted) ** 2
    reach = _NORMAL_QUANTILE * math.sqrt(variance)
    mean = float(np.mean([recall for recall, _ in recalls]))
    return max(0.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach))


def _lost(fit: Fit, membership: NDArray[np.bool_]) -> float:
    """See `Evaluation.lost_by_rejection`."""
    right = ((fit.unrejected_scores >= DECISION_THRESHOLD) & membership).any(axis=1)
    kept = ((fit.scores >= DECISION_THRESHOLD) & membership).any(axis=1)
    return _quotient(int((right & ~kept).sum()), int(right.sum()))


def _class_metrics(name: str, scores: NDArray[np.float32], of_class: NDArray[np.bool_]) -> ClassMetrics:
    predicted = scores >= DECISION_THRESHOLD
    right = int((predicted & of_class).sum())
    precision, recall = _quotient(right, int(predicted.sum())), _quotient(right, int(of_class.sum()))
    return ClassMetrics(
        class_name=name,
        images=int(of_class.sum()),
        precision=_rounded(precision),
        recall=_rounded(recall),
        f1=_rounded(_quotient(2 * precision * recall, precision + recall)),
        calibration_error=_rounded(_calibration_error(scores, of_class)),
    )


def _calibration_error(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    score_sums = np.bincount(bins, weights=scores.astype(np.float64), minlength=CALIBRATION_BINS)
    truth_sums = np.bincount(bins, weights=truth.astype(np.float64), minlength=CALIBRATION_BINS)
    return float(np.abs(score_sums - truth_sums).sum() / scores.size)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)
