"""Decodes images in several threads with bounded memory, as `preprocessing` defines."""

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
"""An image that takes more memory than this many pixels may have to wait for others."""


class PendingImage:
    """An opened image, which may have to wait before it is decoded, once."""

    def __init__(self, image: OpenedImage, room: AbstractContextManager[None], *, is_large: bool) -> None:
        self.is_large = is_large
        """Whether it may have to wait, and takes long to decode."""
        self._image = image
        self._room = room

    @property
    def sides(self) -> tuple[int, int]:
        """See `OpenedImage.sides`."""
        return self._image.sides

    def decode(self) -> NDArray[np.uint8]:
        """uint8[height, width, 3], once there is enough memory. Raises ImageError."""
        with self._room:
            return self._image.decode()


class ImageDecoder:
    """Decodes images for one backbone, in any number of threads.

    All large images that are being decoded have at most `PIXELS_LIMIT` pixels in total, so together they take no more memory
    than the largest one: 4 bytes a pixel, and up to 12 in some decoders. The decoded size counts: a JPEG photograph that its
    decoder scales down is small. Small images never wait; the number of threads limits them.
    """

    def __init__(self, preprocessing: Preprocessing, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> None:
        """`kinds` are the accepted kinds."""
        self._preprocessing = preprocessing
        self._kinds = kinds
        self._pixels = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """uint8[height, width, 3] of an image file; waits until there is enough memory. Raises ImageError."""
        return self.open(data).decode()

    def open(self, data: bytes) -> PendingImage:
        """Open an image file, reading only its header. Raises ImageError."""
        image = OpenedImage(data, self._preprocessing, self._kinds)
        return PendingImage(image, self._room(min(image.pixels, PIXELS_LIMIT)), is_large=image.pixels > LARGE_PIXELS)

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        if pixels <= LARGE_PIXELS:
            yield
            return
        # A waiting image blocks those after it: otherwise smaller images could keep a large one waiting forever.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._pixels + pixels <= PIXELS_LIMIT)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._freed:
                self._pixels -= pixels
                self._freed.notify()
