import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from ocelli_api.prediction import ImageFault
from ocelli_model import image_decoder
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import Preprocessing, decode_image
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.image_file import PIXELS_LIMIT, ImageError
from tests.unit.model.images import encode, make_file, make_pixels

DESCRIPTION = Preprocessing(height=32, width=32)
DEADLINE_SECONDS = 20


class HeldDecoding:
    """Decodings that start and then wait until the test releases them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        monkeypatch.setattr(image_decoder, "OpenedImage", lambda data, *_: HeldImage(self, int(data)))


class HeldImage:
    def __init__(self, held: HeldDecoding, pixels: int) -> None:
        self.pixels = pixels
        self._held = held

    def decode(self) -> Any:
        self._held.begun.release()
        assert self._held.go.wait(DEADLINE_SECONDS)
        return np.zeros((32, 32, 3), dtype=np.uint8)


def megapixels(count: int) -> bytes:
    return str(count * 1_000_000).encode()


@pytest.fixture
def decoder() -> ImageDecoder:
    return ImageDecoder(DESCRIPTION)


@pytest.fixture
def submit(decoder: ImageDecoder) -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield lambda data: pool.submit(decoder, data)


def test_an_image_is_the_same_as_from_decode_image() -> None:
    data = make_file(make_pixels(), "PNG")

    assert np.array_equal(ImageDecoder(DESCRIPTION)(data), decode_image(data, DESCRIPTION))


def test_images_are_decoded_concurrently_within_the_limit(
    submit: Callable[[bytes], Future[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldDecoding(monkeypatch)
    for _ in range(4):
        submit(megapixels(25))

    begun = [held.begun.acquire(timeout=DEADLINE_SECONDS) for _ in range(4)]

    held.go.set()
    assert all(begun)


def test_image_without_room_waits_and_is_not_overtaken(
    decoder: ImageDecoder, submit: Callable[[bytes], Future[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldDecoding(monkeypatch)
    submit(megapixels(30))
    assert held.begun.acquire(timeout=DEADLINE_SECONDS)
    large = submit(megapixels(100))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not decoder._turn.locked():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    overtaking = submit(megapixels(5))

    begun_too_early = held.begun.acquire(timeout=0.2)
    held.go.set()

    assert not begun_too_early
    assert large.result(DEADLINE_SECONDS) is not None
    assert overtaking.result(DEADLINE_SECONDS) is not None


def test_small_image_does_not_wait_for_large_ones(
    submit: Callable[[bytes], Future[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldDecoding(monkeypatch)
    submit(megapixels(100))
    assert held.begun.acquire(timeout=DEADLINE_SECONDS)

    submit(megapixels(1))
    begun = held.begun.acquire(timeout=DEADLINE_SECONDS)

    held.go.set()
    assert begun


@pytest.mark.parametrize(
    ("data", "large"),
    [
        (encode(Image.new("RGB", (6000, 4000)), "JPEG"), False),
        # Its decoder keeps all coefficients.
        (encode(Image.new("RGB", (6000, 4000)), "JPEG", progressive=True), True),
        (encode(Image.new("RGB", (6000, 4000)), "PNG"), True),
        (encode(Image.new("RGB", (1600, 1200)), "PNG"), False),
    ],
    ids=["camera", "progressive", "png", "small"],
)
def test_image_is_large_by_the_memory_of_its_decoding(decoder: ImageDecoder, data: bytes, large: bool) -> None:
    assert decoder.open(data).is_large is large


def test_asking_whether_an_image_is_large_decodes_nothing(decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))

    assert decoder.open(encode(Image.new("RGB", (3000, 2000)), "PNG")).is_large


@pytest.mark.slow
def test_a_failed_image_releases_its_memory() -> None:
    decoder = ImageDecoder(DESCRIPTION)
    cut_off = encode(Image.new("RGB", (9000, 9000)), "PNG")[:200]

    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            decoder(cut_off)
        assert caught.value.kind is ImageFault.CORRUPT


def test_an_image_of_too_many_pixels_is_refused_without_waiting() -> None:
    side = int(PIXELS_LIMIT**0.5) + 1
    with pytest.raises(ImageError) as caught:
        ImageDecoder(DESCRIPTION)(encode(Image.new("1", (side, side)), "PNG"))

    assert caught.value.kind is ImageFault.TOO_MANY_PIXELS


def test_only_the_kinds_asked_for_are_accepted() -> None:
    with pytest.raises(ImageError) as caught:
        ImageDecoder(DESCRIPTION, EXAMPLE_KINDS)(make_file(make_pixels(), "TIFF"))

    assert caught.value.kind is ImageFault.NOT_AN_IMAGE


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "GIF"])
def test_the_header_of_an_image_is_read_once(monkeypatch: pytest.MonkeyPatch, image_format: str) -> None:
    data = make_file(make_pixels(), image_format)
    opened: list[Any] = []
    open_file = Image.open
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: opened.append(1) or open_file(*arguments, **options))

    ImageDecoder(DESCRIPTION)(data)

    assert len(opened) == 1
