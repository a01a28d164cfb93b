"""Features of images in the pixel file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import BackboneMetadata, Precision, load_backbone
from ocelli_model.engine import Engine, load_engine, needed_files
from ocelli_storage.object_store import ObjectStore
from ocelli_training.pixel_file import PixelFile

PRECISION = Precision.FLOAT32
"""Of all features, even where the backbone allows others: heads trained on one node are served on other nodes."""
_BATCH_IMAGES = 64


async def load_feature_engine(
    store: ObjectStore, metadata: BackboneMetadata, device: Accelerator, *, scratch: Path, threads: int
) -> Engine:
    """The engine of an installed backbone, whose files are kept in the folder `scratch`.

    Raises:
        BackboneError, ObjectStoreError: see there.
    """
    backbone = await load_backbone(store, metadata.digest, cache=scratch / "backbones", files=needed_files(device))
    return await asyncio.to_thread(load_engine, backbone, threads=threads, device=device, precision=PRECISION)


def compute_features(engine: Engine, pixels: PixelFile, numbers: Sequence[int]) -> NDArray[np.float32]:
    """float32[len(numbers), D] of the whole images with these numbers in the file."""
    features = np.empty((len(numbers), engine.metadata.feature_count), dtype=np.float32)
    for start in range(0, len(numbers), _BATCH_IMAGES):
        batch = slice(start, start + _BATCH_IMAGES)
        features[batch] = engine.features(pixels.read(numbers[batch]))
    return features
