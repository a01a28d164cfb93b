"""Near duplicates: one picture in other bytes. A file that was saved again or made smaller, the pictures of a burst.

Two images are near duplicates where the network finds nearly the same in both, or their brightness is nearly the same cell by
cell, and where one, moved by up to a tenth, then fits on the other. Images of one fixed camera fit on each other as well, but
for the spot where something else stands: where nearly all of the difference lies in few cells, they are not near duplicates.

Groups are formed around their oldest image: an image joins the nearest group whose oldest image it is a near duplicate of. A
chain of pictures, each of which is like the next, does not become one group by that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GRID = 32
FINGERPRINT_CELLS = GRID * GRID
_COARSE = 8
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_BLOCK_ROWS = 256

# Measured with features of EfficientNetLite0, normalised, on 72 photographs of three sets. Moved by 3 to 6 % features are 0.17
# to 0.39 apart; turned by 2 degrees 0.19 to 0.41; different photographs 0.40 at least, different handwritten digits 0.24.
_SAME_FEATURES = 0.02
_ALIKE_FEATURES = 0.22
_SIMILAR_FEATURES = 0.32
_ALIKE_FIT = 0.7
_SIMILAR_FIT = 0.9
# Saved again at JPEG quality 50 and half the size they are 0.35 to 0.83 apart, but fit by 0.995 at least.
_SAME_FIT = 0.995
_SAME_COARSE_FIT = 0.99
_SAME_DIFFERENCE = 6.0
"""Root mean square of what remains, of 255."""
# Of pictures that were moved or saved again, a twentieth of the cells has a quarter to four fifths of the squared difference;
# of pictures with another small object before the same background nine tenths and more.
_CELLS_SHARE = 0.05
_CONCENTRATION = 0.8
_LARGEST_MOVE = 3
"""In cells."""
_CANDIDATES_LIMIT = 8
_PROJECTED = 128
"""Numbers that are compared first: distances of random projections are right to a tenth, and cost a tenth."""
_PROJECTION_MARGIN = 1.35


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brightness, 0 to 255, in `GRID` x `GRID` cells: float32[N, 1024] of images uint8[N, height, width, 3]."""
    brightness = images.astype(np.float32) @ _BRIGHTNESS
    rows = np.add.reduceat(brightness, _edges(images.shape[1]), axis=1)
    cells = np.add.reduceat(rows, _edges(images.shape[2]), axis=2)
    # Cells may differ by a row or column of pixels in size.
    heights = np.diff([*_edges(images.shape[1]), images.shape[1]])
    widths = np.diff([*_edges(images.shape[2]), images.shape[2]])
    means: NDArray[np.float32] = (cells / np.outer(heights, widths)).astype(np.float32).reshape(len(images), FINGERPRINT_CELLS)
    return means


