"""The same picture in other bytes is found, another picture is not. With features of the real network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from ocelli_training.evaluate import JudgedImage, evaluate
from ocelli_training.fit import Examples, fit_heads, normalised_rows
from ocelli_training.folds import assign_folds
from ocelli_training.near_duplicates import GRID, fingerprints, group_near_duplicates
from tests.unit.training import made_pictures as pictures

PICTURES = 16


def find_groups(files: Sequence[bytes], sets: Sequence[int] | None = None) -> NDArray[np.intp]:
    """The first files are the oldest; all of one class unless their sets are given."""
    prints, features = pictures.find_features(files)
    own = np.zeros(len(files), dtype=np.intp) if sets is None else np.array(sets, dtype=np.intp)
    return group_near_duplicates(prints, normalised_rows(features), own, range(len(files)))


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [*pictures.photographs(), *(pictures.textured(seed) for seed in range(PICTURES - 2))]


def share_found(originals: list[Image.Image], changed: list[bytes]) -> float:
    """Of the changed pictures, those that are grouped with their original."""
    groups = find_groups([*(pictures.save(picture) for picture in originals), *changed])
    # Originals are groups of their own.
    assert (groups[: len(originals)] == np.arange(len(originals))).all()
    return float((groups[len(originals) :] == np.arange(len(changed))).mean())


@pytest.mark.slow
@pytest.mark.parametrize("quality", [75, 40])
def test_a_picture_saved_again_is_a_near_duplicate(originals: list[Image.Image], quality: int) -> None:
    again = [Image.open(io.BytesIO(pictures.save(picture))) for picture in originals]

    assert share_found(originals, [pictures.save(picture, quality) for picture in again]) == 1


@pytest.mark.slow
def test_a_scaled_picture_is_a_near_duplicate(originals: list[Image.Image]) -> None:
    smaller = [picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS) for picture in originals]

    assert share_found(originals, [pictures.save(picture, 75) for picture in smaller]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_burst_is_one_group(number: int) -> None:
    scene = [*pictures.photographs(), pictures.textured(0)][number]

    assert len(np.unique(find_groups(pictures.take_burst(scene, 10, seed=number)))) == 1


def test_a_mirrored_picture_is_a_near_duplicate_within_its_class_only() -> None:
    scene = pictures.textured(3)
    files = [pictures.save(scene), pictures.save(scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]

    assert find_groups(files, [0, 0]).tolist() == [0, 0]
    assert find_groups(files, [0, 1]).tolist() == [0, 1]


@pytest.mark.parametrize("scene", ["temple", "flower", "textured", "plain"])
@pytest.mark.parametrize("object_part", [0.1, 0.25, 0.6], ids=["small", "middle", "large"])
def test_pictures_of_a_fixed_camera_are_not_one_group(scene: str, object_part: float) -> None:
    temple, flower = pictures.photographs()
    plain = Image.new("RGB", pictures.SIZE, (150, 150, 140))
    background = {"temple": temple, "flower": flower, "textured": pictures.textured(5), "plain": plain}[scene]

    groups = find_groups(pictures.take_from_fixed_camera(background, 10, object_part=object_part))

    # Now and then chance draws nearly the same twice.
    assert len(np.unique(groups)) >= 8


@pytest.mark.slow
def test_a_slowly_changing_series_is_not_one_group() -> None:
    # A camera that turns: each picture is nearly the one before, the last shows another half of the scene than the first.
    scene = pictures.photographs()[0]
    part = scene.width // 2
    series = [
        pictures.save(scene.crop((left, 0, left + part, part)).resize(pictures.SIZE))
        for left in np.linspace(0, scene.width - part, 48).astype(int)
    ]

    groups = find_groups(series)

    assert all(find_groups(series[index : index + 2]).tolist() == [0, 0] for index in (0, 23, 46))
    assert len(np.unique(groups)) >= 4
    assert groups[-1] != groups[0]


@pytest.mark.slow
def test_other_pictures_are_not_near_duplicates() -> None:
    groups = find_groups([pictures.save(pictures.textured(seed)) for seed in range(100, 130)])

    assert len(np.unique(groups)) == 30


def test_shapes_that_differ_only_in_colour_are_not_near_duplicates() -> None:
    # Traffic lights: of the same brightness, before the same street.
    files = []
    for colour in ((200, 40, 40), (20, 125, 20), (60, 80, 190)):
        picture = pictures.photographs()[1].resize(pictures.SIZE)
        ImageDraw.Draw(picture).ellipse((90, 90, 125, 125), fill=colour)
        files.append(pictures.save(picture))

    assert find_groups(files).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_handwritten_digits_of_one_kind_are_not_one_group() -> None:
    # Plain paper around a few strokes: most of the picture is the same.
    zeros = [image for image, digit in zip(*load_digits(return_X_y=True), strict=True) if digit == 0][:40]
    scans = [Image.fromarray((255 - image.reshape(8, 8) * 15).astype(np.uint8)).resize((64, 64)) for image in zeros]

    assert len(np.unique(find_groups([pictures.save(scan) for scan in scans]))) > 25


@pytest.mark.slow
def test_a_burst_does_not_raise_the_accuracy() -> None:
    # Classes by chance: the truth is a half, and heads can know nothing of a picture but from its near copies.
    others = [pictures.save(pictures.textured(seed)) for seed in range(200, 230)]
    files = [*others, *pictures.take_burst(pictures.photographs()[0], 20, seed=1)]
    prints, features = pictures.find_features(files)
    digests = [hashlib.sha256(data).hexdigest() for data in files]

    def accuracy(classes: NDArray[np.intp], *, grouped: bool = True) -> float:
        count = len(classes)
        groups = np.arange(count)
        if grouped:
            groups = group_near_duplicates(prints[:count], normalised_rows(features[:count]), classes, range(count))
        membership, folds = np.eye(2, dtype=np.bool_)[classes], assign_folds(digests[:count], groups, classes, 0)
        fit = fit_heads(Examples(features=features[:count], membership=membership, folds=folds))
        images = [JudgedImage(name="", sha256=digest) for digest in digests[:count]]
        return evaluate(fit, membership, groups, ["a", "b"], images).accuracy

    without, burst, single_images = [], [], []
    for seed in range(10):
        chance = np.random.default_rng(seed).permutation(np.arange(30) % 2)
        with_burst = np.concatenate([chance, np.zeros(20, dtype=np.intp)])
        without.append(accuracy(chance))
        burst.append(accuracy(with_burst))
        single_images.append(accuracy(with_burst, grouped=False))

    assert max(np.mean(without), np.mean(burst)) < 0.54
    assert np.mean(single_images) > np.mean(without) + 0.1


def test_near_duplicates_are_found_across_classes() -> None:
    burst = pictures.take_burst(pictures.photographs()[0], 4)

    assert len(np.unique(find_groups(burst, [0, 1, 2, 3]))) == 1


def test_groups_are_formed_around_their_oldest_image() -> None:
    prints, features = pictures.find_features(pictures.take_burst(pictures.photographs()[1], 4))

    groups = group_near_duplicates(prints, normalised_rows(features), np.zeros(4, dtype=np.intp), [2, 0, 3, 1])

    assert groups.tolist() == [2, 2, 2, 2]


def test_a_fingerprint_contains_the_mean_colours_of_each_cell() -> None:
    image = np.zeros((GRID * 3 + 5, GRID * 2 + 7, 3), dtype=np.uint8)
    image[..., 0], image[..., 2] = 200, 7
    image[: image.shape[0] // 2, :, 1] = 100

    red, green, blue = fingerprints(image[np.newaxis])[0].reshape(3, GRID, GRID)

    assert (red == 200).all()
    assert (blue == 7).all()
    assert (green[: GRID // 2 - 1] == 100).all()
    assert (green[GRID // 2 + 1 :] == 0).all()


def test_no_images_have_no_groups() -> None:
    empty = np.empty((0, 3 * GRID * GRID), dtype=np.float16)

    assert group_near_duplicates(empty, np.empty((0, 1280), dtype=np.float32), np.empty(0, dtype=np.intp), []).size == 0
