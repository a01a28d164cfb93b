"""Calibrated scores are probabilities, and their best threshold is 0.5."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import calibrated
from ocelli_training.calibration import calibrate
from ocelli_training.fit import fit_heads
from tests.unit.training.made_examples import make_examples, make_membership


def make_margins(counts: list[int], *, distance: float, negatives: int = 0, seed: int = 0) -> NDArray[np.float64]:
    """Of images of each class, then of negatives: normal, with the means `distance` apart."""
    membership = make_membership(counts, negatives=negatives)
    margins: NDArray[np.float64] = np.random.default_rng(seed).normal(size=membership.shape) + distance * (membership - 0.5)
    return margins


@pytest.mark.parametrize("scale", [0.001, 1.0, 1000.0])
def test_scores_are_frequencies_at_any_scale_of_the_margins(scale: float) -> None:
    counts = [1000, 1000]
    margins = make_margins(counts, distance=2) * scale

    scores = calibrated(margins, *calibrate(margins, make_membership(counts)))

    truth = make_membership(counts)
    for low in (0.1, 0.3, 0.5, 0.7):
        inside = (scores >= low) & (scores < low + 0.2)
        assert truth[inside].mean() == pytest.approx(low + 0.1, abs=0.08)


def test_all_classes_have_one_slope() -> None:
    counts = [100, 20, 300]
    margins = make_margins(counts, distance=2) * [1, 3, 0.5]

    slope, _ = calibrate(margins, make_membership(counts))

    assert slope[0] > 0
    assert (slope == slope[0]).all()


@pytest.mark.parametrize("count", [2, 10, 50])
def test_a_few_separable_images_do_not_give_certainty(count: int) -> None:
    membership = make_membership([count, count])
    margins = np.where(membership, 5.0, -5.0)

    scores = calibrated(margins, *calibrate(margins, membership))

    assert ((scores >= 0.5) == membership).all()
    assert scores.max() < 1 - 0.5 / (count + 2)
    assert scores.min() > 0.5 / (count + 2)


@pytest.mark.parametrize("seed", range(5))
def test_inseparable_classes_keep_a_slope_above_0(seed: int) -> None:
    counts = [20, 20]

    slope, offset = calibrate(make_margins(counts, distance=-0.5, seed=seed), make_membership(counts))

    assert (slope > 0).all()
    assert np.isfinite(offset).all()


def test_an_inseparable_class_keeps_the_order_of_its_margins() -> None:
    heads = fit_heads(make_examples([20, 20, 20], distance=0, dimensions=100)).heads

    assert (heads.slope > 0).all()


def test_a_rare_class_is_predicted_at_its_best_threshold() -> None:
    # 20 of 2,020: who asks for a probability of a half finds hardly any.
    membership = make_membership([20], negatives=2000)
    margins = make_margins([20], negatives=2000, distance=2.5)

    scores = calibrated(margins, *calibrate(margins, membership))[:, 0]

    def f1(threshold: float) -> float:
        predicted = scores >= threshold
        return float(2 * (predicted & membership[:, 0]).sum() / (predicted.sum() + 20))

    assert f1(0.5) > max(f1(threshold) for threshold in np.linspace(0.02, 0.98, 97)) - 0.1


@pytest.mark.parametrize("margins", [np.zeros((20, 2)), np.full((20, 2), 1e30), np.full((20, 2), -1e-30)])
def test_equal_margins_are_calibrated_without_failure(margins: NDArray[np.float64]) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        slope, offset = calibrate(margins, make_membership([10, 10]))

    assert np.isfinite(slope).all()
    assert np.isfinite(offset).all()


def test_a_class_without_images_is_calibrated_without_failure() -> None:
    membership = make_membership([10, 10, 0])

    slope, offset = calibrate(np.where(membership, 1.0, -1.0), membership)

    assert (slope > 0).all()
    assert np.isfinite(offset).all()


def test_classes_in_several_blocks_have_the_same_calibration() -> None:
    counts = [5] * 70
    margins, membership = make_margins(counts, distance=3), make_membership(counts)
    order = np.random.default_rng(0).permutation(70)

    slope, offset = calibrate(margins, membership)
    other_slope, other_offset = calibrate(margins[:, order], membership[:, order])

    assert other_slope == pytest.approx(slope, rel=1e-4)
    assert other_offset == pytest.approx(offset[order], abs=1e-3)
