"""How good the heads are, judged by images that they did not see. Pure: scores and truth in, figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import DECISION_THRESHOLD
from ocelli_training.fit import Fit, Protocol

CALIBRATION_BINS = 10
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class at the threshold 0.5, whatever the other classes score. A quotient of nothing by nothing is 0."""

    class_name: str
    images: int
    """Evaluated images of the class."""
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.class_name,
            "images": self.images,
            "precision": _rounded(self.precision),
            "recall": _rounded(self.recall),
            "f1": _rounded(self.f1),
        }


@dataclass(frozen=True, kw_only=True)
class ConfusionCell:
    """So many images of one class were taken for another (or for the same). None: none of the classes."""

    actual: str | None
    predicted: str | None
    images: int

    def to_json(self) -> dict[str, Any]:
        return {"actual": self.actual, "predicted": self.predicted, "images": self.images}


@dataclass(frozen=True, kw_only=True)
class Misclassified:
    """An image that was taken for something else. None: none of the classes."""

    image: str
    actual: str | None
    predicted: str | None
    score: float
    """The highest score of any class."""

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "actual": self.actual, "predicted": self.predicted, "score": _rounded(self.score)}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one training, all from scores of images by heads and calibrations that did not see them."""

    protocol: Protocol
    images: int
    """Evaluated images, negatives included."""
    accuracy: float
    """Part of the images whose prediction is right; see `evaluate`."""
    calibration_error: float
    """Expected calibration error over all scores of all classes, in `CALIBRATION_BINS` bins of equal width (Naeini, 2015)."""
    classes: tuple[ClassMetrics, ...]
    """In the definition's order."""
    confusion: tuple[ConfusionCell, ...]
    """The confusion matrix without its zeros, row by row."""
    misclassified: tuple[Misclassified, ...]
    """The surest errors first."""

    def to_json(self) -> dict[str, Any]:
        """All of it, for the report."""
        return {
            **self.summary(),
            "confusion": [cell.to_json() for cell in self.confusion],
            "misclassified": [image.to_json() for image in self.misclassified],
        }

    def summary(self) -> dict[str, Any]:
        """What the artifact keeps: nothing that names images or grows with their number."""
        return {
            "protocol": str(self.protocol),
            "images": self.images,
            "accuracy": _rounded(self.accuracy),
            "calibrationError": _rounded(self.calibration_error),
            "classes": [item.to_json() for item in self.classes],
        }


def evaluate(fit: Fit, membership: NDArray[np.bool_], class_names: Sequence[str], image_names: Sequence[str]) -> Evaluation:
    """Judge a fit. `membership` (bool[N, C]) and `image_names` (N) are those of the fit's examples.

    An image's prediction is its class of the highest score. Where there are negative examples a highest score below 0.5 means
    "none of the classes", which is right for a negative and wrong for every other image; without negatives there always is
    a prediction. An image of several classes is predicted right by any of them.
    """
    truth, scores = membership[fit.evaluated_rows], fit.evaluated_scores
    nothing = len(class_names)
    best = scores.argmax(axis=1)
    highest = scores.max(axis=1)
    has_negatives = not membership.any(axis=1).all()
    predicted = np.where(highest < DECISION_THRESHOLD, nothing, best) if has_negatives else best
    actual = np.where(truth.any(axis=1), truth.argmax(axis=1), nothing)
    # An image of several classes counts as of the one that it was taken for.
    of_predicted = np.concatenate([truth, ~truth.any(axis=1, keepdims=True)], axis=1)[np.arange(len(truth)), predicted]
    actual = np.where(of_predicted, predicted, actual)
    names: list[str | None] = [*class_names, None]
    cells = Counter(zip(actual.tolist(), predicted.tolist(), strict=True))
    wrong = np.flatnonzero(~of_predicted)
    return Evaluation(
        protocol=fit.protocol,
        images=len(truth),
        accuracy=float(of_predicted.mean()),
        calibration_error=_calibration_error(scores, truth),
        classes=tuple(_class_metrics(name, scores[:, index], truth[:, index]) for index, name in enumerate(class_names)),
        confusion=tuple(
            ConfusionCell(actual=names[row], predicted=names[column], images=count)
            for (row, column), count in sorted(cells.items())
        ),
        misclassified=tuple(
            Misclassified(
                image=image_names[fit.evaluated_rows[index]],
                actual=names[actual[index]],
                predicted=names[predicted[index]],
                score=float(highest[index]),
            )
            for index in sorted(wrong, key=lambda index: (-abs(float(highest[index]) - DECISION_THRESHOLD), index))
        ),
    )


def _class_metrics(name: str, scores: NDArray[np.float32], of_class: NDArray[np.bool_]) -> ClassMetrics:
    predicted = scores >= DECISION_THRESHOLD
    right = int((predicted & of_class).sum())
    precision, recall = _quotient(right, int(predicted.sum())), _quotient(right, int(of_class.sum()))
    return ClassMetrics(
        class_name=name,
        images=int(of_class.sum()),
        precision=precision,
        recall=recall,
        f1=_quotient(2 * precision * recall, precision + recall),
    )


def _calibration_error(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1).ravel()
    score_sums = np.bincount(bins, weights=scores.ravel().astype(np.float64), minlength=CALIBRATION_BINS)
    truth_sums = np.bincount(bins, weights=truth.ravel().astype(np.float64), minlength=CALIBRATION_BINS)
    return float(np.abs(score_sums - truth_sums).sum() / scores.size)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)
