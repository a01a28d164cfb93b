"""A head as exports have it: calibration folded into the weights, rejection as bounds for an exponential."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import REJECTION_FLOOR, REJECTION_START, Heads, Rejection

REJECTION_DECAY = math.log(2) / (1 - REJECTION_START)
"""The factor of rejection is `exp(-REJECTION_DECAY * (distance - REJECTION_START))`, with an exponent in these bounds:"""
REJECTION_EXPONENTS = (math.log(REJECTION_FLOOR), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedHead:
    """`score = sigmoid(weights @ inputs + bias)`, class by class, times the factor of the rejection where there is one.

    The inputs are features; with a power those that `ocelli_model.heads.normalised` makes of them.
    """

    weights: NDArray[np.float32]
    """float32[C, D]."""
    bias: NDArray[np.float32]
    """float32[C]."""
    power: float | None = None
    rejection: Rejection | None = None


def fold_calibration(heads: Heads) -> FoldedHead:
    """The same scores, but for the rounding of single precision."""
    slope = heads.slope.astype(np.float64)
    return FoldedHead(
        weights=(slope[:, np.newaxis] * heads.weights.astype(np.float64)).astype(np.float32),
        bias=(slope * heads.bias.astype(np.float64) + heads.offset.astype(np.float64)).astype(np.float32),
        power=heads.power,
        rejection=heads.rejection,
    )
