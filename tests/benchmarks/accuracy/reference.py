"""The reference for Ocelli's training: scikit-learn's logistic regression on the same features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.accuracy.figures import rejected, top_1
from tests.benchmarks.accuracy.splits import Rows, Split

STRENGTHS = (10, 100, 1000)
"""Values of C. The higher, the weaker the regularisation."""


@dataclass(frozen=True, kw_only=True)
class ReferenceFigures:
    """Parts of one."""

    top_1: float
    rejected_negatives: float | None


def measure_reference(features: NDArray[np.float32], labels: Rows, split: Split, *, negatives: bool) -> ReferenceFigures:
    """Centred features scaled by one number; of all C the one with the best top-1 on the evaluated pictures.

    With `negatives` these are one more class. An image is rejected where no other class reaches the threshold.
    """
    learned = np.concatenate([split.learned, split.learned_negatives]) if negatives else split.learned
    centred = (features - features[learned].mean(axis=0)).astype(np.float64)
    centred /= np.sqrt((centred[learned] ** 2).sum(axis=1).mean())
    # The solution is in the space that the learned features span, and its length is the same in every basis: so the answers
    # are those of all features, and are found in a tenth of the time.
    basis = np.linalg.svd(centred[learned], full_matrices=False)[2]
    projected = centred @ basis.T
    classes = int(labels.max()) + 1
    wanted = np.where(labels < 0, classes, labels)
    found = []
    for strength in STRENGTHS:
        scores = _fit(projected[learned], wanted[learned], strength, projected)[:, :classes]
        found.append(
            ReferenceFigures(
                top_1=top_1(scores[split.judged], labels[split.judged]),
                rejected_negatives=rejected(scores[split.judged_negatives]) if negatives else None,
            )
        )
    return max(found, key=lambda figures: figures.top_1)


def _fit(learned: NDArray[np.float64], labels: Rows, strength: float, features: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(learned, labels)
    scores: NDArray[np.float64] = fitted.predict_proba(features)
    return scores
