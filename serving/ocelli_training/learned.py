"""What a training has learned, before it is stored: heads, their network, and how both are described to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocelli_api.outcome import OutcomeReason
from ocelli_model.backbone import BackboneMetadata
from ocelli_training.fit import Fit
from ocelli_training.tuning_recipe import TuningRecipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A network that was tuned, with its heads."""

    fit: Fit
    metadata: BackboneMetadata
    files: Mapping[str, bytes]
    """The files of the network, by name."""


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
    network_files: Mapping[str, bytes] | None = None
    """The network's files where it is the artifact's own; None: it is an installed backbone."""
    description: str
    """Of the network."""
    message: str
    reason: OutcomeReason = OutcomeReason.SUCCEEDED
    tuning: Mapping[str, Any] | None = None
    """For the report."""


def conclude_tuning(linear: Learned, recipe: TuningRecipe, outcome: TuningOutcome) -> Learned:
    """What was learned after fine-tuning, which began with these linear heads."""
    message = linear.message
    if outcome.halved:
        message += f"; each batch of {recipe.batch_images} ran as two halves, because a whole one exceeds the GPU's memory"
    tuned = outcome.tuned
    if tuned is None:
        return Learned(
            fit=linear.fit,
            metadata=linear.metadata,
            description=f"{linear.description}, not fine-tuned: that did not improve on its linear heads",
            message=f"{message}; fine-tuning did not improve on the linear heads, which are the result",
            reason=OutcomeReason.NOT_IMPROVED,
            tuning=outcome.report,
        )
    return Learned(
        fit=tuned.fit,
        metadata=tuned.metadata,
        network_files=tuned.files,
        description=f"{linear.description}, fine-tuned",
        message=message,
        tuning=outcome.report,
    )
