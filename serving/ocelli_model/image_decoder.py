"""Decoding in several threads with bounded memory. What decoding is, `preprocessing` says."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_model.preprocessing import PIXELS_LIMIT, Preprocessing, decode_image
from ocelli_storage.archives import CLASSIFY_KINDS, ImageKind


class ImageDecoder:
    """Decodes for one backbone, in any number of threads.

    The images that are being decoded have at most `PIXELS_LIMIT` pixels in all, so that many large ones at a time take no more
    memory than the largest alone: 4 bytes a pixel, up to 12 with what some decoders need.
    """

    def __init__(self, preprocessing: Preprocessing, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> None:
        """`kinds` are those accepted."""
        self._preprocessing = preprocessing
        self._kinds = kinds
        self._pixels = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """uint8[height, width, 3] of the bytes of an image file; waits until there is room for it. Raises ImageError."""
        with self._room(_claimed_pixels(data)):
            return decode_image(data, self._preprocessing, self._kinds)

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        # Who waits holds up those behind it: else small images would keep a large one waiting for ever.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._pixels + pixels <= PIXELS_LIMIT)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._freed:
                self._pixels -= pixels
                self._freed.notify()


def _claimed_pixels(data: bytes) -> int:
    """What the header says; 0 where there is none to read, or where it says so much that decoding refuses."""
    try:
        with Image.open(io.BytesIO(data), formats=list(ImageKind)) as image:
            pixels = image.width * image.height
    except Exception:
        # Pillow's readers raise nearly anything over damaged bytes. What is wrong with them is for `decode_image` to say.
        return 0
    return pixels if pixels <= PIXELS_LIMIT else 0
