"""Comparison of a new revision with the one that serves, on the same images. Pure: from judged scores to a few numbers.

Only images count that neither revision learned from: those of the Classifier's own test set if there is one, otherwise all
images that the new revision was cross-validated on. Only classes count that both have, and an image's predicted class is the
one with the highest score among them: a class that only one revision has would otherwise take images from the other classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import DECISION_THRESHOLD
from ocelli_storage.judged import NEGATIVE, Judged

RESAMPLES = 4000
"""The ends of the interval vary by about 2 % of its length from one seed to another."""
_TAILS = (2.5, 97.5)
"""Percentiles of a 95 % interval, two-sided."""
_ABSENT = -2
"""The class of an image in a class that a revision does not have."""
_PSEUDO_DIFFERENCES = np.array([-1.0, 0.0, 1.0])
_PSEUDO_COUNTS = np.array([0.5, 1.0, 0.5])


class NotComparableError(Exception):
    """Two revisions cannot be compared. The message is a fact about them."""


@dataclass(frozen=True, kw_only=True)
class MeasuredDrop:
    """How much lower the balanced accuracy of a revision is than that of its baseline, on the same images."""

    drop: float
    """-1 to 1; below 0 if it is higher."""
    interval: tuple[float, float]
    """The 95 % interval of the drop."""
    accuracy: float
    """Of the revision, on these images and classes."""
    baseline_accuracy: float
    images: int
    classes: int
    """Number of classes with compared images, negative examples included."""
    reclassified: int
    """Images left out because the revisions learned different classes for them."""


def measure_drop(judged: Judged, baseline: Judged) -> MeasuredDrop:
    """Compare a revision with its baseline. Both are the scores of images by heads that did not learn from them.

    Raises:
        NotComparableError: they have no classes or no images in common.
    """
    shared = [name for name in judged.class_names if name in set(baseline.class_names)]
    with_negatives = judged.has_negatives and baseline.has_negatives
    if len(shared) + with_negatives < 2:
        raise NotComparableError(f"they have {_count(len(shared), 'class', 'classes')} in common, and at least 2 are needed")
    own = _Answers.of(judged, shared, with_negatives=with_negatives)
    other = _Answers.of(baseline, shared, with_negatives=with_negatives)
    pairs, reclassified = _pair(judged, own, baseline, other)
    if not len(pairs):
        learned = "of the test set" if judged.tested.any() else "that neither learned from"
        without = f", without {_count(reclassified, 'image', 'images')} whose class was changed" if reclassified else ""
        raise NotComparableError(f"no image {learned} was judged by both, in a class that both have{without}")
    rows, other_rows = pairs.T
    actual = own.actual[rows]
    right, other_right = own.predicted[rows] == actual, other.predicted[other_rows] == actual
    strata = [actual == answer for answer in np.unique(actual)]
    groups = judged.groups[rows]
    parts = [_group_means(np.stack([right, other_right]), groups, stratum) for stratum in strata]
    accuracy, baseline_accuracy = (float(np.mean([part[index].mean() for part in parts])) for index in (0, 1))
    drop = baseline_accuracy - accuracy
    return MeasuredDrop(
        drop=drop,
        interval=_bootstrap([part[1] - part[0] for part in parts], drop),
        accuracy=accuracy,
        baseline_accuracy=baseline_accuracy,
        images=len(rows),
        classes=len(strata),
        reclassified=reclassified,
    )


def find_unseen(baseline: Judged, judged: Judged) -> NDArray[np.intp]:
    """Rows intp[M] of the new revision's images that the baseline never saw, and that it can be judged on.

    Images in classes that the baseline does not have are left out, and so are near duplicates of what it learned from. There
    are none if some of what it learned from was erased: what it saw is unknown then.
    """
    if not baseline.is_complete:
        return np.empty(0, dtype=np.intp)
    known = set(baseline.digests)
    is_known = np.array([digest in known for digest in judged.digests], dtype=np.bool_)
    learned = {digest for digest, tested in zip(baseline.digests, baseline.tested, strict=True) if not tested}
    is_learned = np.array([digest in learned for digest in judged.digests], dtype=np.bool_)
    has_class = _actual_for(baseline, judged) != _ABSENT
    return np.flatnonzero(~is_known & has_class & ~np.isin(judged.groups, judged.groups[is_learned]))


def add_unseen(baseline: Judged, judged: Judged, rows: NDArray[np.intp], scores: NDArray[np.float32]) -> Judged:
    """The judged scores of the baseline, with those of images of the new revision that it never saw.

    `rows` intp[M] are those of `find_unseen`, and `scores` float32[M, C] is what the baseline answers.
    """
    return Judged(
        class_names=baseline.class_names,
        has_negatives=baseline.has_negatives,
        digests=(*baseline.digests, *(judged.digests[row] for row in rows.tolist())),
        scores=np.concatenate([baseline.scores, scores]),
        actual=np.concatenate([baseline.actual, _actual_for(baseline, judged)[rows]]),
        # Groups of two trainings have no common numbers. Only those of the new revision are used.
        groups=np.concatenate([baseline.groups, np.full(len(rows), -1, dtype=np.int32)]),
        tested=np.concatenate([baseline.tested, np.ones(len(rows), dtype=np.bool_)]),
        learned_count=baseline.learned_count,
    )


def _actual_for(baseline: Judged, judged: Judged) -> NDArray[np.int32]:
    """int32[N]: the classes of the new revision's images as the baseline numbers them, or `_ABSENT`."""
    places = {name: place for place, name in enumerate(baseline.class_names)}
    # The last entry is that of negative examples.
    nothing = NEGATIVE if baseline.has_negatives else _ABSENT
    class_of = np.array([places.get(name, _ABSENT) for name in judged.class_names] + [nothing], dtype=np.int32)
    return class_of[judged.actual]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answers:
    """Actual and predicted answers of images, as indices into the shared classes; then "none of the classes"."""

    actual: NDArray[np.intp]
    """intp[N]; -1: a class that the other revision does not have, or a negative example where one has no negatives."""
    predicted: NDArray[np.intp]
    """intp[N]."""

    @classmethod
    def of(cls, judged: Judged, shared: list[str], *, with_negatives: bool) -> _Answers:
        nothing = len(shared)
        places = {name: place for place, name in enumerate(shared)}
        # The last entry is that of negative examples.
        answer_of = np.array([places.get(name, -1) for name in judged.class_names] + [nothing if with_negatives else -1])
        scores = judged.scores[:, [judged.class_names.index(name) for name in shared]]
        predicted = scores.argmax(axis=1)
        if with_negatives:
            # As in the evaluation: without negatives, a class is always predicted.
            predicted = np.where(scores.max(axis=1) < DECISION_THRESHOLD, nothing, predicted)
        return cls(actual=answer_of[judged.actual].astype(np.intp), predicted=predicted.astype(np.intp))


