"""Folds of the cross-validation: which images are judged together by heads that saw none of them.

A fold belongs to a group of near duplicates and follows from the group's oldest image and the seed alone, so that adding an
image that is no near copy of another moves no other image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 5


def assign_folds(digests: Sequence[str], groups: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """A fold for each image, intp[N].

    Args:
        digests: SHA-256 (hex) of each image.
        groups: intp[N], for each image the row of its group's oldest image.
        seed: another seed gives other folds.
    """
    folds = np.empty(len(digests), dtype=np.intp)
    for row, oldest in enumerate(groups):
        content = hashlib.sha256(f"{seed}:{digests[oldest]}".encode()).digest()
        folds[row] = int.from_bytes(content[:8], "big") % FOLDS
    return folds


def split_sets_of_one_group(groups: NDArray[np.intp], sets: NDArray[np.intp]) -> NDArray[np.intp]:
    """Groups intp[N] of which every set (intp[N]: the class or the negatives) has two at least.

    A class whose images are all near duplicates of each other would be judged by heads that know nothing of it: each of its
    images counts as a group.
    """
    split = groups.copy()
    for index in np.unique(sets):
        members = np.flatnonzero(sets == index)
        if len(np.unique(groups[members])) == 1:
            split[members] = members
    return split
