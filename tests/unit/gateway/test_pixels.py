"""Pixels of uploaded images: who waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ocelli_gateway import pixels
from ocelli_gateway.pixels import PixelReader
from tests.unit.gateway.harness import png

LARGE, SMALL = png(size=(40, 40)), png(size=(12, 12))


class Decoder:
    """Decodes large images when it may."""

    def __init__(self) -> None:
        self.may_decode = threading.Event()

    def sample(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        if image.width >= 40:
            assert self.may_decode.wait(timeout=30)
        return np.zeros((image.height, image.width, 3), dtype=np.uint8)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    made = Decoder()
    monkeypatch.setattr(pixels, "_sample", made.sample)
    monkeypatch.setattr(pixels, "_LARGE_PIXELS", 1000)
    yield made
    made.may_decode.set()


def test_large_images_of_one_tenant_leave_threads_for_small_ones_of_another(decoder: Decoder) -> None:
    async def body() -> None:
        reader = PixelReader(timeout_seconds=30)
        large = [asyncio.create_task(reader.read(LARGE, "anna")) for _ in range(4)]
        # They come first.
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await reader.read(SMALL, "bert")
        assert not any(task.done() for task in large)
        decoder.may_decode.set()
        await asyncio.gather(*large)
        reader.close()

    asyncio.run(body())
