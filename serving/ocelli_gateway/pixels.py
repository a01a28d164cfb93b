"""Pixels of an uploaded image at a small size, for the built-in classifiers. It must not know what the pixels are for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ocelli_api.prediction import ImageFault
from ocelli_gateway.fair_threads import FairThreads
from ocelli_storage.image_file import PIXELS_LIMIT, ImageError, ImageFile, open_image

SAMPLE_SIDE_PIXELS = 64
_LARGE_PIXELS = 8_000_000
_DECODERS = 2
_LARGE_DECODERS = 1
"""An image of 100 megapixels takes 400 MB."""
_REDUCING_GAP = 4.0
_LEAST = (SAMPLE_SIDE_PIXELS, SAMPLE_SIDE_PIXELS)


class PixelReader:
    """Decodes images in a few threads; large ones one after the other, in a separate thread."""

    def __init__(self, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long an image waits for its turn."""
        what = "images are being decoded"
        # Small images are fast enough that tenants need no shares.
        self._threads = FairThreads(what, threads=_DECODERS, share=_DECODERS, timeout_seconds=timeout_seconds)
        self._large = FairThreads(what, threads=_LARGE_DECODERS, share=1, timeout_seconds=timeout_seconds)

    async def read(self, data: bytes, tenant: str) -> npt.NDArray[np.uint8]:
        """The image scaled to at most 64 pixels a side, sRGB uint8 of shape (height, width, 3), transparent parts white.

        Raises:
            ImageError: it is not an image, cannot be decoded, or has too few or too many pixels.
            UnavailableError: too many images are being decoded.
        """
        try:
            return await self._threads.run(tenant, _decode, data, _LARGE_PIXELS)
        except _LargeImageError:
            # Decoding at a smaller size takes a little more than its pixels.
            try:
                return await self._large.run(tenant, _decode, data, 2 * PIXELS_LIMIT)
            except _LargeImageError:
                message = "The image takes more memory to decode than is allowed; save it as a baseline JPEG or make it smaller"
                raise ImageError(ImageFault.TOO_MANY_PIXELS, message) from None

    def close(self) -> None:
        """Stop the threads."""
        self._threads.close()
        self._large.close()


class _LargeImageError(Exception):
    """Decoding takes more memory than is allowed here."""


def _decode(data: bytes, largest_pixels: int) -> npt.NDArray[np.uint8]:
    with open_image(data) as image:
        if image.decoding_pixels(_LEAST) > largest_pixels:
            raise _LargeImageError
        return _sample(image)


def _sample(image: ImageFile) -> npt.NDArray[np.uint8]:
    decoded = image.load(_LEAST)
    size = (min(decoded.height, SAMPLE_SIDE_PIXELS), min(decoded.width, SAMPLE_SIDE_PIXELS))
    whole = (0, 0, decoded.width, decoded.height)
    return np.asarray(decoded.resized(whole, size, Image.Resampling.BOX, _REDUCING_GAP), dtype=np.uint8)
