"""Decoding of uploaded images: large ones do not delay small ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ocelli_gateway import pixels
from ocelli_gateway.pixels import PixelReader
from ocelli_storage.image_file import ImageFile
from tests.gateway_harness.images import png

pytestmark = pytest.mark.slow

LARGE, SMALL = png(size=(40, 40)), png(size=(12, 12))


class Decoder:
    """Decodes large images when the test allows it."""

    def __init__(self) -> None:
        self.may_decode = threading.Event()

    def sample(self, image: ImageFile) -> npt.NDArray[np.uint8]:
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


def test_100_megapixels_with_opacity_take_little_more_memory_than_the_decoded_image(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGBA", (10_000, 10_000), (255, 0, 0, 128)).save(path)
    program = (
        "import re, sys, pathlib\n"
        "from ocelli_gateway.pixels import PIXELS_LIMIT, _decode\n"
        "_decode(pathlib.Path(sys.argv[1]).read_bytes(), PIXELS_LIMIT)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024)"
    )

    # In a separate process, because a peak of memory stays.
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)

    assert int(ran.stdout) < 560
