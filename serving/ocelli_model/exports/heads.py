"""A head as exports have it: calibration folded into the weights, so that a sigmoid of one product is the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import Heads


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """`score = sigmoid(weights @ features + bias)`, class by class."""

    weights: NDArray[np.float32]
    """float32[C, D]."""
    bias: NDArray[np.float32]
    """float32[C]."""


def fold_calibration(heads: Heads) -> LinearHead:
    """The same scores, but for the rounding of single precision."""
    slope = heads.slope.astype(np.float64)
    return LinearHead(
        weights=(slope[:, np.newaxis] * heads.weights.astype(np.float64)).astype(np.float32),
        bias=(slope * heads.bias.astype(np.float64) + heads.offset.astype(np.float64)).astype(np.float32),
    )
