"""Heads: a classifier's own layer. Features in, one score per class out; no knowledge of networks or images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DECISION_THRESHOLD = 0.5
"""The score from which an image counts as of a class. Calibration puts each class's best threshold there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """One-vs-rest logistic heads: `score = sigmoid(slope * (weights @ features + bias) + offset)`, class by class."""

    weights: NDArray[np.float32]
    """float32[C, D]; standardisation is folded in."""
    bias: NDArray[np.float32]
    """float32[C]."""
    slope: NDArray[np.float32]
    """float32[C], above 0: calibration."""
    offset: NDArray[np.float32]
    """float32[C]: calibration."""

    def __post_init__(self) -> None:
        classes = (self.class_count,)
        arrays = (self.weights, self.bias, self.slope, self.offset)
        if self.weights.ndim != 2 or any(array.shape != classes for array in arrays[1:]):
            raise ValueError(f"heads: arrays of shapes {[array.shape for array in arrays]} do not fit each other")
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays):
            raise ValueError("heads: weights must be finite float32 numbers; train again")

    @property
    def class_count(self) -> int:
        return int(self.weights.shape[0])

    @property
    def feature_count(self) -> int:
        return int(self.weights.shape[1])

    def margins(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances from each class's border before calibration: float32[N, D] to float64[N, C].

        A row depends on its features only, to the bit.

        Raises:
            ValueError: the features are not those of this backbone.
        """
        if features.ndim != 2 or features.shape[1] != self.feature_count:
            raise ValueError(f"heads: features of shape {features.shape} do not fit {self.feature_count} weights a class")
        margins = np.empty((len(features), self.class_count), dtype=np.float64)
        # Row by row: a product of matrices rounds differently for another number of rows.
        for row, image_features in enumerate(features.astype(np.float64)):
            margins[row] = self._weights64 @ image_features
        return margins + self.bias

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores from 0 to 1: float32[N, D] to float32[N, C]. Raises as `margins`."""
        return calibrated(self.margins(features), self.slope, self.offset)

    @cached_property
    def _weights64(self) -> NDArray[np.float64]:
        return self.weights.astype(np.float64)


def calibrated(margins: NDArray[np.float64], slope: NDArray[np.float32], offset: NDArray[np.float32]) -> NDArray[np.float32]:
    """Margins [N, C] to scores float32[N, C], with calibration [C]."""
    # Beyond 80 a float32 score is 0 or 1 anyway, and the exponential must not overflow.
    exponents = np.clip(slope * margins + offset, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-exponents))).astype(np.float32)
