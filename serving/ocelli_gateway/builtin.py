"""The built-in classifiers: always valid ids. Without a model `default` answers with colours and the others with nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ocelli_gateway.colors import name_colors
from ocelli_gateway.wire import ScoredClass

DEFAULT = "default"
BUILT_IN_IDS = (DEFAULT, "food", "explicit")


def score_built_in(classifier_id: str, pixels: npt.NDArray[np.uint8]) -> list[ScoredClass]:
    """The classes of a built-in classifier for an image, uint8 of shape (height, width, 3)."""
    if classifier_id != DEFAULT:
        return []
    return [ScoredClass(class_name=item.class_name, score=item.score) for item in name_colors(pixels)]


def describe_missing_model(classifier_id: str) -> str:
    """What a warning says of a built-in classifier that has no model installed."""
    what = "colors only" if classifier_id == DEFAULT else "no classes"
    return f"The built-in classifier {classifier_id} has no model installed; it answers with {what}."
