"""Near duplicates: the same picture in different bytes, such as a file that was saved again or scaled, or pictures of a burst.

Two images are near duplicates if their features, or their colours cell by cell, are nearly the same, and if one of them,
shifted by up to a tenth, matches the other. Images of a fixed camera match as well, but where their objects differ, they have
colours that the other image has nowhere near: these are not near duplicates. The difference that a shift, a small rotation or
another compression leaves is within the colours of neighbouring cells.

A group forms around its oldest image: an image joins the nearest group whose oldest image is a near duplicate of it. So a chain
of pictures, each similar to the next, does not become one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 32
FINGERPRINT_NUMBERS = 3 * GRID * GRID
_COARSE = 8
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_BLOCK_ROWS = 256

# Distances of normalised EfficientNetLite0 features, measured on 72 photographs of three sets: shifted by 3 to 6 %, 0.17 to
# 0.39; rotated by 2 degrees, 0.19 to 0.41; different photographs, at least 0.40; different handwritten digits, at least 0.24.
_SAME_FEATURES = 0.02
_ALIKE_FEATURES = 0.22
_SIMILAR_FEATURES = 0.32
_ALIKE_FIT = 0.7
_SIMILAR_FIT = 0.9
# Saved again with JPEG quality 20 to 95, or scaled to a quarter of the width, the distance is 0.02 to 0.96, but the brightness
# correlates by at least 0.993, and colours differ by 0.1 to 9 of 255 (root mean square).
_SAME_FIT = 0.99
_SAME_COARSE_FIT = 0.99
_SAME_DIFFERENCE = 9.0
# Share of the squared difference that is outside the colours of neighbouring cells: 1 to 6 % for pictures shifted by up to 8 %
# or rotated by 2 degrees; 0 to 10 % for pictures saved again; mostly 15 to 60 % for another object in front of the same
# background, with a side of 0.1 to 0.6 of the picture's.
_UNEXPLAINED = 0.1
_NOISE = 4.0
"""Of 255: what compression adds to the colour of a cell."""
_LARGEST_MOVE = 3
"""In cells."""
_MOVES = 2 * _LARGEST_MOVE + 1
"""Down, and to the right."""
_CANDIDATES_LIMIT = 16
_PROJECTED = 128
"""Dimensions of a random projection that is compared first: its distances are accurate to a tenth, at a tenth of the cost."""
_PROJECTION_MARGIN = 1.35


def fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Red, green and blue, 0 to 255, in `GRID` x `GRID` cells: float16[N, 3072] of images uint8[N, height, width, 3]."""
    prints = np.empty((len(images), 3, GRID, GRID), dtype=np.float16)
    top, left = _edges(images.shape[1]), _edges(images.shape[2])
    # Cells may differ in size by a row or column of pixels; if the image is smaller than the grid, cells repeat a pixel.
    heights, widths = np.diff([*top, images.shape[1]]), np.diff([*left, images.shape[2]])
    pixels = np.maximum(np.outer(heights, widths), 1)
    for image, cells in zip(images, prints, strict=True):
        sums = np.add.reduceat(np.add.reduceat(image, top, axis=0, dtype=np.int32), left, axis=1)
        cells[:] = sums.transpose(2, 0, 1) / pixels
    return prints.reshape(len(images), FINGERPRINT_NUMBERS)


