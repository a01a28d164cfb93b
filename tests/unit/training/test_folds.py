"""Folds depend only on groups of near duplicates, content and seed."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocelli_training.folds import FOLDS, assign_folds
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, GRID, group_near_duplicates

FEATURES = 48


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The data of an image before training."""

    digest: str
    fingerprint: NDArray[np.float16]
    features: NDArray[np.float32]
    set_index: int = 0


@functools.cache
def make_picture(motif: int, copy: int = 0, *, set_index: int = 0) -> Picture:
    """Copies of one motif are near duplicates of each other. All motifs have much in common, as those of one camera have."""
    shared, own = np.random.default_rng(0).normal(size=FEATURES), np.random.default_rng((1, motif)).normal(size=FEATURES)
    noise = np.random.default_rng((2, motif, copy)).normal(size=FEATURES)
    features = shared + 0.25 * own + 0.02 * noise
    scene = np.random.default_rng(3).uniform(0, 255, size=(3, 8, 8)).repeat(4, axis=1).repeat(4, axis=2)
    drawn = np.random.default_rng((4, motif)).uniform(0, 255, size=(3, 8, 8)).repeat(4, axis=1).repeat(4, axis=2)
    blurred = np.random.default_rng((5, motif, copy)).normal(0, 1, size=(3, GRID, GRID))
    return Picture(
        digest=hashlib.sha256(f"{motif} {copy}".encode()).hexdigest(),
        fingerprint=(0.6 * scene + 0.4 * drawn + blurred).astype(np.float16).reshape(FINGERPRINT_NUMBERS),
        features=(features / np.linalg.norm(features)).astype(np.float32),
        set_index=set_index,
    )


def find_groups(pictures: list[Picture]) -> NDArray[np.intp]:
    return group_near_duplicates(
        np.stack([picture.fingerprint for picture in pictures]),
        np.stack([picture.features for picture in pictures]),
        np.array([picture.set_index for picture in pictures]),
        sorted(range(len(pictures)), key=lambda row: pictures[row].digest),
    )


def find_folds(pictures: list[Picture], *, seed: int = 0) -> dict[str, int]:
    """By digest."""
    groups, sets = find_groups(pictures), np.array([picture.set_index for picture in pictures])
    folds = assign_folds([picture.digest for picture in pictures], groups, sets, seed)
    return {picture.digest: int(fold) for picture, fold in zip(pictures, folds, strict=True)}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    copies=st.lists(st.integers(0, 2), min_size=15, max_size=25),
    position=st.integers(0, 15),
    motif=st.integers(1000, 100_000),
    seed=st.integers(0, 100),
)
def test_an_added_image_that_is_not_a_near_duplicate_moves_no_other(
    copies: list[int], position: int, motif: int, seed: int
) -> None:
    pictures = [
        make_picture(number, copy, set_index=number % 2) for number, count in enumerate(copies) for copy in range(1 + count)
    ]

    before = find_folds(pictures, seed=seed)
    after = find_folds([*pictures[:position], make_picture(motif), *pictures[position:]], seed=seed)

    assert {digest: after[digest] for digest in before} == before


def test_an_added_image_may_be_older_than_all_others() -> None:
    pictures = [make_picture(number // 2, number % 2, set_index=number // 2 % 2) for number in range(60)]
    oldest = next(
        picture
        for picture in (make_picture(motif) for motif in range(1000, 5000))
        if picture.digest < min(picture.digest for picture in pictures)
    )

    before, after = find_folds(pictures), find_folds([oldest, *pictures])

    assert {digest: after[digest] for digest in before} == before


def test_copies_are_one_group_and_motifs_are_not() -> None:
    groups = find_groups([make_picture(number // 3, number % 3) for number in range(90)])

    assert len(np.unique(groups)) == 30
    assert (groups.reshape(30, 3) == groups.reshape(30, 3)[:, :1]).all()


def test_near_duplicates_in_any_classes_have_one_fold() -> None:
    pictures = [make_picture(number // 3, number % 3, set_index=number % 3) for number in range(90)]

    folds = np.array(list(find_folds(pictures).values())).reshape(30, 3)

    assert (folds == folds[:, :1]).all()


def test_folds_have_about_the_same_size() -> None:
    digests = [hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(5000)]
    rows = np.arange(5000)

    folds = assign_folds(digests, rows, rows % 3, 0)

    assert (np.abs(np.bincount(folds, minlength=FOLDS) - 1000) < 120).all()


def test_another_seed_gives_other_folds() -> None:
    pictures = [make_picture(number) for number in range(30)]

    assert find_folds(pictures, seed=0) != find_folds(pictures, seed=1)


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.integers(0, 3), min_size=4, max_size=12), names=st.integers(0, 10_000), seed=st.integers(0, 10_000))
def test_every_set_of_two_images_has_two_folds(groups: list[int], names: int, seed: int) -> None:
    # Sets of one burst, of two bursts, of two images: for any digests, they have two folds.
    oldest = {group: row for row, group in reversed(list(enumerate(groups)))}
    own = np.array([oldest[group] for group in groups])
    digests = [hashlib.sha256(f"{names} {row}".encode()).hexdigest() for row in range(2 * len(groups))]
    sets = np.repeat([0, 1], len(groups))

    folds = assign_folds(digests, np.concatenate([own, own + len(groups)]), sets, seed)

    assert [len(np.unique(folds[sets == index])) > 1 for index in (0, 1)] == [True, True]
