"""The quality of a revision from its judged scores: metrics, confusion matrix, the images of each cell, and comparisons.

All of it comes from the same scores by the same rule (`predict_classes`), so a cell of the matrix has exactly the images that
its filter finds. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import DECISION_THRESHOLD, SCORE_DECIMALS
from ocelli_storage.judged import NEGATIVE, Judged

SCORED_IMAGES_LIMIT = 5000
SCORES_LIMIT = 500_000
_SEED = 0
_ABSENT = -2


class ImageOrder(StrEnum):
    """Orders of judged images."""

    MOST_WRONG = "most_wrong"
    """By how far the best wrong answer is above the right one: wrong images first, the most certain of them before others."""
    CLASS = "class"
    """By actual class, then as `MOST_WRONG`."""
    LEAST_SURE = "least_sure"
    """By how close the two best answers are."""


class UnknownClassError(Exception):
    """The revision has no class of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'the revision has no class "{name}"')
        self.name = name


@dataclass(frozen=True, kw_only=True)
class ImageFilter:
    """Which judged images are wanted. Classes are names; an empty name: none of the classes; None: any."""

    actual: str | None = None
    predicted: str | None = None
    wrong: bool = False
    """Only those with a wrong prediction."""
    tested: bool | None = None
    """Only those of the own test set, or only examples; None: those that the evaluation is about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedQuality:
    """What the judged scores of one revision say."""

    judged: Judged

    @cached_property
    def evaluated(self) -> NDArray[np.bool_]:
        """bool[N]: the images that the evaluation is about: the own test set if there is one, otherwise all."""
        tested = self.judged.tested
        return tested if tested.any() else np.ones(len(tested), dtype=np.bool_)

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """intp[N]: see `predict_classes`."""
        return self.judged.predicted

    @cached_property
    def is_wrong(self) -> NDArray[np.bool_]:
        """bool[N]."""
        return np.asarray(self.predicted != self.judged.actual)

    @cached_property
    def wrongness(self) -> NDArray[np.float32]:
        """float32[N], -1 to 1: how far the best wrong answer is above the right one.

        Where "none of the classes" is an answer, its score is the threshold: a class is predicted if it reaches that.
        """
        answers = self._answers
        rows = np.arange(len(answers))
        places = np.where(self.judged.actual == NEGATIVE, answers.shape[1] - 1, self.judged.actual)
        right = answers[rows, places]
        others = answers.copy()
        others[rows, places] = -np.inf
        best = others.max(axis=1)
        # With one class and no negatives there is no other answer.
        return np.asarray(np.where(np.isfinite(best), best, 0) - right, dtype=np.float32)

    @property
    def _answers(self) -> NDArray[np.float32]:
        """float32[N, C or C + 1]: the scores, then that of "none of the classes" if it is an answer. Not kept: it is large."""
        scores = self.judged.scores
        if not self.judged.has_negatives:
            return scores
        return np.column_stack([scores, np.full(len(scores), DECISION_THRESHOLD, dtype=np.float32)])

    @cached_property
    def _sureness(self) -> NDArray[np.float32]:
        answers = self._answers
        if answers.shape[1] < 2:
            return np.asarray(np.abs(answers[:, 0] - DECISION_THRESHOLD))
        two = np.partition(answers, -2, axis=1)[:, -2:]
        return np.asarray(two[:, 1] - two[:, 0])

    def find(self, wanted: ImageFilter, order: ImageOrder) -> NDArray[np.intp]:
        """The rows of the wanted images, in order. Raises UnknownClassError."""
        chosen = self.evaluated if wanted.tested is None else self.judged.tested == wanted.tested
        if wanted.actual is not None:
            chosen = chosen & (self.judged.actual == self._number(wanted.actual))
        if wanted.predicted is not None:
            chosen = chosen & (self.predicted == self._number(wanted.predicted))
        if wanted.wrong:
            chosen = chosen & self.is_wrong
        rows = np.flatnonzero(chosen)
        match order:
            case ImageOrder.MOST_WRONG:
                ranks = [-self.wrongness[rows]]
            case ImageOrder.LEAST_SURE:
                ranks = [self._sureness[rows]]
            case ImageOrder.CLASS:
                # Negative examples are last, as in reports: as an unsigned number, -1 is the highest.
                ranks = [-self.wrongness[rows], self.judged.actual[rows].view(np.uint32)]
        return rows[np.lexsort(ranks)]

    def class_name(self, number: int) -> str | None:
        """None: none of the classes."""
        return None if number == NEGATIVE else self.judged.class_names[number]

    def describe(self, row: int) -> dict[str, Any]:
        """A judged image with its scores."""
        judged = self.judged
        return {
            "image": judged.digests[row],
            "actual": self.class_name(int(judged.actual[row])),
            "predicted": self.class_name(int(self.predicted[row])),
            "scores": dict(zip(judged.class_names, round_scores(judged.scores[row]), strict=True)),
            "test_set": bool(judged.tested[row]),
        }

    def confusion(self) -> list[dict[str, Any]]:
        """The confusion matrix without its zeros, row by row."""
        rows = np.flatnonzero(self.evaluated)
        cells = Counter(zip(self.judged.actual[rows].tolist(), self.predicted[rows].tolist(), strict=True))
        order = sorted(cells, key=lambda cell: [(number == NEGATIVE, number) for number in cell])
        return [
            {"actual": self.class_name(actual), "predicted": self.class_name(predicted), "images": cells[actual, predicted]}
            for actual, predicted in order
        ]

    def class_metrics(self) -> list[dict[str, Any]]:
        """Precision, recall and F1 of each class at the threshold 0.5, independent of other classes. 0 / 0 counts as 0."""
        rows = np.flatnonzero(self.evaluated)
        reached, actual = self.judged.scores[rows] >= DECISION_THRESHOLD, self.judged.actual[rows]
        metrics = []
        for number, name in enumerate(self.judged.class_names):
            of_class = actual == number
            right = int((reached[:, number] & of_class).sum())
            precision = _quotient(right, int(reached[:, number].sum()))
            recall = _quotient(right, int(of_class.sum()))
            metrics.append(
                {
                    "class": name,
                    "images": int(of_class.sum()),
                    "precision": _rounded(precision),
                    "recall": _rounded(recall),
                    "f1": _rounded(_quotient(2 * precision * recall, precision + recall)),
                }
            )
        return metrics

    def scores(self) -> dict[str, Any]:
        """The scores of all images that the evaluation is about, or of a sample that is always the same."""
        rows, limit = np.flatnonzero(self.evaluated), self._sample_limit
        sampled = len(rows) > limit
        if sampled:
            rows = np.sort(np.random.default_rng(_SEED).choice(rows, limit, replace=False))
        judged = self.judged
        return {
            "classes": list(judged.class_names),
            "has_negatives": judged.has_negatives,
            "actual": judged.actual[rows].tolist(),
            "scores": [round_scores(judged.scores[row]) for row in rows.tolist()],
            "images": [judged.digests[row] for row in rows.tolist()],
            **({"sampled": True} if sampled else {}),
        }

    @property
    def _sample_limit(self) -> int:
        return min(SCORED_IMAGES_LIMIT, SCORES_LIMIT // len(self.judged.class_names))

    def _number(self, name: str) -> int:
        if not name:
            return NEGATIVE
        try:
            return self.judged.class_names.index(name)
        except ValueError:
            raise UnknownClassError(name) from None


@dataclass(frozen=True, kw_only=True, eq=False)
class QualityComparison:
    """Two revisions on the images that both were judged on, with the classes that the images have in the first one.

    Images of a class that the other revision does not have are left out: it could not be right.
    """

    own: JudgedQuality
    other: JudgedQuality

    @cached_property
    def _pairs(self) -> NDArray[np.intp]:
        """intp[P, 2]: the rows of each image in both."""
        other_rows = {digest: row for row, digest in enumerate(self.other.judged.digests)}
        can_answer = self._places[self.own.judged.actual] != _ABSENT
        pairs = [
            (row, other_rows[digest])
            for row, digest in enumerate(self.own.judged.digests)
            if digest in other_rows and can_answer[row]
        ]
        return np.array(pairs, dtype=np.intp).reshape(-1, 2)

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        """intp[C + 1]: the classes of the first revision, and its negatives, as the other one numbers them, or `_ABSENT`."""
        numbers = {name: number for number, name in enumerate(self.other.judged.class_names)}
        nothing = NEGATIVE if self.other.judged.has_negatives else _ABSENT
        return np.array([*(numbers.get(name, _ABSENT) for name in self.own.judged.class_names), nothing], dtype=np.intp)

    @cached_property
    def _right(self) -> NDArray[np.bool_]:
        """bool[P, 2]."""
        own, other = self._pairs.T
        actual = self.own.judged.actual[own]
        return np.column_stack([self.own.predicted[own] == actual, self.other.predicted[other] == self._places[actual]])

    @property
    def image_count(self) -> int:
        return len(self._pairs)

    @property
    def only_counts(self) -> tuple[int, int]:
        """How many images only the first, and only the second, was judged on."""
        own, other = set(self.own.judged.digests), set(self.other.judged.digests)
        return len(own - other), len(other - own)

    def accuracies(self) -> tuple[float, float] | None:
        """Balanced over the classes, near duplicates count as one image, as in reports; None without images."""
        if not len(self._pairs):
            return None
        rows = self._pairs[:, 0]
        actual, groups = self.own.judged.actual[rows], self.own.judged.groups[rows]
        recalls = [_recalls(self._right[actual == number], groups[actual == number]) for number in np.unique(actual)]
        own, other = np.mean(recalls, axis=0).tolist()
        return _rounded(own), _rounded(other)

    def changed(self, *, better: bool) -> NDArray[np.intp]:
        """intp[M, 2]: the rows of images that only the first revision predicts correctly, or (worse) only the other one.

        Those that were, or are, most wrong come first.
        """
        chosen = (self._right[:, 0] != self._right[:, 1]) & (self._right[:, 0] == better)
        pairs = self._pairs[chosen]
        wrong = self.other.wrongness[pairs[:, 1]] if better else self.own.wrongness[pairs[:, 0]]
        return np.asarray(pairs[np.argsort(-wrong, kind="stable")])

    def describe(self, pair: Sequence[int], names: tuple[str, str]) -> dict[str, Any]:
        """A changed image; `names` are those of the revisions."""
        own, other = pair
        answers = (
            self.own.class_name(int(self.own.predicted[own])),
            self.other.class_name(int(self.other.predicted[other])),
        )
        return {
            "image": self.own.judged.digests[own],
            "actual": self.own.class_name(int(self.own.judged.actual[own])),
            "predicted": dict(zip(names, answers, strict=True)),
        }


def round_scores(scores: NDArray[np.float32]) -> list[float]:
    """Scores float32[C] with the decimals that predictions have."""
    return [round(score, SCORE_DECIMALS) for score in scores.tolist()]


def _recalls(right: NDArray[np.bool_], groups: NDArray[np.int32]) -> NDArray[np.float64]:
    """float64[2]: of bool[M, 2], the share of groups of near duplicates that each revision predicts correctly."""
    _, group, images = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(np.average(right, axis=0, weights=1.0 / images[group]))


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _rounded(value: float) -> float:
    return round(value, SCORE_DECIMALS)
