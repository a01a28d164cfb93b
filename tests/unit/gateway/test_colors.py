"""The colours that `default` names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocelli_gateway.colors import BASIC, LEAST_SHARE, PALETTE, name_colors, to_lab


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


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ((255, 0, 0), "red"),
        ((220, 20, 20), "red"),
        ((244, 67, 54), "red"),
        ((235, 50, 45), "red"),
        ((0, 255, 0), "green"),
        ((0, 128, 0), "green"),
        ((0, 0, 255), "blue"),
        ((0, 0, 200), "blue"),
        ((30, 90, 220), "blue"),
        ((0, 0, 128), "navy blue"),
        ((255, 255, 0), "yellow"),
        ((255, 165, 0), "orange"),
        ((255, 128, 0), "orange"),
        ((128, 0, 128), "purple"),
        ((255, 192, 203), "pink"),
        ((139, 69, 19), "brown"),
        ((128, 128, 128), "gray"),
        ((10, 10, 10), "black"),
        ((248, 248, 248), "white"),
    ],
)
def test_plain_colors_have_their_common_names(color: tuple[int, int, int], name: str) -> None:
    assert name_colors(np.full((5, 5, 3), color, dtype=np.uint8))[0].class_name == f"{name} color"


@pytest.mark.parametrize("name", BASIC)
def test_basic_color_term_names_the_colors_near_its_centre(name: str) -> None:
    centre = np.array(list(bytes.fromhex(PALETTE[name][1:])))
    noise = np.random.default_rng(0).integers(-10, 11, (40, 40, 3))
    pixels = np.clip(centre + noise, 0, 255).astype(np.uint8)

    first = name_colors(pixels)[0]

    assert (first.class_name, first.score > 0.97) == (f"{name} color", True)


def test_no_color_has_two_names() -> None:
    assert len(set(PALETTE.values())) == len(PALETTE)


@given(color=st.tuples(*[st.integers(0, 255)] * 3))
def test_plain_image_of_any_color_has_a_name_of_full_score(color: tuple[int, int, int]) -> None:
    assert [item.score for item in name_colors(np.full((5, 7, 3), color, dtype=np.uint8))] == [1.0]


def test_a_color_of_a_tenth_of_the_image_scores_one_half() -> None:
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    pixels[0] = (229, 0, 0)
    scores = {item.class_name: item.score for item in name_colors(pixels)}
    assert scores["red color"] == 0.5
    assert list(scores) == ["black color", "red color"]


def test_specks_are_left_out() -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[0, : int(LEAST_SHARE * 10_000) - 1] = (229, 0, 0)
    assert [item.class_name for item in name_colors(pixels)] == ["black color"]
