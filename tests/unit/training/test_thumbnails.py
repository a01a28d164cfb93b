"""Thumbnails of a training: their size, their number, whose images are left out, and what the next training reuses."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocelli_storage.layout import THUMBNAILS
from ocelli_storage.object_store import StoreQuotaError
from ocelli_storage.thumbnail_files import IMAGES_LIMIT
from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES
from ocelli_training.dataset import Example
from ocelli_training.thumbnails import SHOWN_LIMIT, Thumbnails, ThumbnailSource, encode_thumbnail, load_thumbnails
from tests.unit.training.conftest import Trainer

ANNA = "a" * 32
MINE, OTHER = "1" * 64, "2" * 64

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


def make(
    shown: Sequence[str], examples: Sequence[Example], pixels: Mapping[str, Any], known: Mapping[str, bytes] | None = None
) -> Thumbnails:
    return ThumbnailSource(find_pixels=pixels.get, threads=2, known=known).make(shown, examples)


def test_shown_images_come_first_and_once() -> None:
    made = make(["b", "a", "b"], make_examples("a", "b"), {"a": PIXELS, "b": PIXELS})
    assert list(made.build_lines()) == ["b", "a"]


def test_the_number_of_thumbnails_in_a_page_is_bounded() -> None:
    digests = [str(number) for number in range(SHOWN_LIMIT + 5)]
    made = make(digests, make_examples(*digests), dict.fromkeys(digests, PIXELS))
    assert list(made.build_lines()) == digests[:SHOWN_LIMIT]


def test_other_examples_have_thumbnails_that_the_page_does_not_show() -> None:
    made = make(["b"], make_examples("a", "b"), {"a": PIXELS, "b": PIXELS})
    assert list(made.files) == ["b", "a"]
    assert list(made.build_lines()) == ["b"]


def test_the_number_of_stored_thumbnails_is_bounded_and_each_set_has_some() -> None:
    digests = [f"{number:04}" for number in range(IMAGES_LIMIT + 10)]
    examples = [*make_examples(*digests), Example(digest="other", set_index=1, name="x", source="s", customer=None)]
    made = make(digests[-3:], examples, dict.fromkeys((*digests, "other"), PIXELS))
    assert len(made.files) == IMAGES_LIMIT
    assert {*digests[-3:], "other"} <= set(made.files)


def test_known_thumbnails_are_not_made_again() -> None:
    made = make([], make_examples("a", "b"), {"b": PIXELS}, known={"a": b"known"})
    assert made.files["a"] == b"known"
    assert made.files["b"].startswith(b"\xff\xd8")


def test_images_without_pixels_or_example_have_none() -> None:
    assert make(["a", "b"], make_examples("a"), {"b": PIXELS}).files == {}


def test_a_thumbnail_names_the_customer_whose_image_it_is() -> None:
    (line,) = make(["a"], make_examples("a", customer=ANNA), {"a": PIXELS}).build_lines().values()
    assert f'data-customer="{ANNA}"' in line


def test_images_of_an_erased_customer_are_not_shown() -> None:
    assert make(["a"], make_examples("a", customer=ANNA), {"a": PIXELS}).build_lines({ANNA}) == {}


def test_images_of_an_erased_customer_are_not_stored(trainer: Trainer) -> None:
    made = make([], [*make_examples(MINE, customer=ANNA), *make_examples(OTHER)], {MINE: PIXELS, OTHER: PIXELS})
    save(trainer, made, {ANNA})
    assert list(load(trainer)) == [OTHER]


def save(trainer: Trainer, made: Thumbnails, erased: Collection[str] = (), revision: str = Trainer.revision) -> None:
    key_of = partial(trainer.location.image_data_key, revision, file=THUMBNAILS)
    asyncio.run(made.save(trainer.store, key_of, erased))


def load(trainer: Trainer) -> dict[str, bytes]:
    return asyncio.run(load_thumbnails(trainer.store, trainer.location))


def test_those_of_the_last_training_are_found_with_all_customers(trainer: Trainer) -> None:
    save(trainer, make([], make_examples("c" * 64), {"c" * 64: PIXELS}), revision="f" * 10)
    made = make([], [*make_examples(MINE, customer=ANNA), *make_examples(OTHER)], {MINE: PIXELS, OTHER: PIXELS})
    save(trainer, made)
    assert load(trainer) == made.files


def test_a_classifier_without_thumbnails_has_none(trainer: Trainer) -> None:
    assert load(trainer) == {}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 100], ids=["empty", "noise", "long header"])
def test_a_damaged_file_is_logged_and_not_used(trainer: Trainer, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    trainer.put(trainer.location.image_data_key(trainer.revision, None, THUMBNAILS), content)
    assert load(trainer) == {}
    assert "thumbnails.ignored" in caplog.messages


def test_thumbnails_that_exceed_the_quota_fail_nothing(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(key: str, data: bytes) -> None:
        raise StoreQuotaError(key, "full")

    monkeypatch.setattr(trainer.store, "put", refuse)
    save(trainer, make([], make_examples(MINE), {MINE: PIXELS}))
    assert "thumbnails.not_stored" in caplog.messages
