"""Ids, stems and class names as in the v3 contract."""

from __future__ import annotations

import pytest

from ocelli_api.names import build_classifier_id, build_object_name, build_stem, class_name_fault, is_classifier_id


@pytest.mark.parametrize(
    ("name", "stem"),
    [("Dog Breeds", "DogBreeds"), ("sdk-test", "sdkxtest"), ("日本 犬", "xxx"), ("a" * 50, "a" * 36), ("é_1", "xx1")],
)
def test_the_stem_drops_white_space_and_replaces_other_characters_by_x(name: str, stem: str) -> None:
    assert build_stem(name) == stem


def test_an_id_is_stem_and_number() -> None:
    assert build_classifier_id("Dog Breeds", 2014254824) == "DogBreeds_2014254824"


@pytest.mark.parametrize("text", ["dogs_1", "Dogs2_2147483647"])
def test_these_are_ids(text: str) -> None:
    assert is_classifier_id(text)


@pytest.mark.parametrize(
    "text", ["", "dogs", "dogs__1", "dogs_", "dogs_12345678901", "dögs_1", "dogs_1\n", "../dogs_1", "dogs_١"]
)
def test_these_are_not_ids(text: str) -> None:
    assert not is_classifier_id(text)


def test_the_object_name_of_the_longest_id_is_within_the_limit() -> None:
    assert len(build_object_name(build_classifier_id("a" * 128, 2**31 - 1))) <= 48


@pytest.mark.parametrize("character", "$*-{}\\|/'\"`[]\n\x00")
def test_a_class_name_may_not_contain(character: str) -> None:
    assert class_name_fault(f"a{character}b") is not None


@pytest.mark.parametrize("name", ["", "  ", "a" * 129])
def test_a_class_name_is_neither_blank_nor_too_long(name: str) -> None:
    assert class_name_fault(name) is not None


@pytest.mark.parametrize("name", ["beagle", "日本犬", "golden retriever", "a" * 128, "A.b,c:d;e!"])
def test_other_class_names_are_valid(name: str) -> None:
    assert class_name_fault(name) is None
