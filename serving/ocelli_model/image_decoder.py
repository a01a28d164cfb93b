"""Decoding in several threads with bounded memory. What decoding is, `preprocessing` says."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ocelli_model.preprocessing import Preprocessing, decode_image, decoding_pixels
from ocelli_storage.archives import CLASSIFY_KINDS, ImageKind
from ocelli_storage.image_file import PIXELS_LIMIT

LARGE_PIXELS = 4_000_000
"""What takes more memory than so many pixels to decode waits for room."""


class ImageDecoder:
    """Decodes for one backbone, in any number of threads.

    The large images that are being decoded have at most `PIXELS_LIMIT` pixels in all, so that many of them at a time take no
    more memory than the largest alone: 4 bytes a pixel, up to 12 with what some decoders need. What counts is what is decoded:
    a photograph in JPEG, scaled down by its decoder, is small. Small ones wait for nobody: their number of threads bounds them.
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
        with self._room(self._count_pixels(data)):
            return decode_image(data, self._preprocessing, self._kinds)

    def is_large(self, data: bytes) -> bool:
        """Whether decoding an image may have to wait for room, and takes long."""
        return self._count_pixels(data) > LARGE_PIXELS

    def _count_pixels(self, data: bytes) -> int:
        return min(decoding_pixels(data, self._preprocessing, self._kinds), PIXELS_LIMIT)

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        if pixels <= LARGE_PIXELS:
            yield
            return
        # Who waits holds up those behind it: else smaller images would keep a large one waiting for ever.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._pixels + pixels <= PIXELS_LIMIT)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._freed:
                self._pixels -= pixels
                self._freed.notify()
