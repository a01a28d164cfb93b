"""The colours that `default` names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocelli_gateway.colors import LEAST_SHARE, PALETTE, name_colors, to_lab


@pytest.mark.parametrize(
    ("color", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_lab_values_are_those_of_the_standard(color: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert to_lab(np.array([color], dtype=np.uint8))[0] == pytest.approx(lab, abs=0.02)


@pytest.mark.parametrize("name", PALETTE)
def test_each_color_of_the_palette_has_its_own_name_first(name: str) -> None:
    pixels = np.full((8, 8, 3), list(bytes.fromhex(PALETTE[name][1:])), dtype=np.uint8)
    assert [(item.class_name, item.score) for item in name_colors(pixels)] == [(f"{name} color", 1.0)]


def test_no_two_names_mean_one_color() -> None:
    assert len(set(PALETTE.values())) == len(PALETTE)


@given(color=st.tuples(*[st.integers(0, 255)] * 3))
def test_plain_image_of_any_color_has_a_name_of_full_score(color: tuple[int, int, int]) -> None:
    assert [item.score for item in name_colors(np.full((5, 7, 3), color, dtype=np.uint8))] == [1.0]


def test_a_tenth_of_the_image_is_a_score_of_one_half() -> None:
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    pixels[0] = (229, 0, 0)
    scores = {item.class_name: item.score for item in name_colors(pixels)}
    assert scores["red color"] == 0.5
    assert list(scores) == ["black color", "red color"]


def test_specks_have_no_name() -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[0, : int(LEAST_SHARE * 10_000) - 1] = (229, 0, 0)
    assert [item.class_name for item in name_colors(pixels)] == ["black color"]
