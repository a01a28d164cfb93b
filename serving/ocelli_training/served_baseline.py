"""The revision that serves, as a baseline for the new one: its judged scores and its heads, from the store.

A training never fails because of a comparison: where there is none, the outcome says why.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_api.outcome import FAULT_LIMIT, Comparison
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact
from ocelli_model.backbone import Precision
from ocelli_model.heads import Heads
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_training.comparison import NotComparableError, add_unseen, measure_drop
from ocelli_training.judged import Judged, JudgedError, load_judged

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class NewFeatures:
    """Features of the new revision's images."""

    features: NDArray[np.float32]
    """float32[N, D], in the order of its judged scores."""
    backbone_digest: str
    precision: Precision


async def compare_with_served(
    store: ObjectStore, location: ClassifierLocation, baseline_revision: str, judged: Judged, new: NewFeatures
) -> Comparison:
    """Compare a new revision with the one that serves. Images that this one never saw are scored by its heads now.

    Raises:
        StoreUnavailableError: see there.
    """
    try:
        baseline = await load_judged(store, location, baseline_revision)
    except JudgedError as error:
        return _not_comparable(baseline_revision, error)
    heads = await _find_heads(store, location, baseline_revision, new)
    if heads is not None and heads.class_count == len(baseline.class_names):
        baseline = await asyncio.to_thread(add_unseen, baseline, judged, lambda rows: heads.scores(new.features[rows]))
    return await asyncio.to_thread(_compare, baseline_revision, judged, baseline)


async def compare_stored(
    store: ObjectStore, location: ClassifierLocation, artifact: Artifact, baseline_revision: str
) -> Comparison | None:
    """Compare two stored revisions, on images that both were judged on. None if there is no baseline.

    Raises:
        StoreUnavailableError: see there.
    """
    if not baseline_revision or not isinstance(artifact.heads, Heads):
        return None
    try:
        judged = await load_judged(store, location, artifact.revision)
        baseline = await load_judged(store, location, baseline_revision)
    except JudgedError as error:
        return _not_comparable(baseline_revision, error)
    return await asyncio.to_thread(_compare, baseline_revision, judged, baseline)


async def _find_heads(store: ObjectStore, location: ClassifierLocation, revision: str, new: NewFeatures) -> Heads | None:
    """The heads of a revision that uses these features; None where it uses others."""
    try:
        artifact = await load_artifact(store, location, revision)
    except ArtifactError as error:
        logger.warning("baseline.unusable", extra={"revision": revision, "error": str(error)})
        return None
    heads = artifact.heads
    same = (artifact.backbone_digest, artifact.precision) == (new.backbone_digest, new.precision)
    if not (same and isinstance(heads, Heads) and heads.feature_count == new.features.shape[1]):
        return None
    return heads


def _compare(baseline_revision: str, judged: Judged, baseline: Judged) -> Comparison:
    try:
        measured = measure_drop(judged, baseline)
    except NotComparableError as error:
        return _not_comparable(baseline_revision, error)
    logger.info(
        "revisions.compared",
        extra={
            "baseline": baseline_revision,
            "accuracy": measured.accuracy,
            "baseline_accuracy": measured.baseline_accuracy,
            "images": measured.images,
            "classes": measured.classes,
            "reclassified": measured.reclassified,
        },
    )
    return Comparison(
        baseline=baseline_revision,
        drop=measured.drop,
        drop_interval=measured.interval,
        images=measured.images,
        reclassified=measured.reclassified,
    )


def _not_comparable(baseline_revision: str, error: Exception) -> Comparison:
    logger.warning("revisions.not_comparable", extra={"baseline": baseline_revision, "error": str(error)})
    return Comparison(baseline=baseline_revision, fault=str(error)[:FAULT_LIMIT])
