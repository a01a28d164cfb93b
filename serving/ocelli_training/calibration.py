"""Calibration: turns margins of unseen images into scores whose best threshold is 0.5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEWTON_STEPS = 100
_TOLERANCE = 1e-9
_LEAST_SLOPE = 0.05
"""For margins with standard deviation 1. Classes that cannot be separated would get a slope of 0 or less: one score for all
images, or a reversed order by chance."""
_OFFSET_PRIOR = 10.0
"""How strongly offsets are drawn to their mean; an image near the border weighs at most 0.25. 20 images say little."""
# Blocks of classes limit memory: 50,000 images and 500 classes have 25 million margins.
_CLASSES_AT_A_TIME = 32


def calibrate(margins: NDArray[np.float64], membership: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and offset float32[C] from margins float64[M, C] of images that the heads did not see.

    Platt scaling (1999) with one slope for all classes: separate slopes, each from few images, would change which class of an
    image has the highest score, and made predictions worse. Each class has its own offset, drawn to the mean of all offsets the
    more the fewer images there are. Then each is moved so that the best threshold of its class is 0.5.
    """
    slope, offset = _platt(margins, membership)
    for index in np.flatnonzero(membership.any(axis=0) & ~membership.all(axis=0)):
        offset[index] -= _best_threshold(slope * margins[:, index] + offset[index])
    return np.full(len(offset), slope, dtype=np.float32), offset.astype(np.float32)


def _platt(margins: NDArray[np.float64], membership: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """The slope and the offsets float64[C] of the least cross-entropy, by Newton's method with step halving.

    The targets are Platt's, so few separable images do not lead to certainty. The Hessian is approximated by an arrowhead
    matrix: one row for the slope, and a diagonal for the offsets.
    """
    spread = max(float(margins.std()), 1e-6)
    positives, negatives = membership.sum(axis=0), (~membership).sum(axis=0)
    problem = _Platt(
        margins=margins,
        spread=spread,
        membership=membership,
        of_class=(positives + 1) / (positives + 2),
        of_others=1 / (negatives + 2),
    )
    slope, offset = 1.0, np.log((positives + 1) / (negatives + 1))
    loss = problem.loss(slope, offset)
    for _ in range(_NEWTON_STEPS):
        slope_gradient, offset_gradient, curvature, mixed, diagonal = problem.derivatives(slope, offset)
        if max(abs(slope_gradient), float(np.abs(offset_gradient).max())) < _TOLERANCE * margins.size:
            break
        schur = curvature - float((mixed * mixed / diagonal).sum())
        slope_step = (slope_gradient - float((mixed * offset_gradient / diagonal).sum())) / max(schur, 1e-9)
        offset_step = (offset_gradient - mixed * slope_step) / diagonal
        size, next_loss = 1.0, problem.loss(slope - slope_step, offset - offset_step)
        while next_loss > loss and size > 1e-6:
            size /= 2
            next_loss = problem.loss(slope - size * slope_step, offset - size * offset_step)
        if next_loss >= loss:
            break
        slope, offset, loss = slope - size * slope_step, offset - size * offset_step, next_loss
    if slope < _LEAST_SLOPE:
        slope = _LEAST_SLOPE
        for _ in range(_NEWTON_STEPS):
            _, offset_gradient, _, _, diagonal = problem.derivatives(slope, offset)
            step = np.clip(offset_gradient / diagonal, -1.0, 1.0)
            offset = offset - step
            if float(np.abs(step).max()) < 1e-6:
                break
    return slope / spread, offset


@dataclass(frozen=True, kw_only=True, eq=False)
class _Platt:
    """The cross-entropy of `slope * margins / spread + offset` with Platt's targets, in blocks of classes."""

    margins: NDArray[np.float64]
    spread: float
    membership: NDArray[np.bool_]
    of_class: NDArray[np.float64]
    """float64[C]: the target of a class's images."""
    of_others: NDArray[np.float64]
    """float64[C]: the target of all others."""

    def loss(self, slope: float, offset: NDArray[np.float64]) -> float:
        deviations = offset - offset.mean()
        return 0.5 * _OFFSET_PRIOR * float(deviations @ deviations) + sum(
            float((np.logaddexp(0.0, exponents) - targets * exponents).sum())
            for exponents, targets, _, _ in self._blocks(slope, offset)
        )

    def derivatives(
        self, slope: float, offset: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], float, NDArray[np.float64], NDArray[np.float64]]:
        """First derivatives by slope and by offsets; second ones by slope, by slope and offsets, and by offsets."""
        classes = len(offset)
        by_slope, twice_by_slope = 0.0, 1e-9
        by_offset, mixed, twice_by_offset = np.zeros(classes), np.zeros(classes), np.zeros(classes)
        for exponents, targets, inputs, block in self._blocks(slope, offset):
            probability = 1 / (1 + np.exp(-np.clip(exponents, -500, 500)))
            difference, weight = probability - targets, probability * (1 - probability)
            by_slope += float((difference * inputs).sum())
            by_offset[block] = difference.sum(axis=0)
            twice_by_slope += float((weight * inputs * inputs).sum())
            mixed[block] = (weight * inputs).sum(axis=0)
            twice_by_offset[block] = weight.sum(axis=0) + 1e-9
        by_offset += _OFFSET_PRIOR * (offset - offset.mean())
        return by_slope, by_offset, twice_by_slope, mixed, twice_by_offset + _OFFSET_PRIOR

    def _blocks(
        self, slope: float, offset: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], slice]]:
        for start in range(0, len(offset), _CLASSES_AT_A_TIME):
            block = slice(start, start + _CLASSES_AT_A_TIME)
            inputs = self.margins[:, block] / self.spread
            targets = np.where(self.membership[:, block], self.of_class[block], self.of_others[block])
            yield slope * inputs + offset[block], targets, inputs, block


def _best_threshold(exponents: NDArray[np.float64]) -> float:
    """The exponent at which an image should count as of the class: the one with the best expected F1.

    The expectation is over probabilities, because the best threshold of the images themselves changes with every image. At the
    best threshold, the probability is half of the F1 (Lipton, Elkan and Narayanaswamy, 2014). So it is 0.5 for a class that is
    separated perfectly, and lower for a rare class that is not.
    """
    probability = np.sort(1 / (1 + np.exp(-np.clip(exponents, -500, 500))))[::-1]
    expected_f1 = 2 * np.cumsum(probability) / (probability.sum() + np.arange(1, len(probability) + 1))
    threshold = min(0.5, max(1e-4, float(expected_f1.max()) / 2))
    return float(np.log(threshold / (1 - threshold)))
