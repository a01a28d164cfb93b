"""Images and files of images that tests make."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def make_pixels(seed: int = 0, *, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Large coloured squares, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse[np.arange(height) * 6 // height][:, np.arange(width) * 8 // width])


def make_file(pixels: NDArray[Any], image_format: str, **options: Any) -> bytes:
    """The bytes of an image file with these pixels."""
    return encode(Image.fromarray(pixels), image_format, **options)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def striped(*, vertical: bool, seed: int, size: int) -> NDArray[np.uint8]:
    """uint8[size, size, 3]: noisy grey stripes of a random width and phase, vertical or horizontal."""
    random = np.random.default_rng(seed)
    wave = np.sin(np.arange(size) * 2 * np.pi / random.uniform(10, 30) + random.uniform(0, 6))
    grey = 128 + 80 * (wave[None, :] if vertical else wave[:, None]) + random.normal(0, 20, (size, size))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
