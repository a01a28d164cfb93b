import json

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import Heads
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.fit import Fit, Protocol


def judge(
    scores: list[list[float]],
    truth: list[int | None],
    *,
    rows: list[int] | None = None,
    names: tuple[str, ...] = ("cat", "dog"),
) -> Evaluation:
    """Evaluate scores of images, each of one class by number, or of none."""
    membership: NDArray[np.bool_] = np.zeros((len(truth), len(names)), dtype=np.bool_)
    for row, index in enumerate(truth):
        if index is not None:
            membership[row, index] = True
    neutral = np.zeros(len(names), dtype=np.float32)
    fit = Fit(
        heads=Heads(weights=np.zeros((len(names), 1), dtype=np.float32), bias=neutral, slope=neutral + 1, offset=neutral),
        protocol=Protocol.HOLDOUT,
        evaluated_rows=np.array(range(len(truth)) if rows is None else rows),
        evaluated_scores=np.array(scores, dtype=np.float32),
    )
    return evaluate(fit, membership, names, [f"{row}.jpg" for row in range(len(truth))])


def test_the_highest_score_is_the_prediction() -> None:
    assert judge([[0.9, 0.1], [0.4, 0.6], [0.3, 0.2], [0.8, 0.9]], [0, 1, 0, 0]).accuracy == 0.75


def test_without_negatives_a_low_score_is_a_prediction_too() -> None:
    evaluation = judge([[0.2, 0.1]], [0])

    assert evaluation.accuracy == 1


def test_with_negatives_a_low_score_means_none_of_the_classes() -> None:
    evaluation = judge([[0.2, 0.1], [0.2, 0.1], [0.7, 0.1], [0.7, 0.1]], [None, 0, None, 0])

    assert evaluation.accuracy == 0.5
    assert {(cell.actual, cell.predicted, cell.images) for cell in evaluation.confusion} == {
        (None, None, 1),
        ("cat", None, 1),
        (None, "cat", 1),
        ("cat", "cat", 1),
    }


def test_negatives_outside_the_evaluated_images_count_as_negatives() -> None:
    # The holdout of a tiny set of negatives may be empty, the classifier still may say "none".
    assert judge([[0.2, 0.1]], [0, None], rows=[0]).accuracy == 0


def test_precision_recall_and_f1_are_taken_at_half() -> None:
    evaluation = judge([[0.9, 0.6], [0.5, 0.4], [0.4, 0.3], [0.6, 0.9]], [0, 0, 0, 1])

    cat, dog = evaluation.classes
    assert (cat.images, cat.precision, cat.recall) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert cat.f1 == pytest.approx(2 / 3)
    assert (dog.images, dog.precision, dog.recall) == (1, 0.5, 1)


def test_a_class_that_is_never_predicted_has_zeros() -> None:
    cat = judge([[0.1, 0.9]], [0]).classes[0]

    assert (cat.precision, cat.recall, cat.f1) == (0, 0, 0)


def test_certain_and_right_is_calibrated() -> None:
    assert judge([[1, 0], [0, 1]], [0, 1]).calibration_error == 0


def test_the_calibration_error_is_the_mean_gap_between_score_and_frequency() -> None:
    # In the bin of 0.75 one of two is right; the scores of 0.05 are never.
    evaluation = judge([[0.75], [0.75], [0.05], [0.05]], [0, None, None, None], names=("cat",))

    assert evaluation.calibration_error == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_the_misclassified_are_named_surest_first() -> None:
    evaluation = judge([[0.6, 0.5], [0.2, 0.9], [0.9, 0.1]], [1, 0, 0])

    assert [(item.image, item.actual, item.predicted) for item in evaluation.misclassified] == [
        ("1.jpg", "cat", "dog"),
        ("0.jpg", "dog", "cat"),
    ]


def test_names_are_those_of_the_evaluated_rows() -> None:
    evaluation = judge([[0.1, 0.9]], [1, 1, 0], rows=[2])

    assert [item.image for item in evaluation.misclassified] == ["2.jpg"]


def test_an_image_of_two_classes_may_be_taken_for_either() -> None:
    fit = Fit(
        heads=Heads(
            weights=np.zeros((2, 1), dtype=np.float32),
            bias=np.zeros(2, dtype=np.float32),
            slope=np.ones(2, dtype=np.float32),
            offset=np.zeros(2, dtype=np.float32),
        ),
        protocol=Protocol.HOLDOUT,
        evaluated_rows=np.arange(2),
        evaluated_scores=np.array([[0.9, 0.2], [0.2, 0.9]], dtype=np.float32),
    )

    assert evaluate(fit, np.ones((2, 2), dtype=np.bool_), ("cat", "dog"), ("a", "b")).accuracy == 1


def test_the_report_is_json_and_the_summary_names_no_images() -> None:
    evaluation = judge([[0.9, 0.1], [0.9, 0.1]], [0, 1])

    assert json.loads(json.dumps(evaluation.to_json()))["misclassified"] == [
        {"image": "1.jpg", "actual": "dog", "predicted": "cat", "score": 0.9}
    ]
    assert "1.jpg" not in json.dumps(evaluation.summary())
    assert evaluation.summary()["accuracy"] == 0.5
