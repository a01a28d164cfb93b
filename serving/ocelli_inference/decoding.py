"""Decoding with bounded memory: of images that are large when decoded, one at a time."""

from __future__ import annotations

import contextlib
import io
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_model.preprocessing import PIXELS_LIMIT, Preprocessing, decode_image
from ocelli_storage.archives import ImageKind

LARGE_IMAGE_PIXELS = 16_000_000


class ImageDecoder:
    """Decodes for one backbone, in any number of threads.

    An image of 100 megapixels takes hundreds of megabytes while it is decoded: as many at a time as there are threads would
    exceed what a Pod is given.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._large_image = threading.Lock()

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """uint8[height, width, 3] of the bytes of an image file. Raises ImageError."""
        with self._large_image if _pixels(data) > LARGE_IMAGE_PIXELS else contextlib.nullcontext():
            return decode_image(data, self._preprocessing)


def _pixels(data: bytes) -> int:
    """What the header says; 0 where there is none to read."""
    try:
        with Image.open(io.BytesIO(data), formats=list(ImageKind)) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return PIXELS_LIMIT + 1
    except Exception:
        # Pillow's readers raise nearly anything over damaged bytes. What is wrong with them is for `decode_image` to say.
        return 0
