"""The logistic regressions behind the heads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_training.regression import solve_regressions
from tests.unit.training.made_examples import make_features, make_membership


def with_ones(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([features, np.ones((len(features), 1), dtype=np.float32)], axis=1)


def gradient(
    inputs: NDArray[np.float32], membership: NDArray[np.bool_], penalty: float, weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The loss that each class minimises, in float64."""
    rows, solution = inputs.astype(np.float64), weights.astype(np.float64)
    importance = np.where(membership, 0.5 / membership.sum(axis=0), 0.5 / (~membership).sum(axis=0))
    targets = np.where(membership, 1.0, -1.0)
    found = rows.T @ (-importance * targets / (1 + np.exp(targets * (rows @ solution))))
    found[:-1] += penalty * solution[:-1]
    return found


@pytest.mark.parametrize("penalty", [0.1, 0.001])
def test_the_solution_is_that_of_scikit_learn(penalty: float) -> None:
    from sklearn.linear_model import LogisticRegression

    features, membership = make_features([30, 12, 40], distance=1.5) / 5, make_membership([30, 12, 40])
    solution = solve_regressions(with_ones(features), membership, penalty, threads=1)

    for index in range(3):
        reference = LogisticRegression(C=1 / (penalty * 82), class_weight="balanced", tol=1e-10, max_iter=10_000)
        reference.fit(features.astype(np.float64), membership[:, index])
        bound = float(2e-3 * np.abs(reference.coef_).max())
        assert solution[:-1, index] == pytest.approx(reference.coef_[0], abs=bound)
        assert solution[-1, index] == pytest.approx(reference.intercept_[0], abs=bound)


@pytest.mark.parametrize("penalty", [0.1, 0.01, 0.001])
def test_the_solution_for_thousands_of_images_is_exact(penalty: float) -> None:
    # Where losses are summed with too few digits, no step seems to gain anything long before the minimum.
    counts = [500] * 10
    features, membership = make_features(counts, distance=3, dimensions=200), make_membership(counts)
    inputs = with_ones(features / np.float32(np.sqrt((features**2).sum(axis=1).mean())))

    solution = solve_regressions(inputs, membership, penalty, threads=1)

    left = np.linalg.norm(gradient(inputs, membership, penalty, solution), axis=0)
    first = np.linalg.norm(gradient(inputs, membership, penalty, np.zeros_like(solution)), axis=0)
    assert (left <= 2e-4 * first).all()


def test_classes_in_several_blocks_have_the_same_solution() -> None:
    counts = [4] * 70
    inputs, membership = with_ones(make_features(counts, dimensions=80) / 5), make_membership(counts)

    together = solve_regressions(inputs, membership, 0.01, threads=3)

    for index in (0, 31, 32, 69):
        alone = solve_regressions(inputs, membership[:, [index]], 0.01, threads=1)
        assert together[:, index] == pytest.approx(alone[:, 0], abs=2e-3 * float(np.abs(alone).max()))


def test_a_class_without_images_is_never_predicted() -> None:
    inputs, membership = with_ones(make_features([10, 10])), np.zeros((20, 2), dtype=np.bool_)
    membership[:10, 0] = True

    margins = inputs @ solve_regressions(inputs, membership, 0.01, threads=1)

    assert np.isfinite(margins).all()
    assert (margins[:, 1] < 0).all()
