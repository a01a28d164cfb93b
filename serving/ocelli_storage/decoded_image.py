"""A decoded image of any mode, and its conversion to RGB at another size. It must not know files.

Next to the decoded image nothing is held at full size: conversion works band by band.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BAND_PIXELS = 1_000_000

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


class DecodedImage:
    """A decoded image of any mode."""

    def __init__(self, image: Image.Image, *, grey_bits: int = 16, inverted: bool = False) -> None:
        """`grey_bits` is the depth of grey integers of more than 8 bits; if `inverted`, their 0 is white."""
        self._image = image
        self._grey_bits = grey_bits
        self._inverted = inverted
        self.width, self.height = image.size

    def check_greys(self) -> None:
        """Raises ValueError if grey integers have more than 16 bits: then it is unknown which value is white."""
        if self._image.mode == "I" and not all(values.min() >= 0 and values.max() <= 65535 for values in self._bands()):
            raise ValueError("grey values of more than 16 bits")

    def resized(self, box: Box, size: tuple[int, int], resampling: Image.Resampling, reducing_gap: float) -> Image.Image:
        """A part of the image as RGB at a given height and width; transparent pixels become white.

        The result is bit-identical to Pillow's `resize` with a `reducing_gap` on a converted copy. For an image of 100
        megapixels, such copies took 2 GB; here the image is converted and reduced band by band.
        """
        height, width = size
        box_height, box_width = box[3] - box[1], box[2] - box[0]
        factors = max(1, int(box_width / width / reducing_gap)), max(1, int(box_height / height / reducing_gap))
        white = self._white_level()
        if factors == (1, 1):
            small = self._coloured(self._image.crop(box), white)
            if small.size != (width, height):
                small = small.resize((width, height), resampling)
        else:
            reduced_box = (0, 0, box_width / factors[0], box_height / factors[1])
            small = self._reduced(box, factors, white).resize((width, height), resampling, box=reduced_box)
            if small.mode == "RGBa":
                small = small.convert("RGBA")
        if small.mode != "RGBA":
            return small
        # Blend with white last: resizing weights colours by their opacity.
        return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")

    def _reduced(self, box: Box, factors: tuple[int, int], white: float) -> Image.Image:
        """A part as RGB or, if it has transparency, RGBa, shrunk by integer factors for width and height."""
        left, top, right, bottom = box
        # Each band begins where a reduced row begins.
        band_rows = factors[1] * max(1, _BAND_PIXELS // ((right - left) * factors[1]))
        bands = []
        for row in range(top, bottom, band_rows):
            band = self._coloured(self._image.crop((left, row, right, min(row + band_rows, bottom))), white)
            bands.append((band.convert("RGBa") if band.mode == "RGBA" else band).reduce(factors))
        reduced = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
        row = 0
        for band in bands:
            reduced.paste(band, (0, row))
            row += band.height
        return reduced

    def _coloured(self, image: Image.Image, white: float) -> Image.Image:
        """A part as RGB, or as RGBA if it has transparency."""
        mode = image.mode
        if mode.startswith(("I", "F")):
            return Image.fromarray(self._eight_bits(np.asarray(image), white)).convert("RGB")
        if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            return image if mode == "RGBA" else image.convert("RGBA")
        return image if mode == "RGB" else image.convert("RGB")

    def _white_level(self) -> float:
        """The floating-point value that is white: 1 if no value is above it, else 255, else 65,535."""
        if not self._image.mode.startswith("F"):
            return 65535.0
        highest = max(float(_finite(values).max()) for values in self._bands())
        return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0

    def _bands(self) -> Iterator[NDArray[Any]]:
        image = self._image
        rows = max(1, _BAND_PIXELS // image.width)
        for row in range(0, image.height, rows):
            yield np.asarray(image.crop((0, row, image.width, min(row + rows, image.height))))

    def _eight_bits(self, values: NDArray[Any], white: float) -> NDArray[np.uint8]:
        """Integer or floating-point grey values as uint8[height, width]."""
        if values.dtype.kind == "f":
            scaled: NDArray[Any] = _finite(values) * (255.0 / white)
        else:
            scaled = np.clip(values, 0, 65535).astype(np.uint16) >> (self._grey_bits - 8)
        eight_bits: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
        return 255 - eight_bits if self._inverted else eight_bits


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
