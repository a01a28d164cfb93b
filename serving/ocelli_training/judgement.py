"""How good is what was learned: metrics, judged scores, suspected label errors, and the comparison with the
revision that serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ocelli_api.outcome import Comparison
from ocelli_storage.object_store import ObjectStore
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.judged import Judged, judge
from ocelli_training.label_errors import LabelErrors, class_probabilities, find_label_errors, find_outliers
from ocelli_training.learned import Learned
from ocelli_training.report import image_name
from ocelli_training.served_baseline import NewImages, compare_with_served
from ocelli_training.settings import TrainerSettings
from ocelli_training.training_data import TrainingData

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """The figures of one training."""

    evaluation: Evaluation
    judged: Judged
    comparison: Comparison | None
    """With the revision that serves; None if none does."""
    before_tuning: Evaluation | None
    """Of the linear heads that a tuned network began with, on the same images; None: no network was tuned."""
    label_errors: LabelErrors
    """Rows are those of the examples."""
    outliers: Sequence[int]
    """Rows of the examples that are unlike those of every class, the most unlike first."""


async def judge_learned(
    learned: Learned, data: TrainingData, settings: TrainerSettings, store: ObjectStore, scratch: Path
) -> Judgement:
    """Judge what was learned. `scratch` is a folder; the pixels of `data` must still be open.

    Raises:
        StoreUnavailableError: see there.
    """
    judged = await asyncio.to_thread(judge, learned.fit, data.dataset, data.groups, learned.test)
    linear = learned.before_tuning
    evaluation = await asyncio.to_thread(_evaluate, learned, data, judged.has_negatives)
    before = None if linear is None else await asyncio.to_thread(_evaluate, linear, data, judged.has_negatives)
    logger.info(
        "heads.evaluated",
        extra={
            "images": evaluation.images,
            "accuracy": evaluation.accuracy,
            "misclassified": len(evaluation.misclassified),
            "calibration_error": evaluation.calibration_error,
        },
    )
    comparison = None
    if settings.baseline_revision:
        # A served revision may have the installed backbone, which was used here too, or a network of its own.
        new = NewImages(
            pixels=data.pixels,
            numbers=data.numbers,
            preprocessing=learned.metadata.preprocessing,
            features={item.metadata.digest: item.judged_features for item in (linear or learned, learned)},
            threads=settings.cpu_count,
            scratch=scratch,
        )
        comparison = await compare_with_served(store, settings.location, settings.baseline_revision, judged, new)
    fit, membership = learned.fit, data.examples.membership
    has_negatives = not membership.any(axis=1).all()
    return Judgement(
        evaluation=evaluation,
        judged=judged,
        comparison=comparison,
        before_tuning=before,
        label_errors=find_label_errors(
            class_probabilities(fit.unrejected_scores, has_negatives=has_negatives),
            np.array([example.set_index for example in data.dataset.examples], dtype=np.intp),
        ),
        outliers=find_outliers(fit.scores, fit.unrejected_scores, membership),
    )


def _evaluate(learned: Learned, data: TrainingData, has_negatives: bool) -> Evaluation:
    fit, names = learned.fit, data.dataset.class_names
    if learned.test is not None:
        return learned.test.evaluate(fit, names, has_negatives)
    image_names = [image_name(example) for example in data.dataset.examples]
    return evaluate(fit, data.examples.membership, data.groups, names, image_names)
