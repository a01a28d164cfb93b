"""What a training has learned, before it is stored: heads, their network, and how both are described to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.outcome import OutcomeReason
from ocelli_model.backbone import BackboneMetadata
from ocelli_training.fit import Fit
from ocelli_training.own_test_set import TestImages
from ocelli_training.tuning_recipe import TuningRecipe

TUNED = ", fine-tuned"
NOT_TUNED = ", not fine-tuned: that did not improve on its linear heads"
"""What the description of a network ends with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnNetwork:
    """A network that belongs to an artifact."""

    metadata: BackboneMetadata
    files: Mapping[str, bytes]
    """By name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A network that was tuned, with its heads."""

    fit: Fit
    network: OwnNetwork
    features: NDArray[np.float32]
    """float32[N, D]: of the examples, by this network."""
    test_features: NDArray[np.float32]
    """float32[M, D]: of the test set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningOutcome:
    """How fine-tuning ended."""

    tuned: Tuned | None
    """None: it did not improve on the linear heads."""
    report: Mapping[str, Any]
    """For the report: recipe, epochs and losses, as JSON."""
    halved: bool
    """Steps ran as two halves, because the GPU had too little memory for the whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """Heads and their network."""

    fit: Fit
    metadata: BackboneMetadata
    """Of the network."""
    features: NDArray[np.float32]
    """float32[N, D]: of the examples, by this network."""
    test: TestImages | None = None
    """The Classifier's own test set, with features of this network."""
    network: OwnNetwork | None = None
    """The network, where it is the artifact's own; None: it is an installed backbone."""
    description: str
    """Of the network."""
    message: str
    reason: OutcomeReason = OutcomeReason.SUCCEEDED
    tuning: Mapping[str, Any] | None = None
    """For the report."""
    before_tuning: Learned | None = None
    """The linear heads that fine-tuning began with, where it improved on them."""

    @property
    def judged_features(self) -> NDArray[np.float32]:
        """float32[N + M, D]: of the examples, then of the test set."""
        return self.features if self.test is None else np.concatenate([self.features, self.test.features])


def conclude_tuning(linear: Learned, recipe: TuningRecipe, outcome: TuningOutcome) -> Learned:
    """What was learned after fine-tuning, which began with these linear heads."""
    message = linear.message
    if outcome.halved:
        message += f"; each batch of {recipe.batch_images} ran as two halves, because a whole one exceeds the GPU's memory"
    tuned = outcome.tuned
    if tuned is None:
        return replace(
            linear,
            description=linear.description + NOT_TUNED,
            message=f"{message}; fine-tuning did not improve on the linear heads, which are the result",
            reason=OutcomeReason.NOT_IMPROVED,
            tuning=outcome.report,
        )
    return Learned(
        fit=tuned.fit,
        metadata=tuned.network.metadata,
        features=tuned.features,
        test=None if linear.test is None else replace(linear.test, features=tuned.test_features),
        network=tuned.network,
        description=linear.description + TUNED,
        message=message,
        tuning=outcome.report,
        before_tuning=linear,
    )
