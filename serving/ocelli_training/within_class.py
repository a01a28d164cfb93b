"""Variation within classes: class means and one covariance, from normalised features.

Heads are trained on features in which this variation is small (whitened). Images that are far from every class mean by this
measure are rejected. No data of single images is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import Rejection

SHRINKAGE = 0.5
"""Share of the covariance that is replaced by the same variance in every direction (Ledoit and Wolf, 2004)."""
DIRECTIONS_LIMIT = 128
"""Directions that a rejection keeps: 655 kB for 1,280 features. More directions do not improve rejection."""
_LEAST_VARIANCE = 1e-12
_LEAST_RADIUS = 0.05
"""Smallest distance between border and class mean, for features of length 1. All images of a class may be copies of one: with a
smaller distance, float32 rounding would reject such an image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WithinClass:
    """Class means, and the covariance of the images of a class around its mean, in K coordinates."""

    means: NDArray[np.float64]
    """float64[C, K], without classes that have no images."""
    covariance: NDArray[np.float64]
    """float64[K, K], of the images of all classes; without negatives, which are not similar to each other."""
    feature_count: int
    """D: the K coordinates are a rotation of the features, which do not vary in other directions."""

    @classmethod
    def measure(cls, inputs: NDArray[np.float32], membership: NDArray[np.bool_], feature_count: int) -> WithinClass:
        """Of inputs float32[N, K] with membership bool[N, C]."""
        counts = membership.sum(axis=0)
        means = np.stack([inputs[membership[:, index]].mean(axis=0, dtype=np.float64) for index in np.flatnonzero(counts)])
        scatter = np.zeros((inputs.shape[1], inputs.shape[1]), dtype=np.float64)
        for mean, index in zip(means, np.flatnonzero(counts), strict=True):
            differences = inputs[membership[:, index]] - mean.astype(np.float32)
            scatter += differences.T @ differences
        return cls(means=means, covariance=scatter / max(int(counts.sum()), 1), feature_count=feature_count)

    def whitening(self) -> NDArray[np.float32]:
        """float32[K, K]: `inputs @ whitening` has the covariance 1, after shrinkage."""
        variances, vectors = self._principal
        whitening: NDArray[np.float32] = (vectors.T / np.sqrt(self._shrunk(variances))).astype(np.float32)
        return whitening

    def rejection(self, basis: NDArray[np.float64] | None, origin: NDArray[np.float64], border: float) -> Rejection:
        """The distances of `Rejection`, in units of `border`.

        Args:
            basis: float64[D, K], orthonormal, from features to coordinates; None: they are the same.
            origin: float64[D], subtracted from features before.
            border: the distance, see `distances`, that becomes 1.
        """
        variances, directions, remaining = self._directions()
        means = self.means
        if basis is not None:
            directions, means = directions @ basis.T, means @ basis.T
        scale = 1.0 / border**2
        weights = np.sqrt(np.maximum(1.0 / remaining - 1.0 / variances, 0.0) * scale)
        scaled = weights[:, np.newaxis] * directions
        # |features - mean|² with |features| = 1, and the directions' part of it, multiplied out; see `Rejection`.
        absolute = means + origin
        inside = means @ scaled.T
        linear = -2.0 * scale / remaining * absolute + 2.0 * inside @ scaled
        constant = scale / remaining * (1.0 + (absolute**2).sum(axis=1)) - (inside**2).sum(axis=1)
        constant -= 2.0 * inside @ (scaled @ origin)
        return Rejection(
            linear=linear.astype(np.float32),
            constant=constant.astype(np.float32),
            directions=scaled.astype(np.float32),
            centre=(-scaled @ origin).astype(np.float32),
        )

    def distances(self, inputs: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[N]: distances to the nearest class mean of inputs float32[N, K].

        `lengths` are the squared lengths float64[N] of the features minus the origin: longer than the coordinates where these
        span only a part of the features.
        """
        variances, directions, remaining = self._directions()
        weights = np.sqrt(np.maximum(1.0 / remaining - 1.0 / variances, 0.0))
        scaled = weights[:, np.newaxis] * directions
        inside, inside_means = inputs @ scaled.T, self.means @ scaled.T
        whole = lengths[:, np.newaxis] - 2.0 * inputs @ self.means.T + (self.means**2).sum(axis=1)
        part = (inside**2).sum(axis=1)[:, np.newaxis] - 2.0 * inside @ inside_means.T + (inside_means**2).sum(axis=1)
        nearest = (whole / remaining - part).min(axis=1)
        distances: NDArray[np.float64] = np.sqrt(np.maximum(nearest, 0.0))
        return distances

    @cached_property
    def least_border(self) -> float:
        """The smallest allowed border."""
        _, _, remaining = self._directions()
        return _LEAST_RADIUS / float(np.sqrt(remaining))

    @cached_property
    def _principal(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Variances float64[K] in descending order, and their directions float64[K, K], one per row."""
        variances, vectors = np.linalg.eigh(self.covariance)
        return np.maximum(variances[::-1], 0.0), vectors.T[::-1]

    def _shrunk(self, variances: NDArray[np.float64]) -> NDArray[np.float64]:
        common = float(np.trace(self.covariance)) / self.feature_count
        return np.maximum((1.0 - SHRINKAGE) * variances + SHRINKAGE * common, _LEAST_VARIANCE)

    def _directions(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The widest directions float64[R, K] with their shrunk variances float64[R], and the variance in every other one."""
        variances, vectors = self._principal
        rank = min(DIRECTIONS_LIMIT, len(variances), self.feature_count - 1)
        others = np.array([variances[rank:].sum() / (self.feature_count - rank)])
        return self._shrunk(variances[:rank]), vectors[:rank], float(self._shrunk(others)[0])
