"""Heads in the form of exports: calibration is folded into the weights, and rejection is an exponential."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ocelli_model.heads import REJECTION_FLOOR, REJECTION_START, Heads

REJECTION_DECAY = math.log(2) / (1 - REJECTION_START)
"""The factor of rejection is `exp(-REJECTION_DECAY * (distance - REJECTION_START))`, its exponent limited to the following:"""
REJECTION_EXPONENTS = (math.log(REJECTION_FLOOR), 0.0)


def fold_calibration(heads: Heads) -> Heads:
    """Heads with the same scores, except for rounding to single precision, and without calibration."""
    slope = heads.slope.astype(np.float64)
    return replace(
        heads,
        weights=(slope[:, np.newaxis] * heads.weights.astype(np.float64)).astype(np.float32),
        bias=(slope * heads.bias.astype(np.float64) + heads.offset.astype(np.float64)).astype(np.float32),
        slope=np.ones_like(heads.slope),
        offset=np.zeros_like(heads.offset),
    )
