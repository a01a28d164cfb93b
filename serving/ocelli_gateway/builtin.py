"""The built-in classifiers: ids that are always valid. Except for the colours of `default`, their classes come from pretrained
Classifiers of these names, if the installation has them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ocelli_gateway.colors import name_colors
from ocelli_gateway.wire import ScoredClass

DEFAULT = "default"
FOOD = "food"
BUILT_IN_IDS = (DEFAULT, FOOD, "explicit")
NON_FOOD = "non-food"


def score_colors(classifier_id: str, pixels: npt.NDArray[np.uint8]) -> list[ScoredClass]:
    """The colour classes of a built-in classifier for an image, uint8 of shape (height, width, 3); only `default` has any."""
    return name_colors(pixels) if classifier_id == DEFAULT else []


def classes_without_model(classifier_id: str) -> list[ScoredClass]:
    """The classes of a built-in classifier whose model is missing or does not answer, except colours.

    Clients of v3 read the first class of `food` without checking that it exists, so there is always one.
    """
    return [ScoredClass(class_name=NON_FOOD, score=1.0)] if classifier_id == FOOD else []


def complete_classes(classifier_id: str, classes: tuple[ScoredClass, ...], threshold: float) -> tuple[ScoredClass, ...]:
    """The classes of a built-in classifier that reach the threshold; `non-food` where no class of `food` does."""
    if classes or classifier_id != FOOD:
        return classes
    return (ScoredClass(class_name=NON_FOOD, score=threshold),)


def describe_unavailable(classifier_id: str, why: str) -> str:
    """The warning about a built-in classifier that has no model, or whose model does not answer."""
    what = {DEFAULT: "colors only", FOOD: f"{NON_FOOD} only"}.get(classifier_id, "no classes")
    return f"The built-in classifier {classifier_id} {why}; it answers with {what}."
