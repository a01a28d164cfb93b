"""The revision that serves, as a baseline for the new one: its judged scores, its heads and its network, from the store.

A training never fails because of a comparison: where there is none, the outcome says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_api.export import PartPlace
from ocelli_api.outcome import FAULT_LIMIT, Comparison
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact
from ocelli_model.backbone import Backbone, BackboneError, BackboneMetadata, Precision, load_backbone
from ocelli_model.engine import load_engine
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.judged import Judged, JudgedError, load_judged
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_training.comparison import NotComparableError, add_unseen, find_unseen, measure_drop
from ocelli_training.features import PRECISION, compute_features
from ocelli_training.pixel_file import PixelFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class NewImages:
    """The images that a new revision was judged on, in the order of its judged scores."""

    pixels: PixelFile
    numbers: Mapping[str, int]
    """By digest, the number of each image in the pixel file; without those whose pixels were not needed, see `needs_pixels`."""
    preprocessing: Preprocessing
    """Of the pixels."""
    features: Mapping[str, NDArray[np.float32]]
    """float32[N, D] each: features that are known already, by the digest of their network."""
    threads: int
    scratch: Path
    """A folder."""


async def needs_pixels(
    store: ObjectStore, location: ClassifierLocation, baseline_revision: str, metadata: BackboneMetadata
) -> bool:
    """Whether the baseline can only be run on the pixels of images: its heads do not take features of this backbone.

    Raises:
        StoreUnavailableError: see there.
    """
    if not baseline_revision:
        return False
    try:
        artifact = await load_artifact(store, location, baseline_revision)
    except ArtifactError:
        return False
    if not isinstance(artifact.heads, Heads) or not artifact.preprocessing.gives_the_pixels_of(metadata.preprocessing):
        return False
    return not _takes(artifact, artifact.heads, metadata.digest, metadata.feature_count)


async def compare_with_served(
    store: ObjectStore, location: ClassifierLocation, baseline_revision: str, judged: Judged, new: NewImages
) -> Comparison:
    """Compare a new revision with the one that serves. Images that this one never saw are scored by it now.

    Raises:
        StoreUnavailableError: see there.
    """
    try:
        baseline = await load_judged(store, location, baseline_revision)
    except JudgedError as error:
        return _not_comparable(baseline_revision, error)
    rows = find_unseen(baseline, judged)
    if len(rows):
        scores = await _score(store, location, baseline_revision, new, judged, rows)
        if scores is not None and scores.shape[1] == len(baseline.class_names):
            baseline = add_unseen(baseline, judged, rows, scores)
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


async def _score(
    store: ObjectStore, location: ClassifierLocation, revision: str, new: NewImages, judged: Judged, rows: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """The scores float32[len(rows), C] that a stored revision gives some of the judged images. None where it cannot be run on
    them: its artifact or network is damaged, or it takes images of another preprocessing, whose bytes are not here any more.
    """
    try:
        artifact = await load_artifact(store, location, revision)
        if not isinstance(artifact.heads, Heads):
            return None
        known = new.features.get(artifact.backbone_digest)
        if known is not None and _takes(artifact, artifact.heads, artifact.backbone_digest, known.shape[1]):
            return await asyncio.to_thread(artifact.heads.scores, known[rows])
        if not artifact.preprocessing.gives_the_pixels_of(new.preprocessing):
            logger.info("baseline.other_preprocessing", extra={"revision": revision})
            return None
        digests = [judged.digests[row] for row in rows.tolist()]
        if not all(digest in new.numbers for digest in digests):
            # The artifact is not the one that `needs_pixels` has read.
            logger.warning("baseline.changed", extra={"revision": revision})
            return None
        prefix = location.network_prefix(revision) if artifact.backbone_place is PartPlace.ARTIFACT else None
        network = await load_backbone(store, artifact.backbone_digest, cache=new.scratch / "backbones", prefix=prefix)
        numbers = [new.numbers[digest] for digest in digests]
        return await asyncio.to_thread(_run, network, artifact.heads, artifact.precision, new, numbers)
    except (ArtifactError, BackboneError) as error:
        logger.warning("baseline.unusable", extra={"revision": revision, "error": str(error)})
        return None


def _takes(artifact: Artifact, heads: Heads, digest: str, feature_count: int) -> bool:
    """Whether an artifact's heads take features of that network in the precision of trainings."""
    return (artifact.backbone_digest, artifact.precision, heads.feature_count) == (digest, PRECISION, feature_count)


def _run(
    network: Backbone, heads: Heads, precision: Precision | None, new: NewImages, numbers: Sequence[int]
) -> NDArray[np.float32]:
    """Scores float32[len(numbers), C] by another network, on the CPU. Raises BackboneError."""
    if network.metadata.feature_count != heads.feature_count:
        raise BackboneError(
            f"backbone {network.name} ({network.digest}): it has {network.metadata.feature_count} features, and the "
            f"heads have {heads.feature_count}; train again"
        )
    engine = load_engine(network, threads=new.threads, device=Accelerator.CPU, precision=precision)
    return heads.scores(compute_features(engine, new.pixels, numbers))


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
