"""Image files for the tests of clients, made on the fly: each number gives another image."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def image_bytes(number: int, kind: str = "JPEG", size: tuple[int, int] = (32, 24)) -> bytes:
    """A file of this kind; the colour of its pixels follows from the number."""
    # Steps that are wider than the rounding of a JPEG.
    colour = (number * 8 % 256, number // 32 * 8 % 256, 128)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def write_images(folder: Path, numbers: range, kind: str = "JPEG") -> Path:
    """A folder with an image for each number: `000.jpg` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.{'jpg' if kind == 'JPEG' else kind.lower()}").write_bytes(image_bytes(number, kind))
    return folder
