"""Suspicious examples: images that probably have the wrong class, and images that are unlike those of every class, from heads
that were trained without them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ocelli_training.dataset import DISTINCT_MINIMUM, Dataset
from ocelli_training.example_rows import build_examples
from ocelli_training.fit import Examples, Fit, fit_heads
from ocelli_training.label_errors import LabelErrors, Suspect, class_probabilities, find_label_errors, find_outliers


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Examples of one dataset, by their rows."""

    label_errors: LabelErrors
    outliers: Sequence[int]
    """Unlike those of every class, the most unlike first."""


def find_suspicious(fit: Fit, examples: Examples, dataset: Dataset) -> Suspicion:
    """What the heads of a training, which cross-validation has scored, find suspicious."""
    return Suspicion(
        label_errors=find_label_errors(
            class_probabilities(fit.unrejected_scores, has_negatives=not examples.membership.any(axis=1).all()),
            np.array([example.set_index for example in dataset.examples], dtype=np.intp),
        ),
        outliers=find_outliers(fit.scores, fit.unrejected_scores, examples.membership),
    )


def search_suspicious(
    dataset: Dataset, features: NDArray[np.float32], groups: NDArray[np.intp], seed: int, *, threads: int
) -> Suspicion | None:
    """As `find_suspicious`, by heads that are trained for it, among the sets with enough images; None if too few sets have.

    Args:
        dataset: need not be sufficient for a training.
        features: float32[N, D], of its examples.
        groups: intp[N], see `example_rows.find_groups`.
    """
    kept = [index for index, report in enumerate(dataset.reports) if report.distinct >= DISTINCT_MINIMUM]
    class_count = sum(index < len(dataset.class_names) for index in kept)
    if len(kept) < 2 or class_count == 0:
        return None
    places = {index: place for place, index in enumerate(kept)}
    rows = np.array([row for row, example in enumerate(dataset.examples) if example.set_index in places], dtype=np.intp)
    part = Dataset(
        class_names=tuple(dataset.class_names[index] for index in kept[:class_count]),
        examples=tuple(
            replace(dataset.examples[row], set_index=places[dataset.examples[row].set_index]) for row in rows.tolist()
        ),
        reports=tuple(dataset.reports[index] for index in kept),
    )
    # Groups by the rows of the part: the oldest image of a group may not be in it.
    _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
    examples = build_examples(part, features[rows], {}, first[inverse], seed)
    found = find_suspicious(fit_heads(examples, threads=threads), examples, part)
    suspects = tuple(_placed(suspect, rows, kept) for suspect in found.label_errors.suspects)
    return Suspicion(
        label_errors=replace(found.label_errors, suspects=suspects),
        outliers=[int(rows[row]) for row in found.outliers],
    )


def _placed(suspect: Suspect, rows: NDArray[np.intp], kept: Sequence[int]) -> Suspect:
    return replace(suspect, row=int(rows[suspect.row]), suggested=kept[suspect.suggested])
