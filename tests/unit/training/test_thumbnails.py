"""Thumbnails of a report: their size, their number, and whose images are left out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES
from ocelli_training.dataset import Example
from ocelli_training.thumbnails import THUMBNAILS_LIMIT, build_thumbnails, encode_thumbnail

ANNA = "a" * 32


PIXELS = np.zeros((8, 8, 3), dtype=np.uint8)


def make_examples(*digests: str, customer: str | None = None) -> list[Example]:
    return [Example(digest=digest, set_index=0, name="x", source="s", customer=customer) for digest in digests]


@pytest.mark.parametrize("shape", [(224, 224, 3), (600, 400, 3), (1, 3000, 3)])
def test_noise_of_any_shape_fits_the_limit(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    data = encode_thumbnail(noise)
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) <= 128
    assert len(data) <= THUMBNAIL_LIMIT_BYTES


def test_each_image_has_one_thumbnail_in_the_order_of_importance() -> None:
    lines = build_thumbnails(["b", "a", "b"], make_examples("a", "b"), {"a": PIXELS, "b": PIXELS}.get)
    assert list(lines) == ["b", "a"]


def test_the_number_is_bounded() -> None:
    digests = [str(number) for number in range(THUMBNAILS_LIMIT + 5)]
    lines = build_thumbnails(digests, make_examples(*digests), dict.fromkeys(digests, PIXELS).get)
    assert list(lines) == digests[:THUMBNAILS_LIMIT]


def test_images_without_pixels_or_example_have_none() -> None:
    assert build_thumbnails(["a", "b"], make_examples("a"), {"b": PIXELS}.get) == {}


def test_a_thumbnail_names_the_customer_whose_image_it_is() -> None:
    (line,) = build_thumbnails(["a"], make_examples("a", customer=ANNA), {"a": PIXELS}.get).values()
    assert f'data-customer="{ANNA}"' in line


def test_images_of_an_erased_customer_are_not_shown() -> None:
    assert build_thumbnails(["a"], make_examples("a", customer=ANNA), {"a": PIXELS}.get, {ANNA}) == {}
