"""The same picture in other bytes is found, another picture is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from ocelli_training.near_duplicates import DIFFERENCE_LIMIT, FINGERPRINT_CELLS, fingerprints, have_near_duplicate


def make_picture(seed: int) -> Image.Image:
    """Soft blobs, as photographs have them: noise would not survive compression."""
    noise = np.random.default_rng(seed).integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR))


def saved_again(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


PICTURES = fingerprints(np.stack([pixels(make_picture(seed)) for seed in range(200)]))


@pytest.mark.parametrize("quality", [95, 75, 40])
def test_a_picture_saved_again_is_a_near_duplicate(quality: int) -> None:
    again = fingerprints(np.stack([pixels(saved_again(make_picture(seed), quality)) for seed in range(200)]))
    assert have_near_duplicate(again, PICTURES).mean() > 0.95


def test_a_picture_made_smaller_is_a_near_duplicate() -> None:
    smaller = fingerprints(np.stack([pixels(make_picture(seed).resize((80, 60))) for seed in range(50)]))
    assert have_near_duplicate(smaller, PICTURES).mean() > 0.95


def test_other_pictures_are_no_near_duplicates() -> None:
    others = fingerprints(np.stack([pixels(make_picture(seed)) for seed in range(1000, 1200)]))
    assert not have_near_duplicate(others, PICTURES).any()


def test_a_picture_among_the_candidates_is_not_its_own_duplicate() -> None:
    assert not have_near_duplicate(PICTURES, PICTURES, least_matches=2).any()


def test_different_digits_of_the_same_kind_are_no_near_duplicates() -> None:
    # Plain paper round a few strokes: what is alike between them is most of the picture.
    zeros = [image for image, digit in zip(*load_digits(return_X_y=True), strict=True) if digit == 0][:100]
    pictures = [Image.fromarray((255 - image.reshape(8, 8) * 15).astype(np.uint8)).convert("RGB") for image in zeros]
    prints = fingerprints(np.stack([pixels(picture) for picture in pictures]))
    assert not have_near_duplicate(prints, prints, least_matches=2).any()


def test_pictures_that_differ_by_more_than_the_limit_are_different() -> None:
    grey = np.full((1, FINGERPRINT_CELLS), 100, dtype=np.float32)
    assert have_near_duplicate(grey, grey + DIFFERENCE_LIMIT).tolist() == [True]
    assert have_near_duplicate(grey, grey + DIFFERENCE_LIMIT * 1.01).tolist() == [False]


def test_nothing_is_a_duplicate_of_nothing() -> None:
    assert have_near_duplicate(PICTURES, PICTURES[:0]).sum() == 0
