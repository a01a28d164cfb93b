"""Near duplicates: images that are the same picture in other bytes, such as one that was saved again or made smaller.

An image's fingerprint are 64 bits: whether each of 8x8 places is brighter than its right neighbour (the "difference hash" of
N. Krawetz). Two images are near duplicates if at most `DIFFERENT_BITS` of them differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIFFERENT_BITS = 3
_GRID = 8
_BANDS = DIFFERENT_BITS + 1
_BLOCK_ROWS = 64
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64[N] of images uint8[N, height, width, 3], each side at least 9."""
    brightness = images.astype(np.float32) @ _BRIGHTNESS
    rows = np.add.reduceat(brightness, _edges(images.shape[1], _GRID), axis=1)
    cells = np.add.reduceat(rows, _edges(images.shape[2], _GRID + 1), axis=2)
    # Cells may differ by a row or column of pixels in size: means, not sums, are compared.
    cells = cells / np.diff([*_edges(images.shape[2], _GRID + 1), images.shape[2]])
    bits = cells[:, :, :-1] > cells[:, :, 1:]
    return np.packbits(bits.reshape(len(images), -1), axis=1).view(np.uint64)[:, 0]


def have_near_duplicate(
    prints: NDArray[np.uint64], candidates: NDArray[np.uint64], *, least_matches: int = 1
) -> NDArray[np.bool_]:
    """bool[N]: for each fingerprint whether so many candidates are near duplicates of it (2 where it is a candidate itself)."""
    found = np.zeros(len(prints), dtype=np.bool_)
    # Of four bands of bits at least one is the same where only three bits differ: only such pairs are compared.
    for band in range(_BANDS):
        shift = np.uint64(band * 64 // _BANDS)
        mask = np.uint64((1 << (64 // _BANDS)) - 1)
        keys, candidate_keys = (prints >> shift) & mask, (candidates >> shift) & mask
        order = np.argsort(candidate_keys, kind="stable")
        sorted_keys = candidate_keys[order]
        for key in np.unique(keys[~found]):
            same = candidates[order[slice(*np.searchsorted(sorted_keys, [key, key + np.uint64(1)]))]]
            rows = np.flatnonzero(~found & (keys == key))
            for start in range(0, len(rows) if len(same) else 0, _BLOCK_ROWS):
                block = rows[start : start + _BLOCK_ROWS]
                alike = np.bitwise_count(prints[block, np.newaxis] ^ same) <= DIFFERENT_BITS
                found[block] = alike.sum(axis=1) >= least_matches
    return found


def _edges(length: int, parts: int) -> list[int]:
    return [index * length // parts for index in range(parts)]