def group_near_duplicates(
    prints: NDArray[np.float32],
    features: NDArray[np.float32],
    sets: NDArray[np.intp],
    oldest_first: Sequence[int],
) -> NDArray[np.intp]:
    """For each image the row of its group's oldest image, intp[N]; its own where it has no near duplicate.

    Args:
        prints: float32[N, 1024], see `fingerprints`.
        features: float32[N, D], normalised: each row of length 1.
        sets: intp[N], the class or the negatives that an image belongs to. Mirrored pictures are near duplicates within one
            set only: a left arrow is no right arrow.
        oldest_first: the rows in the order of their age.
    """
    order = np.asarray(oldest_first, dtype=np.intp)
    groups = np.arange(len(prints), dtype=np.intp)
    projected, coarse = _project(features)[order], _coarse(prints)[order]
    for start in range(0, len(order), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        # Only older ones can be a group's oldest.
        older = slice(0, min(start + _BLOCK_ROWS, len(order)))
        distances = _squared_distances(projected[block], projected[older])
        near = distances <= (_SIMILAR_FEATURES * _PROJECTION_MARGIN) ** 2
        near |= coarse[block] @ coarse[older].T >= _SAME_COARSE_FIT
        for offset, candidates in enumerate(near):
            position = start + offset
            row = order[position]
            possible = np.flatnonzero(candidates[:position])
            possible = possible[groups[order[possible]] == order[possible]]
            # The nearest first, and few: thousands of pictures of one fixed camera are all candidates of each other.
            nearest = possible[np.argsort(distances[offset, possible], kind="stable")[:_CANDIDATES_LIMIT]]
            for candidate in order[nearest]:
                same_set = bool(sets[row] == sets[candidate])
                pair = [row, candidate]
                if _are_near_duplicates(prints[pair], features[pair], same_set=same_set):
                    groups[row] = candidate
                    break
    return groups


def _are_near_duplicates(prints: NDArray[np.float32], features: NDArray[np.float32], *, same_set: bool) -> bool:
    """Of two images: prints float32[2, 1024], features float32[2, D]."""
    distance = float(np.linalg.norm(features[0].astype(np.float64) - features[1]))
    if distance <= _SAME_FEATURES:
        return True
    one, other = prints.reshape(2, GRID, GRID).astype(np.float64)
    if _fits(one, other, distance):
        return True
    return same_set and distance <= _SIMILAR_FEATURES and _fits(one, other[:, ::-1], distance)


def _fits(one: NDArray[np.float64], other: NDArray[np.float64], distance: float) -> bool:
    fit, remaining = _best_fit(one, other)
    squares = np.sort((remaining**2).ravel())[::-1]
    total = float(squares.sum())
    if fit >= _SAME_FIT and total <= squares.size * _SAME_DIFFERENCE**2 and squares[0] <= (4 * _SAME_DIFFERENCE) ** 2:
        return True
    few = max(1, int(_CELLS_SHARE * squares.size))
    if float(squares[:few].sum()) > _CONCENTRATION * total:
        return False
    least = _ALIKE_FIT if distance <= _ALIKE_FEATURES else _SIMILAR_FIT
    return distance <= _SIMILAR_FEATURES and fit >= least


def _best_fit(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The highest correlation over small moves, and what of `one` remains there beyond `other`, brightness adjusted."""
    best, remaining = -2.0, one
    for down in range(-_LARGEST_MOVE, _LARGEST_MOVE + 1):
        for right in range(-_LARGEST_MOVE, _LARGEST_MOVE + 1):
            part = one[max(0, down) : GRID + min(0, down), max(0, right) : GRID + min(0, right)]
            on = other[max(0, -down) : GRID + min(0, -down), max(0, -right) : GRID + min(0, -right)]
            part, on = part - part.mean(), on - on.mean()
            product, square = float((part * on).sum()), float((on * on).sum())
            fit = product / max(np.sqrt(float((part * part).sum()) * square), 1e-6)
            if fit > best:
                best, remaining = fit, part - product / max(square, 1e-6) * on
    return best, remaining


def _project(features: NDArray[np.float32]) -> NDArray[np.float32]:
    if features.shape[1] <= _PROJECTED:
        return features
    random = np.random.default_rng(0).normal(size=(features.shape[1], _PROJECTED)) / np.sqrt(_PROJECTED)
    projected: NDArray[np.float32] = features @ random.astype(np.float32)
    return projected


def _coarse(prints: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[N, 64]: coarse fingerprints of mean 0 and length 1, whose product is their correlation; 0 for plain images."""
    cells = prints.reshape(-1, _COARSE, GRID // _COARSE, _COARSE, GRID // _COARSE).mean(axis=(2, 4)).reshape(len(prints), -1)
    cells = cells - cells.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(cells, axis=1, keepdims=True)
    return np.where(lengths > 1, cells / np.maximum(lengths, 1), 0).astype(np.float32)


def _squared_distances(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = (
        (rows * rows).sum(axis=1)[:, np.newaxis] + (others * others).sum(axis=1) - 2 * (rows @ others.T)
    )
    return squares


def _edges(length: int) -> list[int]:
    return [index * length // GRID for index in range(GRID)]
