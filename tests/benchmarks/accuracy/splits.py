"""Which pictures of a set are for training, and which for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.accuracy.picture_sets import NEGATIVE

LEAST_JUDGED = 8
"""Of a class: with fewer, a figure would mean little."""
MOST_JUDGED = 40
"""Of a class."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Rows of a set."""

    learned: Rows
    judged: Rows
    learned_negatives: Rows
    """Empty where the set has too few negatives."""
    judged_negatives: Rows

    @property
    def has_negatives(self) -> bool:
        return len(self.learned_negatives) > 0


def split_set(labels: Rows, count: int, seed: int) -> Split | None:
    """Learn from `count` pictures of each class, and from as many negatives; None where too few of a class would remain.

    The same seed orders the pictures in the same way for every count: who learns from more learns from the same ones, too.
    """
    random = np.random.default_rng(seed)
    learned, judged = [], []
    for label in range(int(labels.max()) + 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        if len(rows) < count + LEAST_JUDGED:
            return None
        learned.append(rows[:count])
        judged.append(rows[count : count + MOST_JUDGED])
    negatives = random.permutation(np.flatnonzero(labels == NEGATIVE))
    if len(negatives) < count + LEAST_JUDGED:
        negatives = negatives[:0]
    return Split(
        learned=np.concatenate(learned),
        judged=np.concatenate(judged),
        learned_negatives=negatives[:count],
        judged_negatives=negatives[count:],
    )
