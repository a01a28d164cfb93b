"""Pixels of an uploaded image, small, for the built-in classifiers. Custom ones leave decoding to their inference servers.

It must not know what the pixels are for.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from ocelli_api.prediction import ImageFault
from ocelli_gateway.fair_threads import FairThreads
from ocelli_storage.archives import CLASSIFY_KINDS, SIGNATURE_BYTES, image_kind

LEAST_SIDE_PIXELS = 10
PIXELS_LIMIT = 100_000_000
SAMPLE_SIDE_PIXELS = 64
_LARGE_PIXELS = 20_000_000
_DECODERS = 2
_LARGE_DECODERS = 1
"""Of 100 megapixels one takes 400 MB."""
_FORMATS = tuple(sorted(CLASSIFY_KINDS))

# It warns of large images, which are refused below, and of every flaw in a TIFF: that would be a line in the log per image.
warnings.filterwarnings("ignore", module="PIL")

# What Pillow's decoders raise over damaged bytes.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError)
_DAMAGED_BELOW = (struct.error, zlib.error, MemoryError, RuntimeError)


class PixelsError(Exception):
    """The image cannot be used."""

    def __init__(self, fault: ImageFault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class PixelReader:
    """Decodes images in threads, few at a time; large ones one after the other, in a thread of their own."""

    def __init__(self, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long an image waits for its turn."""
        what = "images are decoded"
        # Small ones take turns quickly enough.
        self._threads = FairThreads(what, threads=_DECODERS, share=_DECODERS, timeout_seconds=timeout_seconds)
        self._large = FairThreads(what, threads=_LARGE_DECODERS, share=1, timeout_seconds=timeout_seconds)

    async def read(self, data: bytes, tenant: str) -> npt.NDArray[np.uint8]:
        """The image scaled to at most 64 pixels a side, sRGB uint8 of shape (height, width, 3), transparent parts white.

        Raises:
            PixelsError: it is no image, cannot be decoded, or has too few or too many pixels.
            UnavailableError: too many are decoded already.
        """
        try:
            return await self._threads.run(tenant, _decode, data, _LARGE_PIXELS)
        except _LargeImageError:
            return await self._large.run(tenant, _decode, data, PIXELS_LIMIT)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.close()
        self._large.close()


class _LargeImageError(Exception):
    """It has more pixels than shall be decoded here."""


def _decode(data: bytes, largest_pixels: int) -> npt.NDArray[np.uint8]:
    if image_kind(data[:SIGNATURE_BYTES]) is None:
        raise PixelsError(ImageFault.NOT_AN_IMAGE)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image.width, image.height)
            image.draft("RGB", (SAMPLE_SIDE_PIXELS, SAMPLE_SIDE_PIXELS))
            if image.width * image.height > largest_pixels:
                raise _LargeImageError
            return _sample(image)
    except Image.DecompressionBombError as error:
        raise PixelsError(ImageFault.TOO_MANY_PIXELS) from error
    except (*_DAMAGED, *_DAMAGED_BELOW) as error:
        raise PixelsError(ImageFault.CORRUPT) from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < LEAST_SIDE_PIXELS:
        raise PixelsError(ImageFault.TOO_SMALL)
    if width * height > PIXELS_LIMIT:
        raise PixelsError(ImageFault.TOO_MANY_PIXELS)


def _sample(image: Image.Image) -> npt.NDArray[np.uint8]:
    image.load()
    size = (min(image.width, SAMPLE_SIDE_PIXELS), min(image.height, SAMPLE_SIDE_PIXELS))
    # Values of these modes cannot be averaged: places in a palette, or numbers that the library does not scale.
    exact = image.mode in ("P", "PA", "1") or image.mode.startswith(("I", "F"))
    small = image.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.BOX)
    if small.mode.startswith(("I", "F")):
        small = _to_grey(small)
    if small.has_transparency_data:
        opaque = small.convert("RGBA")
        small = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return np.asarray(small.convert("RGB"), dtype=np.uint8)


def _to_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I"):
        scaled = values / 257.0
    else:
        highest = float(np.nanmax(values, initial=0.0))
        scaled = np.nan_to_num(values) * (255.0 if highest <= 1.0 else 1.0)
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8), "L")