def _pair(judged: Judged, own: _Answers, baseline: Judged, other: _Answers) -> tuple[NDArray[np.intp], int]:
    """The rows of the same images in both, intp[P, 2], and how many images are left out because their classes differ.

    The class of a test image is the one of the new test set. Otherwise neither revision's class can be preferred: which of
    the two is wrong is what a comparison cannot know.
    """
    rows_of = {digest: row for row, digest in enumerate(baseline.digests)}
    tested = bool(judged.tested.any())
    pairs: list[tuple[int, int]] = []
    reclassified = 0
    for row, digest in enumerate(judged.digests):
        other_row = rows_of.get(digest)
        if other_row is None or own.actual[row] < 0 or judged.tested[row] != tested:
            continue
        if not tested and own.actual[row] != other.actual[other_row]:
            reclassified += 1
            continue
        pairs.append((row, other_row))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2), reclassified


def _group_means(right: NDArray[np.bool_], groups: NDArray[np.int32], stratum: NDArray[np.bool_]) -> NDArray[np.float64]:
    """bool[2, P] to float64[2, G]: the share of each group of near duplicates in a stratum (bool[P]) that is right."""
    _, group, images = np.unique(groups[stratum], return_inverse=True, return_counts=True)
    sums = [np.bincount(group, weights=side[stratum].astype(np.float64), minlength=len(images)) for side in right]
    return np.stack(sums) / images


def _bootstrap(differences: list[NDArray[np.float64]], drop: float) -> tuple[float, float]:
    """The 95 % interval of the mean over strata of the mean difference, by a paired bootstrap (Efron, 1979).

    Groups of near duplicates are resampled within each class. Where a few images were all answered alike, resampling alone
    would give an interval without a length, so each class gets the pseudo-observations of Agresti and Min (2005): half a
    image for each of the four outcomes of a pair. The seed is fixed: the same scores give the same interval.
    """
    random = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for values in differences:
        # Resampling counts of equal differences is the same as resampling the differences, and needs no large array.
        distinct, place = np.unique(np.concatenate([values, _PSEUDO_DIFFERENCES]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([np.ones(len(values)), _PSEUDO_COUNTS]))
        size = len(values) + int(_PSEUDO_COUNTS.sum())
        means += random.multinomial(size, counts / counts.sum(), size=RESAMPLES) @ distinct / size
    lower, upper = np.percentile(means / len(differences), _TAILS)
    return max(-1.0, min(float(lower), drop)), min(1.0, max(float(upper), drop))


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
