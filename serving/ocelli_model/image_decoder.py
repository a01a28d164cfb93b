"""Decoding in several threads with bounded memory. What decoding is, `preprocessing` says."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from ocelli_model.preprocessing import OpenedImage, Preprocessing
from ocelli_storage.archives import CLASSIFY_KINDS, ImageKind
from ocelli_storage.image_file import PIXELS_LIMIT

LARGE_PIXELS = 4_000_000
"""What takes more memory than so many pixels to decode waits for room."""


class PendingImage:
    """An image that may have to wait for room before it is decoded, once."""

    def __init__(self, image: OpenedImage, room: AbstractContextManager[None], *, is_large: bool) -> None:
        self.is_large = is_large
        """Whether it may have to wait, and takes long."""
        self._image = image
        self._room = room

    def decode(self) -> NDArray[np.uint8]:
        """uint8[height, width, 3], once there is room. Raises ImageError."""
        with self._room:
            return self._image.decode()


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
        return self.open(data).decode()

    def open(self, data: bytes) -> PendingImage:
        """The image in the bytes of a file, of which only the header is read. Raises ImageError."""
        image = OpenedImage(data, self._preprocessing, self._kinds)
        return PendingImage(image, self._room(min(image.pixels, PIXELS_LIMIT)), is_large=image.pixels > LARGE_PIXELS)

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
