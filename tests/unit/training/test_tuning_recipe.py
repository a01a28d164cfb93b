"""Numbers, runs and random choices of fine-tuning."""

from __future__ import annotations

import numpy as np
import pytest

from ocelli_api.classifier import ModelRecipe
from ocelli_training.tuning_recipe import (
    CROP_LEAST_AREA,
    StoppingScores,
    TuningRecipe,
    choose_epochs,
    is_improvement,
    plan_runs,
)
from tests.unit.training.made_examples import make_folds, make_membership

RECIPE = TuningRecipe(seed=0, epochs=4, learning_rate=0.1, batch_images=8, mirror=True)
DIGESTS = [f"{number:064x}" for number in range(300)]


def test_a_definition_overrides_every_default() -> None:
    model = ModelRecipe(seed=3, epochs=7, learning_rate=0.5, batch_size=9)
    assert TuningRecipe.complete(model, mirror=False) == TuningRecipe(
        seed=3, epochs=7, learning_rate=0.5, batch_images=9, mirror=False
    )


def test_crops_are_inside_the_image_and_never_below_half_of_it() -> None:
    for digest in DIGESTS:
        part = RECIPE.augmentation(0, 0, digest, (64, 64))
        assert part.height * part.width >= CROP_LEAST_AREA * 64 * 64
        assert 0 <= part.top <= 64 - part.height
        assert 0 <= part.left <= 64 - part.width


def test_half_of_the_images_are_mirrored_only_if_the_linear_recipe_mirrors() -> None:
    still = TuningRecipe(seed=0, epochs=4, learning_rate=0.1, batch_images=8, mirror=False)
    mirrored = [RECIPE.augmentation(0, 0, digest, (64, 64)).mirror for digest in DIGESTS]
    assert 100 < sum(mirrored) < 200
    assert not any(still.augmentation(0, 0, digest, (64, 64)).mirror for digest in DIGESTS)


def test_an_image_is_augmented_alike_whatever_came_before_it() -> None:
    alone = RECIPE.augmentation(1, 2, DIGESTS[5], (64, 64))
    for digest in DIGESTS[:5]:
        RECIPE.augmentation(1, 2, digest, (64, 64))
    assert RECIPE.augmentation(1, 2, DIGESTS[5], (64, 64)) == alone
    assert RECIPE.augmentation(1, 3, DIGESTS[5], (64, 64)) != alone


def test_an_epoch_uses_each_image_once_in_an_order_of_its_own() -> None:
    first, second = RECIPE.order(0, 0, 50), RECIPE.order(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


def test_the_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    rates = [RECIPE.rate(step, 100) for step in range(100)]
    assert rates[:30] == sorted(rates[:30])
    assert rates[30] == max(rates) == RECIPE.learning_rate
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 0.001 * RECIPE.learning_rate


def test_every_image_is_judged_by_one_run_and_chooses_the_epoch_of_another() -> None:
    membership = make_membership([30, 30], negatives=20)
    *runs, _ = plan_runs(make_folds(80), membership)
    for part in ("judged", "stopping"):
        assert sorted(np.concatenate([getattr(run, part) for run in runs]).tolist()) == list(range(80))


def test_learning_stopping_and_judging_share_no_fold() -> None:
    folds = make_folds(80)
    *runs, _ = plan_runs(folds, make_membership([30, 30], negatives=20))
    for run in runs:
        parts = [set(folds[rows].tolist()) for rows in (run.learned, run.stopping, run.judged)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 5


def test_the_last_run_learns_from_all_images() -> None:
    last = plan_runs(make_folds(80), make_membership([40, 40]))[-1]
    assert (len(last.learned), len(last.stopping), len(last.judged)) == (80, 0, 0)


def test_every_run_learns_a_class_that_has_two_folds_only() -> None:
    membership = make_membership([4, 40])
    folds = make_folds(44)
    folds[:4] = [2, 2, 3, 3]
    for run in plan_runs(folds, membership):
        assert membership[run.learned, 0].any()


@pytest.mark.parametrize(
    ("gains", "expected"),
    [([0.3, 0.2, 0.3, 0.2], True), ([0.5, -0.4, 0.3, -0.3], False), ([0.01, 0.01, 0.01, 0.02], False), ([-0.2] * 4, False)],
    ids=["clear", "within the error", "too small", "worse"],
)
def test_tuning_improves_if_the_gain_is_clear_and_large_enough(gains: list[float], expected: bool) -> None:
    linear = StoppingScores(losses=np.ones(4), right=np.array([True, True, True, False]))
    tuned = StoppingScores(losses=linear.losses - gains, right=np.ones(4, dtype=np.bool_))
    assert is_improvement(linear, tuned) is expected


def test_a_lower_loss_with_as_many_errors_is_no_improvement() -> None:
    linear = StoppingScores(losses=np.ones(4), right=np.array([True, True, True, False]))
    tuned = StoppingScores(losses=np.full(4, 0.5), right=np.array([False, True, True, True]))
    assert not is_improvement(linear, tuned)


def test_a_negative_example_is_right_if_no_class_is_predicted() -> None:
    margins = np.array([[2.0, -1.0], [2.0, -1.0], [-1.0, -2.0], [1.0, -2.0]])
    membership = np.array([[True, False], [False, True], [False, False], [False, False]])
    assert StoppingScores.measure(margins, membership).right.tolist() == [True, False, True, False]


@pytest.mark.parametrize(("best", "expected"), [([0, 0, 0, 5, 5], 0), ([1, 2, 3, 8, 9], 3), ([2, 3], 2)])
def test_the_last_run_lasts_for_the_median_of_the_best_epochs(best: list[int], expected: int) -> None:
    assert choose_epochs(best) == expected
