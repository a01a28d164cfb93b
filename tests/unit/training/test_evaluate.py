import json

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import Heads
from ocelli_training.evaluate import Evaluation, JudgedImage, evaluate
from ocelli_training.fit import Fit, Recipe, View


def make_fit(scores: NDArray[np.float32], unrejected: NDArray[np.float32] | None = None) -> Fit:
    neutral = np.zeros(scores.shape[1], dtype=np.float32)
    return Fit(
        heads=Heads(weights=neutral[:, np.newaxis], bias=neutral, slope=neutral + 1, offset=neutral),
        recipe=Recipe(views=(View.WHOLE,), penalty=0.1),
        scores=scores,
        unrejected_scores=scores if unrejected is None else unrejected,
    )


def named(row: int) -> JudgedImage:
    return JudgedImage(name=f"{row}.jpg", sha256=f"digest of {row}")


def judge(
    scores: list[list[float]],
    truth: list[int | None],
    *,
    unrejected: list[list[float]] | None = None,
    groups: list[int] | None = None,
    names: tuple[str, ...] = ("cat", "dog"),
) -> Evaluation:
    """Evaluate scores of images, each of one class by number, or of none; each its own group unless they are given."""
    membership: NDArray[np.bool_] = np.zeros((len(truth), len(names)), dtype=np.bool_)
    for row, index in enumerate(truth):
        if index is not None:
            membership[row, index] = True
    fit = make_fit(np.array(scores, dtype=np.float32), None if unrejected is None else np.array(unrejected, dtype=np.float32))
    rows = np.arange(len(truth)) if groups is None else np.array(groups)
    return evaluate(fit, membership, rows, names, [named(row) for row in range(len(truth))])


def judge_right_and_wrong(*counts: tuple[int, int], copies: int = 1) -> Evaluation:
    """Of two classes or more, the numbers of images that are predicted right and wrong, each with near copies."""
    classes = len(counts)
    truth = np.concatenate([np.full(sum(pair), index) for index, pair in enumerate(counts)])
    predicted = np.concatenate(
        [[index] * right + [(index + 1) % classes] * wrong for index, (right, wrong) in enumerate(counts)]
    )
    groups = np.repeat(np.arange(len(truth)), copies)
    truth, predicted = np.repeat(truth, copies), np.repeat(predicted, copies)
    fit = make_fit(np.eye(classes, dtype=np.float32)[predicted])
    membership = np.eye(classes, dtype=np.bool_)[truth]
    return evaluate(fit, membership, groups, [str(index) for index in range(classes)], [named(0)] * len(truth))


def width(evaluation: Evaluation) -> float:
    low, high = evaluation.accuracy_interval
    return high - low


def test_the_highest_score_is_the_prediction() -> None:
    assert judge([[0.9, 0.1], [0.4, 0.6], [0.3, 0.2], [0.8, 0.9]], [0, 1, 0, 1]).accuracy == 1
    assert judge([[0.9, 0.1], [0.6, 0.4], [0.2, 0.3], [0.8, 0.9]], [0, 1, 0, 1]).accuracy == 0.5


def test_every_class_counts_alike_for_any_number_of_images() -> None:
    assert judge_right_and_wrong((10, 0), (250, 250)).accuracy == 0.75


def test_always_predicting_none_is_right_for_at_most_half() -> None:
    # 10 images of a class, 500 negatives, and heads that never say the class.
    evaluation = judge([[0.1]] * 510, [0] * 10 + [None] * 500, names=("cat",))

    assert evaluation.accuracy == 0.5
    assert evaluation.accuracy_interval[0] < 0.5 < evaluation.accuracy_interval[1] < 0.7


def test_always_predicting_the_larger_class_is_right_for_half() -> None:
    assert judge_right_and_wrong((0, 10), (500, 0)).accuracy == 0.5


@pytest.mark.parametrize(
    "counts", [((10, 0), (10, 0)), ((0, 10), (0, 10)), ((9, 1), (480, 20)), ((1, 0), (1, 0)), ((3, 2), (0, 4), (7, 1))]
)
def test_the_interval_contains_the_accuracy_and_is_between_0_and_1(counts: tuple[tuple[int, int], ...]) -> None:
    evaluation = judge_right_and_wrong(*counts)

    low, high = evaluation.accuracy_interval
    assert 0 <= low <= evaluation.accuracy <= high <= 1
    assert low < high


def test_more_images_narrow_the_interval() -> None:
    widths = [width(judge_right_and_wrong((9 * count, count), (9 * count, count))) for count in (1, 5, 50)]

    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.05


def test_the_smaller_class_decides_how_wide_the_interval_is() -> None:
    assert width(judge_right_and_wrong((9, 1), (450, 50))) > 2 * width(judge_right_and_wrong((90, 10), (450, 50)))


def test_near_duplicates_do_not_narrow_the_interval() -> None:
    counts = ((9, 1), (8, 2))

    assert judge_right_and_wrong(*counts, copies=20).accuracy_interval == pytest.approx(
        judge_right_and_wrong(*counts).accuracy_interval
    )


@pytest.mark.parametrize(("recall", "count"), [(0.95, 10), (0.7, 10), (0.9, 500), (0.5, 20)])
def test_19_of_20_intervals_contain_the_accuracy_on_other_images(recall: float, count: int) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        right = random.binomial(count, recall), random.binomial(500, 0.9)
        low, high = judge_right_and_wrong((right[0], count - right[0]), (right[1], 500 - right[1])).accuracy_interval
        held += low <= (recall + 0.9) / 2 <= high
    assert held / 300 > 0.92


