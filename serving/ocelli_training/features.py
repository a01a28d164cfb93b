"""Features of images in the pixel file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocelli_model.backbone import Precision
from ocelli_model.engine import Engine
from ocelli_training.pixel_file import PixelFile

PRECISION = Precision.FLOAT32
"""Of all features, even where the backbone allows others: heads trained on one node are served on other nodes."""
_BATCH_IMAGES = 64


def compute_features(engine: Engine, pixels: PixelFile, numbers: Sequence[int]) -> NDArray[np.float32]:
    """float32[len(numbers), D] of the whole images with these numbers in the file."""
    features = np.empty((len(numbers), engine.metadata.feature_count), dtype=np.float32)
    for start in range(0, len(numbers), _BATCH_IMAGES):
        batch = slice(start, start + _BATCH_IMAGES)
        features[batch] = engine.features(pixels.read(numbers[batch]))
    return features
