"""Near duplicates: images that are the same picture in other bytes, such as one that was saved again or made smaller.

An image's fingerprint is its brightness in 16x16 cells. Two images are near duplicates if these differ, as root mean square,
by at most `DIFFERENCE_LIMIT` of 255: pictures saved again at JPEG quality 50 and half their size differ by 0.7 (at most 1.2),
the most alike of the different handwritten digits by 17, of the different photographs by 40.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIFFERENCE_LIMIT = 2.0
GRID = 16
FINGERPRINT_CELLS = GRID * GRID
_BLOCK_ROWS = 256
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[N, 256], brightness 0 to 255, of images uint8[N, height, width, 3], each side at least 16."""
    brightness = images.astype(np.float32) @ _BRIGHTNESS
    rows = np.add.reduceat(brightness, _edges(images.shape[1]), axis=1)
    cells = np.add.reduceat(rows, _edges(images.shape[2]), axis=2)
    # Cells may differ by a row or column of pixels in size.
    heights = np.diff([*_edges(images.shape[1]), images.shape[1]])
    widths = np.diff([*_edges(images.shape[2]), images.shape[2]])
    means: NDArray[np.float32] = (cells / np.outer(heights, widths)).astype(np.float32).reshape(len(images), FINGERPRINT_CELLS)
    return means


def have_near_duplicate(
    prints: NDArray[np.float32], candidates: NDArray[np.float32], *, least_matches: int = 1
) -> NDArray[np.bool_]:
    """bool[N]: for each fingerprint whether so many candidates are near duplicates of it (2 where it is a candidate itself)."""
    found = np.zeros(len(prints), dtype=np.bool_)
    limit = FINGERPRINT_CELLS * DIFFERENCE_LIMIT**2
    # |a - b|² = |a|² + |b|² - 2ab; in float64, because the squares are a million times the difference that matters.
    others = candidates.astype(np.float64)
    other_squares = (others**2).sum(axis=1)
    for start in range(0, len(prints) if len(others) else 0, _BLOCK_ROWS):
        block = prints[start : start + _BLOCK_ROWS].astype(np.float64)
        distances = (block**2).sum(axis=1)[:, np.newaxis] + other_squares - 2 * (block @ others.T)
        found[start : start + _BLOCK_ROWS] = (distances <= limit).sum(axis=1) >= least_matches
    return found


def _edges(length: int) -> list[int]:
    return [index * length // GRID for index in range(GRID)]