def group_near_duplicates(
    prints: NDArray[np.float16],
    features: NDArray[np.float32],
    sets: NDArray[np.intp],
    oldest_first: Sequence[int],
) -> NDArray[np.intp]:
    """For each image the row of its group's oldest image, intp[N]; its own where it has no near duplicate.

    Args:
        prints: float16[N, 3072], see `fingerprints`.
        features: float32[N, D], normalised: each row of length 1.
        sets: intp[N], the class or the negatives that an image belongs to. Mirrored pictures are near duplicates within one
            set only: a left arrow is not a right arrow.
        oldest_first: the rows in the order of their age.
    """
    order = np.asarray(oldest_first, dtype=np.intp)
    groups = np.arange(len(prints), dtype=np.intp)
    projected, coarse = _project(features)[order], _coarse(prints)[order]
    for start in range(0, len(order), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        # Only an older image can be the oldest of a group.
        older = slice(0, min(start + _BLOCK_ROWS, len(order)))
        distances = _squared_distances(projected[block], projected[older])
        near = distances <= (_SIMILAR_FEATURES * _PROJECTION_MARGIN) ** 2
        near |= coarse[block] @ coarse[older].T >= _SAME_COARSE_FIT
        for offset, candidates in enumerate(near):
            position = start + offset
            row = order[position]
            possible = np.flatnonzero(candidates[:position])
            possible = possible[groups[order[possible]] == order[possible]]
            if not len(possible):
                continue
            # Only a few, the nearest first: thousands of pictures of a fixed camera are all candidates of each other.
            nearest = order[possible[np.argsort(distances[offset, possible], kind="stable")[:_CANDIDATES_LIMIT]]]
            apart = np.linalg.norm(features[nearest].astype(np.float64) - features[row], axis=1)
            found = _find_near_duplicate(prints[row], prints[nearest], apart, sets[nearest] == sets[row])
            if found is not None:
                groups[row] = nearest[found]
    return groups


def _find_near_duplicate(
    fingerprint: NDArray[np.float16],
    others: NDArray[np.float16],
    distances: NDArray[np.float64],
    same_set: NDArray[np.bool_],
) -> int | None:
    """The first of M others that an image is a near duplicate of.

    Args:
        fingerprint: float16[3072], of the image.
        others: float16[M, 3072].
        distances: float64[M], of the features of each from the image's.
        same_set: bool[M], whether it belongs to the image's set.
    """
    one = fingerprint.reshape(3, GRID, GRID).astype(np.float32)
    cells = others.reshape(-1, 3, GRID, GRID).astype(np.float32)
    straight = _Matches.find(one, cells)
    # Only where it is needed: few sets contain mirrored pictures.
    mirrored = _Matches.find(one[..., ::-1], cells) if (same_set & (distances <= _SIMILAR_FEATURES)).any() else None
    for index, distance in enumerate(distances):
        if distance <= _SAME_FEATURES:
            return index
        # Not mirrored if the plain picture matches better: many backgrounds are symmetric.
        matches = straight
        if mirrored is not None and same_set[index] and mirrored.fits[index] > straight.fits[index]:
            matches = mirrored
        if matches.are_near_duplicates(index, float(distance)):
            return index
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Matches:
    """The best match of an image with others, by shifting it."""

    one: NDArray[np.float32]
    """float32[3, GRID, GRID]."""
    others: NDArray[np.float32]
    """float32[M, 3, GRID, GRID]."""
    moves: NDArray[np.intp]
    """intp[M]: the shift down and to the right, as one number."""
    fits: NDArray[np.float32]
    """float32[M]: the correlation of the brightness at this shift."""

    @classmethod
    def find(cls, one: NDArray[np.float32], others: NDArray[np.float32]) -> _Matches:
        windows = _windows(_brightness(one))
        inside, counts = _INSIDE, _INSIDE.sum(axis=1, keepdims=True)
        other = _brightness(others).reshape(len(others), -1)
        # Sums over the overlapping cells: float32[moves, M], or float32[moves, 1] of `one` alone.
        sums, squares = windows.sum(axis=1, keepdims=True), (windows * windows).sum(axis=1, keepdims=True)
        other_sums, other_squares = inside @ other.T, inside @ (other * other).T
        products = windows @ other.T - sums * other_sums / counts
        spread = (squares - sums * sums / counts) * (other_squares - other_sums * other_sums / counts)
        fits = products / np.sqrt(np.maximum(spread, 1e-6))
        best = fits.argmax(axis=0)
        return cls(one=one, others=others, moves=best, fits=fits[best, np.arange(len(others))])

    def are_near_duplicates(self, index: int, distance: float) -> bool:
        """Whether the image is a near duplicate of this other; `distance` is that of their features."""
        if self.fits[index] < _ALIKE_FIT:
            return False
        part, on = self._on_each_other(index)
        same = self.fits[index] >= _SAME_FIT and ((part - on) ** 2).mean() <= _SAME_DIFFERENCE**2
        if same and _unexplained(part, on) <= _UNEXPLAINED:
            return True
        if distance > _SIMILAR_FEATURES:
            return False
        part, on = part - part.mean(axis=(1, 2), keepdims=True), on - on.mean(axis=(1, 2), keepdims=True)
        length, other_length = float(np.sqrt((part * part).sum())), float(np.sqrt((on * on).sum()))
        fit = float((part * on).sum()) / max(length * other_length, 1e-6)
        if fit < (_ALIKE_FIT if distance <= _ALIKE_FEATURES else _SIMILAR_FIT):
            return False
        # Exposures differ: scale the contrast of the other image to that of this one.
        return _unexplained(part, on * np.float32(length / max(other_length, 1e-6))) <= _UNEXPLAINED

    def _on_each_other(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The overlapping cells of both images: float32[3, height, width] each."""
        down, right = (int(step) - _LARGEST_MOVE for step in divmod(int(self.moves[index]), _MOVES))
        part = self.one[:, max(0, down) : GRID + min(0, down), max(0, right) : GRID + min(0, right)]
        on = self.others[index][:, max(0, -down) : GRID + min(0, -down), max(0, -right) : GRID + min(0, -right)]
        return part, on


def _unexplained(cells: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The share of the squared difference of two pictures float32[3, height, width] that a small shift does not explain.

    After a shift by less than a cell, each cell's colour is between the colours of the other picture's cells around it.
    """
    beyond, difference = 0.0, float(((cells - others) ** 2).sum())
    for one, other in ((cells, others), (others, cells)):
        highest, lowest = _extremes(other, np.maximum), _extremes(other, np.minimum)
        outside = np.maximum(np.maximum(one - highest, lowest - one) - _NOISE, 0)
        beyond += float((outside * outside).sum())
    return beyond / max(2 * difference, 1e-6)


def _extremes(cells: NDArray[np.float32], of_two: np.ufunc) -> NDArray[np.float32]:
    """The highest or lowest number of each cell float32[3, height, width] and the eight around it."""
    # In place: this runs for every candidate.
    columns = cells.copy()
    of_two(columns[:, 1:], cells[:, :-1], out=columns[:, 1:])
    of_two(columns[:, :-1], cells[:, 1:], out=columns[:, :-1])
    found = columns.copy()
    of_two(found[..., 1:], columns[..., :-1], out=found[..., 1:])
    of_two(found[..., :-1], columns[..., 1:], out=found[..., :-1])
    return found


def _windows(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[moves, GRID * GRID] of cells float32[GRID, GRID]: all shifts, with 0 outside the picture."""
    padded = np.pad(cells, _LARGEST_MOVE)
    return np.lib.stride_tricks.sliding_window_view(padded, (GRID, GRID)).reshape(_MOVES * _MOVES, GRID * GRID)


_INSIDE = _windows(np.ones((GRID, GRID), dtype=np.float32))
"""float32[moves, GRID * GRID]: 1 inside the picture."""


def _brightness(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of cells float32[…, 3, height, width], minus the mean: sums of squares would otherwise lose precision."""
    brightness: NDArray[np.float32] = np.tensordot(colours, _BRIGHTNESS, axes=(-3, 0))
    brightness -= brightness.mean(axis=(-2, -1), keepdims=True)
    return brightness


def _project(features: NDArray[np.float32]) -> NDArray[np.float32]:
    if features.shape[1] <= _PROJECTED:
        return features
    random = np.random.default_rng(0).normal(size=(features.shape[1], _PROJECTED)) / np.sqrt(_PROJECTED)
    projected: NDArray[np.float32] = features @ random.astype(np.float32)
    return projected


def _coarse(prints: NDArray[np.float16]) -> NDArray[np.float32]:
    """float32[N, 64]: coarse brightness of mean 0 and length 1, whose product is its correlation; 0 for plain images."""
    coarse = np.empty((len(prints), _COARSE * _COARSE), dtype=np.float32)
    for start in range(0, len(prints), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        brightness = _brightness(prints[block].reshape(-1, 3, GRID, GRID).astype(np.float32))
        cells = brightness.reshape(-1, _COARSE, GRID // _COARSE, _COARSE, GRID // _COARSE).mean(axis=(2, 4))
        coarse[block] = cells.reshape(len(cells), -1)
    lengths = np.linalg.norm(coarse, axis=1, keepdims=True)
    return np.where(lengths > 1, coarse / np.maximum(lengths, 1), 0).astype(np.float32)


def _squared_distances(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = (
        (rows * rows).sum(axis=1)[:, np.newaxis] + (others * others).sum(axis=1) - 2 * (rows @ others.T)
    )
    return squares


def _edges(length: int) -> list[int]:
    return [index * length // GRID for index in range(GRID)]
