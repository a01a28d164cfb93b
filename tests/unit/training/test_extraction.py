"""Which views of images are computed."""

from __future__ import annotations

import pytest

from ocelli_api.classifier import Strategy
from ocelli_training.extraction import VIEWS_LIMIT_CLASS_IMAGES, VIEWS_LIMIT_IMAGES, wanted_views
from ocelli_training.fit import View

MANY = VIEWS_LIMIT_CLASS_IMAGES + 1


@pytest.mark.parametrize(
    ("images", "fewest", "strategy", "expected"),
    [
        (2 * MANY, VIEWS_LIMIT_CLASS_IMAGES, Strategy.LINEAR_PROBE, {View.ENLARGED, View.MIRRORED}),
        (2 * MANY, MANY, Strategy.LINEAR_PROBE, set()),
        (2 * MANY, MANY, Strategy.FINE_TUNE, {View.ENLARGED, View.MIRRORED}),
        (VIEWS_LIMIT_IMAGES + 1, 2, Strategy.FINE_TUNE, set()),
    ],
)
def test_large_classes_need_other_views_only_for_fine_tuning(
    images: int, fewest: int, strategy: Strategy, expected: set[View]
) -> None:
    assert set(wanted_views(images, fewest, strategy)) == expected
