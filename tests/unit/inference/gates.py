"""A decoder and an engine that wait until the test releases them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

PATIENCE_SECONDS = 10.0


class GatedEngine:
    """An engine whose features are the images' sums; it waits while its gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.failure: Exception | None = None

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(images))
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.failure is not None:
            raise self.failure
        sums: NDArray[np.float32] = images.reshape(len(images), -1).sum(axis=1, dtype=np.float32)
        return sums[:, None]


LARGE = b"\xf0"
"""The smallest file that counts as large."""


class GatedImage:
    """What a `GatedDecoder` has opened."""

    def __init__(self, decoder: GatedDecoder, data: bytes) -> None:
        self.is_large = data >= LARGE
        self._decoder = decoder
        self._data = data

    def decode(self) -> NDArray[np.uint8]:
        if self._data in self._decoder.held:
            assert self._decoder.held[self._data].wait(PATIENCE_SECONDS)
        if self._data == b"!":
            raise ValueError("not decodable")
        self._decoder.decoded.append(self._data)
        return np.full((1, 1, 1), self._data[0], dtype=np.uint8)


class GatedDecoder:
    """A decoder of one-byte files; it waits on the ones that a test holds back."""

    def __init__(self) -> None:
        self.held: dict[bytes, threading.Event] = {}
        self.opened: list[bytes] = []
        self.decoded: list[bytes] = []

    def open(self, data: bytes) -> GatedImage:
        self.opened.append(data)
        return GatedImage(self, data)

    def hold(self, data: bytes) -> threading.Event:
        self.held[data] = threading.Event()
        return self.held[data]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (the condition changes in other threads)
            await asyncio.sleep(0.001)
