"""One revision of one classifier: bytes of an image in, a `Prediction` out.

The engine's features and the classifier's head are apart: the batcher in front of the engine knows no classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import SCORE_DECIMALS, ClassScore, Prediction
from ocelli_inference.batching import FeatureBatcher


class Head(Protocol):
    """What turns features into scores."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of shape [N, C], 0 to 1, of features of shape [N, D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServedClassifier:
    """What one head answers for."""

    classifier_id: str
    revision: str
    class_names: tuple[str, ...]
    head: Head


class Predictor:
    """A classifier's head behind a batcher."""

    def __init__(self, classifier: ServedClassifier, batcher: FeatureBatcher, *, engine_name: str) -> None:
        self.classifier = classifier
        self.engine_name = engine_name
        self._batcher = batcher

    async def predict(self, data: bytes) -> Prediction:
        """The scores of the bytes of an image file, classes in the order of the definition.

        Raises:
            ImageError: this image cannot be predicted.
            BatcherClosedError, BatchFailedError: see there.
        """
        features = await self._batcher.features(data)
        # One row at a time: a product over a whole batch may round differently than one over a single image.
        scores = self.classifier.head.scores(features[np.newaxis])[0]
        return Prediction(
            classifier_id=self.classifier.classifier_id,
            revision=self.classifier.revision,
            scores=tuple(
                ClassScore(class_name=name, score=round(float(score), SCORE_DECIMALS))
                for name, score in zip(self.classifier.class_names, scores, strict=True)
            ),
        )
