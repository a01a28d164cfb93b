"""Images and zips to send."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


def png(seed: int = 0, size: tuple[int, int] = (32, 32)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), "PNG")


def plain(color: tuple[int, ...], *, mode: str = "RGB", format_name: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    return encode(Image.new(mode, size, color if len(color) > 1 else color[0]), format_name)


def encode(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def build_zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def examples(seed: int = 0, count: int = 10) -> bytes:
    """A zip of usable examples."""
    return build_zip({f"{index}.png": png(seed * 1000 + index, (12, 12)) for index in range(count)})
