"""Examples as rows of numbers: groups of near duplicates, classes, folds. It must not know files, pixels or networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ocelli_training.dataset import Dataset, Example
from ocelli_training.fit import Examples, View, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.near_duplicates import group_near_duplicates


def find_groups(
    prints: NDArray[np.float16], features: NDArray[np.float32], images: Sequence[Example], learned: int
) -> NDArray[np.intp]:
    """For each image the row of its oldest near duplicate, intp[N], see `group_near_duplicates`.

    Args:
        prints: float16[N, 3072].
        features: float32[N, D], not normalised.
        images: N images: `learned` examples, then those of the test set.
    """
    sets = np.array([image.set_index for image in images], dtype=np.intp)
    # Test images come last, so that none of them changes the group of an example.
    oldest_first = sorted(range(len(images)), key=lambda row: (row >= learned, images[row].round, images[row].digest))
    return group_near_duplicates(prints, normalised_rows(features), sets, oldest_first)


def build_examples(
    dataset: Dataset,
    features: NDArray[np.float32],
    other_views: Mapping[View, NDArray[np.float32]],
    groups: NDArray[np.intp],
    seed: int,
) -> Examples:
    """The examples of a dataset as training data. `groups` is intp[N], see `find_groups`."""
    sets = np.array([example.set_index for example in dataset.examples], dtype=np.intp)
    membership = sets[:, np.newaxis] == np.arange(len(dataset.class_names))
    digests = [example.digest for example in dataset.examples]
    return Examples(
        features=features,
        other_views=dict(other_views),
        membership=membership,
        folds=assign_folds(digests, groups, sets, seed),
    )
