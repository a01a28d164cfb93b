"""Thumbnails of a report: their size, their number, and whose pictures are left out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES
from ocelli_training.dataset import Example
from ocelli_training.pixel_file import PixelFile
from ocelli_training.thumbnails import THUMBNAILS_LIMIT, build_thumbnails, encode_thumbnail

ANNA = "a" * 32


@pytest.fixture
def pixels(tmp_path: Path) -> Iterator[PixelFile]:
    with PixelFile(tmp_path / "pixels", height=8, width=8) as file:
        file.append(np.zeros((8, 8, 3), dtype=np.uint8))
        yield file


def make_examples(*digests: str, customer: str | None = None) -> list[Example]:
    return [Example(digest=digest, set_index=0, name="x", source="s", customer=customer) for digest in digests]


@pytest.mark.parametrize("shape", [(224, 224, 3), (600, 400, 3), (1, 3000, 3)])
def test_noise_of_any_shape_fits_the_limit(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    data = encode_thumbnail(noise)
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) <= 128
    assert len(data) <= THUMBNAIL_LIMIT_BYTES


def test_each_picture_has_one_thumbnail_in_the_order_of_importance(pixels: PixelFile) -> None:
    lines = build_thumbnails(["b", "a", "b"], make_examples("a", "b"), pixels, {"a": 0, "b": 0})
    assert list(lines) == ["b", "a"]


def test_the_number_is_bounded(pixels: PixelFile) -> None:
    digests = [str(number) for number in range(THUMBNAILS_LIMIT + 5)]
    lines = build_thumbnails(digests, make_examples(*digests), pixels, dict.fromkeys(digests, 0))
    assert list(lines) == digests[:THUMBNAILS_LIMIT]


def test_pictures_without_pixels_or_example_have_none(pixels: PixelFile) -> None:
    assert build_thumbnails(["a", "b"], make_examples("a"), pixels, {"b": 0}) == {}


def test_a_thumbnail_names_the_customer_whose_picture_it_is(pixels: PixelFile) -> None:
    (line,) = build_thumbnails(["a"], make_examples("a", customer=ANNA), pixels, {"a": 0}).values()
    assert f'data-customer="{ANNA}"' in line


def test_pictures_of_an_erased_customer_are_not_shown(pixels: PixelFile) -> None:
    assert build_thumbnails(["a"], make_examples("a", customer=ANNA), pixels, {"a": 0}, {ANNA}) == {}
