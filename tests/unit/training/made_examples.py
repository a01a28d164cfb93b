"""Features around one centre a class, as a network gives them for images that are alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocelli_training.fit import Examples, View
from ocelli_training.folds import FOLDS

Features = NDArray[np.float32]


def make_features(counts: list[int], *, distance: float = 6.0, dimensions: int = 20, seed: int = 0) -> Features:
    """Rows around one centre for each count, in order; centres are `distance` deviations from the middle."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(np.random.default_rng(99).normal(size=(dimensions, dimensions)))[0][: len(counts)] * distance
    return np.concatenate(
        [centre + random.normal(size=(count, dimensions)) for centre, count in zip(centres, counts, strict=True)]
    ).astype(np.float32)


def make_membership(counts: list[int], *, negatives: int = 0) -> NDArray[np.bool_]:
    """bool[N, C]: `counts` images of each class, in order, then the negatives."""
    membership = np.zeros((sum(counts) + negatives, len(counts)), dtype=np.bool_)
    membership[np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts)] = True
    return membership


def make_folds(count: int, seed: int = 0) -> NDArray[np.intp]:
    # A seed that no features have: equal seeds would draw folds that correlate with the features.
    return np.random.default_rng(1_000_000 + seed).integers(0, FOLDS, count)


def make_examples(
    counts: list[int],
    *,
    negatives: int = 0,
    distance: float = 6.0,
    dimensions: int = 20,
    seed: int = 0,
    fold_seed: int = 0,
    views: tuple[View, ...] = (),
) -> Examples:
    """`counts` images of each class, then the negatives. Other views are like other images of the same class."""
    every = [*counts, negatives] if negatives else counts
    return Examples(
        features=make_features(every, distance=distance, dimensions=dimensions, seed=seed),
        other_views={
            view: make_features(every, distance=distance, dimensions=dimensions, seed=seed + 1000 * (1 + number))
            for number, view in enumerate(views)
        },
        membership=make_membership(counts, negatives=negatives),
        folds=make_folds(sum(every), fold_seed),
    )


def first_classes(examples: Examples) -> NDArray[np.intp]:
    """intp[N]: each image's first class, or C for a negative."""
    membership = examples.membership
    return np.where(membership.any(axis=1), membership.argmax(axis=1), membership.shape[1])
