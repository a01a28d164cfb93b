"""Suspected label errors: the same ones as cleanlab finds, and in the report the ones that a person should look at first."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray

from ocelli_training.label_errors import LabelErrors, class_probabilities, find_label_errors, find_outliers


def make_labels(seed: int, *, noise: float) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
    """Probabilities of 2 to 7 classes, the actual classes, and given ones that differ by `noise`."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(2, 8))
    actual = np.concatenate([np.arange(classes), random.integers(0, classes, int(random.integers(40, 300)))])
    exponents = random.normal(size=(len(actual), classes))
    exponents[np.arange(len(actual)), actual] += random.uniform(1, 4)
    parts = np.exp(exponents)
    given = actual.copy()
    changed = random.random(len(actual)) < noise
    changed[:classes] = False
    given[changed] = random.integers(0, classes, int(changed.sum()))
    return (parts / parts.sum(axis=1, keepdims=True)).astype(np.float32), actual, given


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_suspects_are_those_of_cleanlab_in_the_same_order(seed: int, noise: float) -> None:
    probabilities, _, given = make_labels(seed, noise=noise)
    expected = find_label_issues(
        given, probabilities, filter_by="predicted_neq_given", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert [suspect.row for suspect in find_label_errors(probabilities, given).suspects] == expected.tolist()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_estimated_number_of_errors_is_that_of_cleanlab_except_for_rounding(seed: int, noise: float) -> None:
    probabilities, _, given = make_labels(seed, noise=noise)
    expected = num_label_issues(given, probabilities, estimation_method="off_diagonal_calibrated")
    # cleanlab rounds the number of right images of each class.
    rounding = probabilities.shape[1] / 2
    assert find_label_errors(probabilities, given).estimated == pytest.approx(expected, abs=rounding)


def test_a_suspect_has_the_likeliest_other_class_and_both_probabilities() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.1, 0.9], [0.2, 0.8]], dtype=np.float32)
    (suspect,) = find_label_errors(probabilities, np.array([0, 0, 0, 1, 1])).suspects
    assert (suspect.row, suspect.suggested) == (2, 1)
    assert (suspect.given_probability, suspect.suggested_probability) == pytest.approx((0.05, 0.95))


def test_classes_that_are_easy_to_separate_have_no_suspects() -> None:
    probabilities = np.eye(3, dtype=np.float32).repeat(5, axis=0) * 0.97 + 0.01
    assert find_label_errors(probabilities, np.arange(3).repeat(5)) == LabelErrors(estimated=0, suspects=())


def test_probabilities_keep_the_order_of_the_scores_and_add_up_to_one() -> None:
    scores = np.array([[0.9, 0.2, 0.4], [0.0, 1.0, 0.5]], dtype=np.float32)
    probabilities = class_probabilities(scores, has_negatives=False)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert (probabilities.argsort(axis=1) == scores.argsort(axis=1)).all()


def test_an_image_with_low_scores_of_all_classes_is_probably_a_negative() -> None:
    scores = np.array([[0.1, 0.2], [0.1, 0.8]], dtype=np.float32)
    assert class_probabilities(scores, has_negatives=True).argmax(axis=1).tolist() == [2, 1]


def test_outliers_are_images_of_classes_that_rejection_halves_the_most_unlike_first() -> None:
    unrejected = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=np.float32)
    scores = unrejected * np.array([[0.4], [1.0], [0.1], [0.2]], dtype=np.float32)
    membership = np.array([[True, False], [True, False], [False, True], [False, False]])
    assert find_outliers(scores, unrejected, membership) == [2, 0]
