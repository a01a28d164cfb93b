"""The client's evaluation has the figures of the trainer's."""

from __future__ import annotations

import numpy as np
import pytest

from ocelli_client.evaluation import Answer
from ocelli_client.evaluation import evaluate as evaluate_answers
from ocelli_training.evaluate import JudgedImage
from ocelli_training.evaluate import evaluate as evaluate_fit
from ocelli_training.fit import Fit

CLASSES = ["ant", "bee", "cat"]


@pytest.mark.parametrize("has_negatives", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_both_evaluations_agree(seed: int, has_negatives: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.random((60, 3)).astype(np.float32)
    actual = random.integers(0, 4 if has_negatives else 3, 60)
    membership = actual[:, np.newaxis] == np.arange(3)
    fit = Fit(heads=None, recipe=None, scores=scores, unrejected_scores=scores)  # type: ignore[arg-type]
    images = [JudgedImage(name=str(index), sha256=str(index)) for index in range(60)]
    expected = evaluate_fit(fit, membership, np.arange(60), CLASSES, images, learned_negatives=has_negatives)
    answers = [
        Answer(
            image=str(index),
            actual=[*CLASSES, None][actual[index]],
            scores=dict(zip(CLASSES, scores[index].tolist(), strict=True)),
        )
        for index in range(60)
    ]
    found = evaluate_answers(answers, CLASSES, has_negatives=has_negatives)
    assert found.images == expected.images
    assert found.accuracy == pytest.approx(expected.accuracy)
    assert (found.lower, found.upper) == pytest.approx(expected.accuracy_interval)
    assert list(found.confusion) == [(cell.actual, cell.predicted, cell.images) for cell in expected.confusion]
    assert [(one.image, one.actual, one.predicted) for one in found.wrong] == [
        (one.image, one.actual, one.predicted) for one in expected.misclassified
    ]
    for mine, theirs in zip(found.classes, expected.classes, strict=True):
        assert (mine.class_name, mine.images) == (theirs.class_name, theirs.images)
        assert (mine.precision, mine.recall, mine.f1) == pytest.approx((theirs.precision, theirs.recall, theirs.f1), abs=1e-6)
