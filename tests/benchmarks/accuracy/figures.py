"""Figures of scores. All are parts of one, from 0 to 1; scores are [N, classes], labels [N]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import DECISION_THRESHOLD
from tests.benchmarks.accuracy.splits import Rows

Scores = NDArray[np.floating[Any]]


def top_1(scores: Scores, labels: Rows) -> float:
    """How many have the highest score for their own class."""
    return float((scores.argmax(axis=1) == labels).mean())


def macro_f1(scores: Scores, labels: Rows) -> float:
    """The mean over the classes of F1, where an image counts as of every class that reaches the threshold."""
    f1 = []
    for index in range(scores.shape[1]):
        answered, right = scores[:, index] >= DECISION_THRESHOLD, labels == index
        f1.append(2 * (answered & right).sum() / max(1, answered.sum() + right.sum()))
    return float(np.mean(f1))


def rejected(scores: Scores) -> float:
    """How many have no class that reaches the threshold."""
    return float((scores.max(axis=1) < DECISION_THRESHOLD).mean())


def lost(scores: Scores, before: Scores, labels: Rows) -> float:
    """How many of the correct answers that reached the threshold `before` no longer reach it."""
    own = np.arange(len(labels)), labels
    right = (before.argmax(axis=1) == labels) & (before[own] >= DECISION_THRESHOLD)
    return float((scores[own][right] < DECISION_THRESHOLD).mean()) if right.any() else 0.0
