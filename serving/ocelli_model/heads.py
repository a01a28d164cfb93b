"""Heads: a classifier's own layer, from features to one score per class. It must not know networks or images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

REJECTION_START = 0.98
"""The distance up to which rejection does not change scores; at a distance of 1 it halves them."""
REJECTION_FLOOR = 0.01
"""The minimum factor of rejection: it keeps the order of the classes visible in the rounded scores."""
LEAST_LENGTH = 1e-12
"""Features are divided by their length, or by this if it is greater."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rejection:
    """How far features are from everything that was learned, and how this reduces the scores.

    The squared distance is `min(linear @ features + constant) - |directions @ features + centre|²`: the Mahalanobis distance to
    the nearest class mean under one covariance, multiplied out. It uses means and one covariance, and no features of single
    images. A distance of 1 is the border; images beyond it are rejected.
    """

    linear: NDArray[np.float32]
    """float32[C, D]."""
    constant: NDArray[np.float32]
    """float32[C]."""
    directions: NDArray[np.float32]
    """float32[R, D]: the directions in which images of a class differ most; R may be 0."""
    centre: NDArray[np.float32]
    """float32[R]."""

    def __post_init__(self) -> None:
        classes, features = self.linear.shape
        rank = len(self.directions)
        if self.constant.shape != (classes,) or self.directions.shape != (rank, features) or self.centre.shape != (rank,):
            raise ValueError("rejection: the shapes of its arrays do not match; train again")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in self.arrays().values()):
            raise ValueError("rejection: its numbers are not finite float32 numbers; train again")

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The arrays by their stored names."""
        return {
            "linear": self.linear,
            "constant": self.constant,
            "directions": self.directions,
            "centre": self.centre,
        }

    def distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """From normalised features float64[N, D] to float64[N]. An element is bit-identical for the same features."""
        distances = np.empty(len(features), dtype=np.float64)
        linear, constant, directions, centre = self._arrays64
        for row, image_features in enumerate(features):
            inside = directions @ image_features + centre
            distances[row] = (linear @ image_features + constant).min() - inside @ inside
        return np.sqrt(np.maximum(distances, 0.0))

    def factors(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The factors for the scores, float64[N]: 1 near the classes, 0.5 at the border, `REJECTION_FLOOR` far away."""
        return rejection_factors(self.distances(features))

    @cached_property
    def _arrays64(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(array.astype(np.float64) for array in self.arrays().values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """One-vs-rest logistic heads: `score = sigmoid(slope * (weights @ features + bias) + offset)`, class by class.

    With a `power` they use normalised features, see `normalised`; with a `rejection` the score is multiplied by its factor.
    """

    weights: NDArray[np.float32]
    """float32[C, D]; includes standardisation."""
    bias: NDArray[np.float32]
    """float32[C]."""
    slope: NDArray[np.float32]
    """float32[C], above 0: calibration."""
    offset: NDArray[np.float32]
    """float32[C]: calibration."""
    power: float | None = None
    """The exponent for `normalised`; None: features are not normalised."""
    rejection: Rejection | None = None
    """None: scores do not depend on the distance from what was learned."""

    def __post_init__(self) -> None:
        classes = (self.class_count,)
        arrays = (self.weights, self.bias, self.slope, self.offset)
        if self.weights.ndim != 2 or any(array.shape != classes for array in arrays[1:]):
            raise ValueError(f"heads: the shapes of the arrays do not match: {[array.shape for array in arrays]}")
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays):
            raise ValueError("heads: the weights are not finite float32 numbers; train again")
        if self.power is not None and not 0 < self.power <= 1:
            raise ValueError(f"heads: the power is {self.power}, not above 0 and at most 1; train again")
        if self.rejection is not None and self.rejection.linear.shape[1] != self.feature_count:
            raise ValueError("heads: the rejection is for another number of features; train again")

    @property
    def class_count(self) -> int:
        return int(self.weights.shape[0])

    @property
    def feature_count(self) -> int:
        return int(self.weights.shape[1])

    def margins(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances from each class's border before calibration: float32[N, D] to float64[N, C].

        A row is bit-identical for the same features.

        Raises:
            ValueError: the features do not have the length of the heads.
        """
        return self._margins(self._inputs(features))

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores from 0 to 1: float32[N, D] to float32[N, C]. Raises as `margins`."""
        inputs = self._inputs(features)
        scores = calibrated(self._margins(inputs), self.slope, self.offset)
        if self.rejection is None:
            return scores
        return (scores * self.rejection.factors(inputs)[:, np.newaxis]).astype(np.float32)

    def _inputs(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        if features.ndim != 2 or features.shape[1] != self.feature_count:
            raise ValueError(f"heads: the features have shape {features.shape}, not [N, {self.feature_count}]")
        inputs = features.astype(np.float64)
        return inputs if self.power is None else normalised(inputs, self.power)

    def _margins(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        margins = np.empty((len(inputs), self.class_count), dtype=np.float64)
        # Row by row: a matrix product rounds differently for another number of rows.
        for row, image_inputs in enumerate(inputs):
            margins[row] = self._weights64 @ image_inputs
        return margins + self.bias

    @cached_property
    def _weights64(self) -> NDArray[np.float64]:
        return self.weights.astype(np.float64)


def normalised(features: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Features [N, D] with each number raised to a power, its sign kept, then each row scaled to a length of 1.

    A power below 1 keeps a few strong features from deciding alone (Perronnin, Sánchez and Mensink, 2010, for a power of 0.5).
    A row of zeros stays a row of zeros.
    """
    raised: NDArray[np.float64] = np.sign(features) * np.abs(features) ** power
    lengths = np.sqrt((raised * raised).sum(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = raised / np.maximum(lengths, LEAST_LENGTH)
    return scaled


def rejection_factors(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factors for the scores at these distances: 1 up to `REJECTION_START`, then halved every `1 - REJECTION_START`."""
    halvings = (distances - REJECTION_START) / (1.0 - REJECTION_START)
    factors: NDArray[np.float64] = np.maximum(np.exp2(-np.clip(halvings, 0.0, 30.0)), np.float64(REJECTION_FLOOR))
    return factors


def calibrated(margins: NDArray[np.float64], slope: NDArray[np.float32], offset: NDArray[np.float32]) -> NDArray[np.float32]:
    """Margins [N, C] to scores float32[N, C], with calibration [C]."""
    # Beyond 80 a float32 score is 0 or 1, and the exponential would overflow.
    exponents = np.clip(slope * margins + offset, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-exponents))).astype(np.float32)
