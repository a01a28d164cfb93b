"""Folders of images as people have them, to drop into the console."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.console.trained import draw

CLASSES = ("box", "cross")


def write_folders(folder: Path, count: int = 12, *, negatives: int = 0) -> Path:
    """A folder with a folder of JPEG files for each class."""
    for shape in CLASSES:
        write_class(folder / shape, shape, count)
    if negatives:
        write_class(folder / "negatives", None, negatives)
    return folder


def write_class(folder: Path, shape: str | None, count: int, first_seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for seed in range(first_seed, first_seed + count):
        (folder / f"{seed:03}.jpg").write_bytes(draw(shape, seed))
    return folder


def large_png(seed: int, side: int = 1500) -> bytes:
    """An image of several megabytes: noise cannot be compressed."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    return file.getvalue()
