"""One revision of one classifier: from the bytes of an image to a `Prediction`.

The batcher computes features and must not know classifiers; the classifier's head turns features into scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import SCORE_DECIMALS, ClassScore, Prediction
from ocelli_inference.batching import FeatureBatcher
from ocelli_model.output_head import Wording


class Head(Protocol):
    """What turns features into scores."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of shape [N, C], 0 to 1, of features of shape [N, D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServedClassifier:
    """A classifier's head, and the names of its classes."""

    classifier_id: str
    revision: str
    class_names: tuple[str, ...]
    head: Head
    type_hierarchies: tuple[str | None, ...] | None = None
    """Of each class, if a pretrained classifier has them."""
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    """Class names and type hierarchies in other languages."""

    def wording(self, language: str | None) -> Wording:
        """The names of the classes in a language; the names in the definition if the language is not known."""
        known = self.wordings.get((language or "").casefold())
        hierarchies = self.type_hierarchies or (None,) * len(self.class_names)
        return known or Wording(class_names=self.class_names, type_hierarchies=hierarchies)


class Predictor:
    """A classifier's head behind a batcher."""

    def __init__(self, classifier: ServedClassifier, batcher: FeatureBatcher, *, engine_name: str) -> None:
        self.classifier = classifier
        self.engine_name = engine_name
        self._batcher = batcher

    async def predict(self, data: bytes, *, language: str | None = None, threshold: float = 0.0) -> Prediction:
        """The scores of an image file, with classes in the order of the definition and named in the language.

        Classes whose rounded score is below the threshold are left out.

        Raises:
            ImageError: this image cannot be predicted.
            BatcherClosedError, BatchFailedError: see there.
        """
        features = await self._batcher.features(data)
        # One row at a time: a matrix product of a whole batch may round differently.
        scores = self.classifier.head.scores(features[np.newaxis])[0]
        rounded = [round(score, SCORE_DECIMALS) for score in scores.tolist()]
        wording = self.classifier.wording(language)
        return Prediction(
            classifier_id=self.classifier.classifier_id,
            revision=self.classifier.revision,
            scores=tuple(
                ClassScore(class_name=name, score=score, type_hierarchy=hierarchy)
                for name, hierarchy, score in zip(wording.class_names, wording.type_hierarchies, rounded, strict=True)
                if score >= threshold
            ),
        )
