"""Folds of the cross-validation: images that are evaluated together, by heads that were trained without them.

The fold of a group of near duplicates depends only on the group's oldest image and the seed, so a new image moves no other
image, unless it is a near duplicate. The exceptions are sets that could not be evaluated otherwise: sets of one group, and sets
whose few groups have the same fold by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 5


def assign_folds(digests: Sequence[str], groups: NDArray[np.intp], sets: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """A fold for each image, intp[N]; every set of two or more images has at least two folds.

    Args:
        digests: SHA-256 (hex) of each image.
        groups: intp[N], for each image the row of its group's oldest image.
        sets: intp[N], the class or the negatives that an image belongs to.
        seed: another seed gives other folds.
    """
    units = _split_sets_of_one_group(groups, sets)
    hashes = {oldest: _hash(digests[oldest], seed) for oldest in np.unique(units).tolist()}
    folds = {oldest: value % FOLDS for oldest, value in hashes.items()}
    for index in np.unique(sets):
        own = np.unique(units[sets == index]).tolist()
        if len(own) > 1 and len({folds[oldest] for oldest in own}) == 1:
            moved = max(own, key=hashes.__getitem__)
            folds[moved] = (folds[moved] + 1) % FOLDS
    return np.array([folds[oldest] for oldest in units.tolist()], dtype=np.intp)


def _split_sets_of_one_group(groups: NDArray[np.intp], sets: NDArray[np.intp]) -> NDArray[np.intp]:
    """The groups intp[N], where each image of a set that is one group becomes its own group.

    Otherwise such a class would be evaluated by heads that were trained without it.
    """
    units = groups.copy()
    for index in np.unique(sets):
        members = np.flatnonzero(sets == index)
        if len(np.unique(groups[members])) == 1:
            units[members] = members
    return units


def _hash(digest: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest}".encode()).digest()[:8], "big")
