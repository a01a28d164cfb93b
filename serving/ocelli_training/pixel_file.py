"""Decoded images in a file of the scratch folder: memory holds only the images in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


class PixelFile(AbstractContextManager["PixelFile"]):
    """Images of one size, each with a number. Safe to use from several threads."""

    def __init__(self, path: Path, *, height: int, width: int) -> None:
        """Create the file.

        Raises:
            OSError: it cannot be created.
        """
        self._path = path
        self._shape = (height, width, 3)
        self._image_bytes = height * width * 3
        self._file = path.open("w+b", buffering=0)
        self._lock = threading.Lock()
        self._count = 0

    @property
    def path(self) -> Path:
        """The images one after the other, in the order of their numbers."""
        return self._path

    @property
    def count(self) -> int:
        return self._count

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each image."""
        return self._shape[0], self._shape[1]

    @property
    def image_bytes(self) -> int:
        """Size of one image in the file."""
        return self._image_bytes

    def append(self, pixels: NDArray[np.uint8]) -> int:
        """Write an image, uint8[height, width, 3], and return its number.

        Raises:
            OSError: the scratch folder is full.
        """
        if pixels.shape != self._shape:
            raise ValueError(f"an image of shape {pixels.shape} does not fit a file of images of shape {self._shape}")
        with self._lock:
            number = self._count
            self._count += 1
        data = memoryview(pixels.tobytes())
        offset = number * self._image_bytes
        while data:
            written = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[written:], offset + written
        return number

    def append_bytes(self, data: bytes | bytearray) -> int:
        """As `append`, from the bytes of an image as another pixel file of this shape has them."""
        return self.append(np.frombuffer(data, dtype=np.uint8).reshape(self._shape))

    def copy_images(self, numbers: Sequence[int], path: Path) -> None:
        """Write the images of those numbers to another file, one after the other. Raises OSError."""
        with path.open("wb") as file:
            for number in numbers:
                file.write(os.pread(self._file.fileno(), self._image_bytes, number * self._image_bytes))

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """The images of those numbers, uint8[len(numbers), height, width, 3]."""
        images = np.empty((len(numbers), *self._shape), dtype=np.uint8)
        for position, number in enumerate(numbers):
            data = os.pread(self._file.fileno(), self._image_bytes, number * self._image_bytes)
            images[position] = np.frombuffer(data, dtype=np.uint8).reshape(self._shape)
        return images

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
