"""Files of images whose pixels a training does not need, in the scratch folder: those that a report shows are decoded later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_storage.archives import MEGABYTE
from ocelli_storage.image_file import ImageError

LIMIT_BYTES = 2048 * MEGABYTE
"""Of all files together. A report shows no thumbnails of images beyond it."""

logger = logging.getLogger(__name__)


class KeptImages:
    """Image files by digest. Safe to use from several threads."""

    def __init__(self, path: Path, decode: Callable[[bytes], NDArray[np.uint8]], *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Creates the file. `decode` turns the bytes of an image into uint8[height, width, 3], or raises `ImageError`.

        Raises:
            OSError: it cannot be created.
        """
        self._path = path
        self._decode = decode
        self._limit_bytes = limit_bytes
        self._places: dict[str, tuple[int, int]] = {}
        """By digest: offset and length."""
        self._size_bytes = 0
        self._lock = threading.Lock()
        path.write_bytes(b"")

    def add(self, digest: str, data: bytes) -> None:
        """Keep the bytes of an image, unless they would exceed the limit.

        Raises:
            OSError: the scratch folder is full.
        """
        with self._lock:
            if digest in self._places or self._size_bytes + len(data) > self._limit_bytes:
                return
            with self._path.open("r+b") as file:
                file.seek(self._size_bytes)
                file.write(data)
            self._places[digest] = (self._size_bytes, len(data))
            self._size_bytes += len(data)

    def find(self, digest: str) -> NDArray[np.uint8] | None:
        """The pixels of a kept image, uint8[height, width, 3]; None if it was not kept, or can no longer be decoded."""
        place = self._places.get(digest)
        if place is None:
            return None
        offset, length = place
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        try:
            return self._decode(data)
        except ImageError as error:
            # Its features were computed by a decoder that accepted it.
            logger.warning("image.not_decoded", extra={"digest": digest, "error": str(error)})
            return None
