"""Suspected label errors: images whose class is probably not the one that they were given. And outliers. Pure.

The number of errors is estimated by confident learning (Northcutt, Jiang and Chuang, 2021), on cross-validated probabilities:
an image is confidently of a class if its probability of the class is at least the mean of the images that were given that
class. So a class that is hard to learn needs less evidence than an easy one. Counting given against confident classes estimates
how many images of each class belong to each other class.

Suspects are all images that another class is likelier for, those with the lowest probability of their own class first. The
paper prunes to the estimated number of each pair of classes. That shortens the list, but misses more: on three sets of
photographs with the classes of a tenth of them swapped, the first 1.5 times as many suspects contained 79 to 89 % of those
instead of 86 to 99 %.

A test compares suspects, their order and the estimate with those of cleanlab.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import DECISION_THRESHOLD

_LEAST_SCORE = np.float32(1e-6)
_TOLERANCE = 1e-6
"""Smaller differences are rounding."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An image that probably belongs to another class. The index after the last class means none of the classes."""

    row: int
    suggested: int
    given_probability: float
    suggested_probability: float


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """Of one dataset."""

    estimated: int
    """How many images are probably in the wrong class."""
    suspects: tuple[Suspect, ...]
    """Those to look at, the most certain first; usually more than `estimated`."""


def class_probabilities(scores: NDArray[np.float32], *, has_negatives: bool) -> NDArray[np.float32]:
    """Probabilities float32[N, K] that add up to 1, from the scores float32[N, C] of one-vs-rest heads, without rejection.

    K is C, or C + 1 with negatives, which are the last column. A calibrated score is the sigmoid of a class's log-odds. The
    log-odds make a softmax, in which those of the negatives are 0: the border of every class.
    """
    shape = (len(scores), scores.shape[1] + has_negatives)
    probabilities = np.zeros(shape, dtype=np.float32)
    clipped = np.clip(scores, _LEAST_SCORE, 1 - _LEAST_SCORE)
    # In place: 50,000 images of 500 classes are 100 MB.
    np.log(clipped / (1 - clipped), out=probabilities[:, : scores.shape[1]])
    probabilities -= probabilities.max(axis=1, keepdims=True)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def find_label_errors(probabilities: NDArray[np.float32], given: NDArray[np.intp]) -> LabelErrors:
    """Suspects, and how many errors there probably are.

    Args:
        probabilities: float32[N, K], of each image by heads that were trained without it.
        given: intp[N], the class of each image. Every class has at least one.
    """
    rows = np.arange(len(given))
    own = probabilities[rows, given]
    others = probabilities.copy()
    others[rows, given] = -1.0
    suggestions, likeliest = others.argmax(axis=1), others.max(axis=1)
    order = np.argsort(own, kind="stable")
    suspects = tuple(
        Suspect(
            row=row,
            suggested=int(suggestions[row]),
            given_probability=float(own[row]),
            suggested_probability=float(likeliest[row]),
        )
        for row in order[own[order] < likeliest[order] - _TOLERANCE].tolist()
    )
    return LabelErrors(estimated=_estimate_errors(probabilities, given), suspects=suspects)


def find_outliers(
    scores: NDArray[np.float32], unrejected_scores: NDArray[np.float32], membership: NDArray[np.bool_]
) -> list[int]:
    """Rows of images of classes that are unlike the other images of every class, the most unlike first.

    They are those that rejection makes undecided or worse: `scores` (float32[N, C], see `Fit`) of less than half the
    `unrejected_scores`. All of a row are multiplied by the same factor. `membership` is bool[N, C].
    """
    factors = scores.max(axis=1) / np.maximum(unrejected_scores.max(axis=1), np.finfo(np.float32).tiny)
    order = np.argsort(factors, kind="stable")
    outside = (factors < DECISION_THRESHOLD) & membership.any(axis=1)
    return [int(row) for row in order[outside[order]]]


def _estimate_errors(probabilities: NDArray[np.float32], given: NDArray[np.intp]) -> int:
    """How many images belong to another class than the given one: those off the diagonal of the calibrated confident joint."""
    images = np.bincount(given, minlength=probabilities.shape[1])
    thresholds = np.bincount(given, weights=probabilities[np.arange(len(given)), given]) / images
    confident = probabilities >= thresholds - _TOLERANCE
    classes = np.where(confident.sum(axis=1) > 1, probabilities.argmax(axis=1), confident.argmax(axis=1))
    joint = np.zeros((len(images), len(images)))
    any_confident = confident.any(axis=1)
    np.add.at(joint, (given[any_confident], classes[any_confident]), 1.0)
    diagonal = np.diag_indices_from(joint)
    joint[diagonal] = np.maximum(joint[diagonal], 1.0)
    # Images that are confidently of no class are distributed like the others.
    right = joint[diagonal] / joint.sum(axis=1) * images
    return len(given) - round(float(right.sum()))
