"""Rejections with a border among given features, so that some images are rejected, some partly, and some not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import REJECTION_START, Rejection, normalised

_FAR = 1.1
"""A distance at which scores are almost zero."""


def make_rejection(features: NDArray[np.float32], power: float | None, *, rank: int = 8) -> Rejection:
    """A quarter of the images is nearer than `REJECTION_START`, a quarter is almost rejected.

    `rank` is the number of directions.
    """
    inputs = features.astype(np.float64)
    if power is not None:
        inputs = normalised(inputs, power)
    means = inputs[:: max(1, len(inputs) // 3)][:3]
    linear, constant = -2 * means, (means**2).sum(axis=1)
    spread = np.linalg.norm(inputs - inputs.mean(axis=0), axis=1).mean()
    directions = np.random.default_rng(rank).normal(size=(rank, inputs.shape[1])) / np.sqrt(inputs.shape[1])
    centre = -directions @ inputs.mean(axis=0) + 0.1 * spread
    squares = (inputs @ linear.T + constant).min(axis=1) - ((inputs @ directions.T + centre) ** 2).sum(axis=1)
    near, far = np.quantile(squares, (0.25, 0.75))
    scale = (_FAR**2 - REJECTION_START**2) / (far - near)
    return Rejection(
        linear=(scale * linear).astype(np.float32),
        constant=(scale * (constant - near) + REJECTION_START**2).astype(np.float32),
        directions=(np.sqrt(scale) * directions).astype(np.float32),
        centre=(np.sqrt(scale) * centre).astype(np.float32),
    )
