"""How good is what was learned: metrics, judged scores, suspected label errors, and the comparison with the
revision that serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.outcome import Comparison
from ocelli_storage.judged import NEGATIVE, Judged
from ocelli_storage.object_store import ObjectStore
from ocelli_training.data_report import judged_images
from ocelli_training.dataset import Dataset
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.fit import Fit
from ocelli_training.image_data import rows_by_customer
from ocelli_training.learned import Learned
from ocelli_training.own_test_set import TestImages
from ocelli_training.served_baseline import NewImages, compare_with_served
from ocelli_training.settings import TrainerSettings
from ocelli_training.suspicion import Suspicion, find_suspicious
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
    suspicion: Suspicion
    """What the scores say about the examples."""


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
    return Judgement(
        evaluation=evaluation,
        judged=judged,
        comparison=comparison,
        before_tuning=before,
        suspicion=find_suspicious(learned.fit, data.examples, data.dataset),
    )


def judge(fit: Fit, dataset: Dataset, groups: NDArray[np.intp], test: TestImages | None) -> Judged:
    """The judged scores of a training: out of fold for every example, then by the served heads for the test set.

    `groups` of near duplicates of the examples are intp[N].
    """
    examples, scores = dataset.examples, fit.scores
    if test is not None:
        examples = (*examples, *test.test_set.examples)
        scores = np.concatenate([scores, fit.heads.scores(test.features)])
        groups = np.concatenate([groups, test.groups])
    actual = np.array([example.set_index for example in examples], dtype=np.int32)
    # The negative examples are the set after those of the classes.
    actual[actual == len(dataset.class_names)] = NEGATIVE
    return Judged(
        class_names=dataset.class_names,
        has_negatives=bool((actual == NEGATIVE).any()),
        digests=tuple(example.digest for example in examples),
        scores=scores.astype(np.float32),
        actual=actual,
        groups=groups.astype(np.int32),
        tested=np.arange(len(examples)) >= len(dataset.examples),
        learned_count=len(dataset.examples),
    )


def split_by_customer(judged: Judged, customers: Sequence[str | None]) -> Mapping[str | None, Judged]:
    """The judged scores of each customer's images; at None those of all images without a customer.

    `customers` are the keys of the images' customers.
    """
    return {customer: judged.take(rows) for customer, rows in rows_by_customer(customers).items()}


def _evaluate(learned: Learned, data: TrainingData, has_negatives: bool) -> Evaluation:
    fit, names = learned.fit, data.dataset.class_names
    if learned.test is not None:
        return learned.test.evaluate(fit, names, has_negatives)
    return evaluate(fit, data.examples.membership, data.groups, names, judged_images(data.dataset.examples))
