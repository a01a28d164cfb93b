"""Examples without a download: scikit-learn's handwritten digits, scaled up to 64x64, as zips of PNGs.

The digits (8x8 grey, 1,797 of them) come from the UCI Optical Recognition of Handwritten Digits data set.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PIXELS = 64
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits:
    """All the digits; loading them takes a second."""

    def __init__(self) -> None:
        # scikit-learn takes a second to import, and only the samples need it.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self._images: dict[int, list[np.ndarray]] = {digit: [] for digit in range(10)}
        for image, digit in zip(bunch.images, bunch.target, strict=True):
            self._images[int(digit)].append(image)

    def png(self, digit: int, index: int) -> bytes:
        """One image of a digit as a PNG: dark ink on white, 64x64 pixels, RGB."""
        grey = np.clip(255 - self._images[digit][index] * (255 / 16), 0, 255).astype(np.uint8)
        picture = Image.fromarray(grey).resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC).convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def write_zip(self, path: Path, digits: Iterable[int], indices: range) -> None:
        """A zip with the images of some digits that have these indices; the same arguments give the same bytes."""
        temporary = path.with_suffix(".tmp")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for digit in digits:
                for index in indices:
                    entry = zipfile.ZipInfo(f"{DIGIT_NAMES[digit]}/{index:03}.png", date_time=(2020, 1, 1, 0, 0, 0))
                    archive.writestr(entry, self.png(digit, index))
        temporary.replace(path)