def test_a_burst_counts_as_one_image() -> None:
    # Ten images that are predicted wrong, and one right 40 times.
    scores, truth = [[0.1, 0.9]] * 10 + [[0.9, 0.1]] * 40 + [[0.1, 0.9]], [0] * 50 + [1]

    evaluation = judge(scores, truth, groups=[*range(10), *[10] * 40, 50])

    assert evaluation.accuracy == pytest.approx((1 / 11 + 1) / 2)


def test_a_burst_over_two_classes_counts_once_in_each() -> None:
    evaluation = judge([[0.9, 0.1]] * 6, [0, 0, 0, 1, 1, 1], groups=[0, 0, 2, 0, 0, 5])

    assert evaluation.accuracy == 0.5
    assert evaluation.images == 6


def test_without_negatives_a_low_score_is_a_prediction_too() -> None:
    assert judge([[0.2, 0.1]], [0]).accuracy == 1


def test_with_negatives_a_low_score_means_none_of_the_classes() -> None:
    evaluation = judge([[0.2, 0.1], [0.2, 0.1], [0.7, 0.1], [0.7, 0.1]], [None, 0, None, 0])

    assert evaluation.accuracy == 0.5
    assert {(cell.actual, cell.predicted, cell.images) for cell in evaluation.confusion} == {
        (None, None, 1),
        ("cat", None, 1),
        (None, "cat", 1),
        ("cat", "cat", 1),
    }


def test_precision_recall_and_f1_are_computed_at_half() -> None:
    evaluation = judge([[0.9, 0.6], [0.5, 0.4], [0.4, 0.3], [0.6, 0.9]], [0, 0, 0, 1])

    cat, dog = evaluation.classes
    assert (cat.images, cat.precision, cat.recall) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert cat.f1 == pytest.approx(2 / 3)
    assert (dog.images, dog.precision, dog.recall) == (1, 0.5, 1)


def test_a_class_that_is_never_predicted_has_zeros() -> None:
    cat = judge([[0.1, 0.9]], [0]).classes[0]

    assert (cat.precision, cat.recall, cat.f1) == (0, 0, 0)


def test_certain_and_right_is_calibrated() -> None:
    evaluation = judge([[1, 0], [0, 1]], [0, 1])

    assert evaluation.calibration_error == 0
    assert [item.calibration_error for item in evaluation.classes] == [0, 0]


def test_the_calibration_error_is_the_mean_gap_between_highest_score_and_frequency() -> None:
    # In the bin of 0.75 one of two is right; the highest score of 0.05 is never.
    evaluation = judge([[0.75, 0.1], [0.75, 0.1], [0.05, 0.01], [0.05, 0.01]], [0, None, None, None])

    assert evaluation.calibration_error == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_every_class_has_its_calibration_error_over_all_images() -> None:
    evaluation = judge([[0.75, 0.35], [0.75, 0.35]], [0, 1])

    assert [item.calibration_error for item in evaluation.classes] == [pytest.approx(0.25), pytest.approx(0.15)]


def test_the_loss_by_rejection_is_reported() -> None:
    # Four right answers, of which one is rejected; a wrong one and a negative cost nothing.
    unrejected = [[0.9, 0.1], [0.8, 0.1], [0.1, 0.9], [0.1, 0.7], [0.6, 0.1], [0.9, 0.1]]
    scores = [[0.9, 0.1], [0.3, 0.1], [0.1, 0.9], [0.1, 0.7], [0.2, 0.1], [0.1, 0.1]]

    evaluation = judge(scores, [0, 0, 1, 1, 1, None], unrejected=unrejected)

    assert evaluation.lost_by_rejection == 0.25
    assert evaluation.summary()["lostByRejection"] == 0.25


def test_misclassified_images_are_named_most_certain_first() -> None:
    evaluation = judge([[0.6, 0.5], [0.2, 0.9], [0.9, 0.1]], [1, 0, 0])

    assert [(item.image, item.actual, item.predicted) for item in evaluation.misclassified] == [
        ("1.jpg", "cat", "dog"),
        ("0.jpg", "dog", "cat"),
    ]


def test_an_image_of_two_classes_may_be_predicted_as_either() -> None:
    fit = make_fit(np.array([[0.9, 0.2], [0.2, 0.9]], dtype=np.float32))

    assert evaluate(fit, np.ones((2, 2), dtype=np.bool_), np.arange(2), ("cat", "dog"), (named(0), named(1))).accuracy == 1


def test_the_report_is_json_and_the_summary_names_no_images() -> None:
    evaluation = judge([[0.9, 0.1], [0.9, 0.1]], [0, 1])

    assert json.loads(json.dumps(evaluation.to_json()))["misclassified"] == [
        {"image": "1.jpg", "sha256": "digest of 1", "actual": "dog", "predicted": "cat", "score": 0.9}
    ]
    assert "1.jpg" not in json.dumps(evaluation.summary())
    assert evaluation.summary()["accuracy"] == 0.5
    assert evaluation.summary()["accuracyInterval"] == [round(bound, 6) for bound in evaluation.accuracy_interval]
