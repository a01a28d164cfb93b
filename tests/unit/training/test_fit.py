"""Heads trained on made features. Rejection loses about one correct prediction in twenty by design: bounds allow for it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import normalised
from ocelli_training.evaluate import JudgedImage, evaluate
from ocelli_training.fit import FEATURE_POWER, PENALTIES, Examples, Fit, View, fit_heads
from ocelli_training.folds import FOLDS
from tests.unit.training.made_examples import Features, first_classes, make_examples, make_features, make_folds, make_membership


def same(first: Fit, second: Fit) -> bool:
    return all(
        np.array_equal(getattr(first.heads, name), getattr(second.heads, name))
        for name in ("weights", "bias", "slope", "offset")
    ) and np.array_equal(first.scores, second.scores)


def balanced_accuracy(fit: Fit, examples: Examples) -> float:
    count, classes = examples.membership.shape
    names = [str(index) for index in range(classes)]
    return evaluate(fit, examples.membership, np.arange(count), names, [JudgedImage(name="", sha256="")] * count).accuracy


def modal_examples(count: int, kinds: int, *, spread: float, dimensions: int = 64, seed: int = 0) -> Examples:
    """Two classes, each of several kinds of images that have nothing in common but their class."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(2, kinds, dimensions))
    classes = np.arange(2 * count) % 2
    features = centres[classes, random.integers(0, kinds, 2 * count)] + spread * random.normal(size=(2 * count, dimensions))
    return Examples(
        features=features.astype(np.float32),
        membership=np.eye(2, dtype=np.bool_)[classes],
        folds=make_folds(2 * count, seed),
    )


@pytest.mark.parametrize("counts", [[10, 10], [10, 10, 10], [60, 60], [200, 10, 30]])
def test_images_like_those_of_a_class_reach_half_in_that_class_only(counts: list[int]) -> None:
    heads = fit_heads(make_examples(counts)).heads

    scores = heads.scores(make_features(counts, seed=7))

    truth = np.repeat(np.arange(len(counts)), counts)
    assert ((scores >= 0.5) == np.eye(len(counts), dtype=bool)[truth]).mean() > 0.93


@pytest.mark.parametrize(("count", "negatives"), [(10, 10), (10, 300), (60, 60)])
def test_one_class_and_negatives_give_one_class(count: int, negatives: int) -> None:
    heads = fit_heads(make_examples([count], negatives=negatives)).heads

    scores = heads.scores(make_features([count, negatives], seed=7))

    assert scores.shape == (count + negatives, 1)
    assert (scores[:count] >= 0.5).mean() >= 0.9
    assert (scores[count:] < 0.5).mean() > 0.98


def test_images_like_the_negatives_reach_half_in_no_class() -> None:
    heads = fit_heads(make_examples([20, 20, 20], negatives=20)).heads

    scores = heads.scores(make_features([1, 1, 1, 100], seed=7))[3:]

    assert (scores < 0.5).all(axis=1).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("counts", [[20, 20], [200, 200]])
def test_all_images_are_used_for_evaluation_and_training(counts: list[int]) -> None:
    examples = make_examples(counts, distance=2)

    fit = fit_heads(examples)

    assert fit.scores.shape == examples.membership.shape
    for row in range(0, sum(counts), sum(counts) // 10):
        features = examples.features.copy()
        features[row] += 3
        changed = fit_heads(dataclasses.replace(examples, features=features))
        assert not np.array_equal(changed.heads.weights, fit.heads.weights)


def test_scores_of_the_images_are_by_heads_that_did_not_see_them() -> None:
    # Classes by chance: only heads that saw an image know its class.
    examples = make_examples([40, 40], distance=0, dimensions=200)

    fit = fit_heads(examples)

    truth = first_classes(examples)
    assert (fit.heads.scores(examples.features).argmax(axis=1) == truth).mean() > 0.95
    assert 0.3 < (fit.scores.argmax(axis=1) == truth).mean() < 0.7


def test_images_of_one_fold_are_not_used_to_score_each_other() -> None:
    # By chance again: a copy in another fold would give an image's class away.
    once = make_examples([40, 40], distance=0, dimensions=200)
    twice = {
        "features": np.concatenate([once.features, once.features]),
        "membership": np.concatenate([once.membership, once.membership]),
    }

    together = fit_heads(Examples(**twice, folds=np.concatenate([once.folds, once.folds])))
    apart = fit_heads(Examples(**twice, folds=np.concatenate([once.folds, (once.folds + 1) % FOLDS])))

    truth = np.tile(first_classes(once), 2)
    assert (together.scores.argmax(axis=1) == truth).mean() < 0.7
    assert (apart.scores.argmax(axis=1) == truth).mean() > 0.95


@pytest.mark.slow
def test_49_50_and_51_images_of_a_class_give_heads_that_are_as_good() -> None:
    # Ten datasets of each size: classes that overlap, evaluated on 2,000 other images.
    judged, truth = make_features([1000, 1000], distance=1.5, seed=999), np.repeat([0, 1], 1000)
    right: dict[int, list[float]] = {}
    reported: dict[int, list[float]] = {}
    for count in (49, 50, 51):
        for seed in range(10):
            examples = make_examples([count, count], distance=1.5, seed=seed, fold_seed=seed)
            fit = fit_heads(examples)
            right.setdefault(count, []).append(float((fit.heads.scores(judged).argmax(axis=1) == truth).mean()))
            reported.setdefault(count, []).append(balanced_accuracy(fit, examples))

    for found in (right, reported):
        means = [float(np.mean(found[count])) for count in (49, 50, 51)]
        noise = max(float(np.std(found[count])) / np.sqrt(10) for count in (49, 50, 51))
        assert max(means) - min(means) < 4 * noise


def test_10_and_500_images_give_a_balanced_accuracy_that_does_not_favour_the_larger_class() -> None:
    # These cannot be distinguished, so the best guess is always the larger class: it is right for 98 % of the images.
    examples = make_examples([10, 500], distance=0, dimensions=40)
    fit = fit_heads(examples)

    images = [JudgedImage(name="", sha256="")] * 510
    evaluation = evaluate(fit, examples.membership, np.arange(510), ["few", "many"], images)

    assert 0.3 < evaluation.accuracy < 0.7
    assert evaluation.accuracy_interval[0] <= 0.5 <= evaluation.accuracy_interval[1]


def test_10_images_are_distinguished_from_500() -> None:
    examples = make_examples([10, 500])

    assert balanced_accuracy(fit_heads(examples), examples) >= 0.95


@pytest.mark.parametrize("counts", [[12, 15, 30], [60, 80]])
def test_a_second_run_gives_exactly_the_same(counts: list[int]) -> None:
    examples = make_examples(counts, distance=2)

    assert same(fit_heads(examples), fit_heads(examples))


def test_the_order_of_classes_is_that_of_membership() -> None:
    examples = make_examples([30, 30, 30])
    turned = dataclasses.replace(examples, membership=np.ascontiguousarray(examples.membership[:, [2, 0, 1]]))

    scores = fit_heads(turned).heads.scores(examples.features)

    assert scores[[0, 30, 60]].argmax(axis=1).tolist() == [1, 2, 0]


@pytest.mark.parametrize("counts", [[200, 200], [300, 60, 60]])
def test_half_is_each_class_s_best_threshold(counts: list[int]) -> None:
    heads = dataclasses.replace(fit_heads(make_examples(counts, distance=2)).heads, rejection=None)
    scores = heads.scores(make_features([10 * count for count in counts], distance=2, seed=7))
    truth = np.eye(len(counts), dtype=bool)[np.repeat(np.arange(len(counts)), [10 * count for count in counts])]

    def f1(index: int, threshold: float) -> float:
        predicted = scores[:, index] >= threshold
        return float(2 * (predicted & truth[:, index]).sum() / (predicted.sum() + truth[:, index].sum()))

    for index in range(len(counts)):
        best = max(f1(index, threshold) for threshold in np.linspace(0.02, 0.98, 97))
        assert f1(index, 0.5) > best - 0.03


def test_the_scale_of_features_does_not_change_the_fit() -> None:
    examples = make_examples([20, 20], distance=3)
    scaled = dataclasses.replace(examples, features=examples.features * 64)

    plain, other = fit_heads(examples), fit_heads(scaled)

    assert other.scores == pytest.approx(plain.scores, abs=2e-3)


@pytest.mark.slow
def test_heads_are_as_good_as_scikit_learn_s_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    judged, truth = make_features([500, 500, 500], distance=2, seed=999), np.repeat([0, 1, 2], 500)
    ours, theirs = [], []
    for seed in range(5):
        examples = make_examples([40, 20, 60], distance=2, seed=seed, fold_seed=seed)
        rows = normalised(examples.features.astype(np.float64), FEATURE_POWER)
        reference = LogisticRegression(C=10, class_weight="balanced", max_iter=1000).fit(rows, first_classes(examples))
        theirs.append((reference.predict(normalised(judged.astype(np.float64), FEATURE_POWER)) == truth).mean())
        ours.append((fit_heads(examples).heads.scores(judged).argmax(axis=1) == truth).mean())

    assert np.mean(ours) > np.mean(theirs) - 0.01


@pytest.mark.parametrize("seed", range(3))
def test_much_noise_chooses_the_strongest_penalty(seed: int) -> None:
    assert fit_heads(make_examples([60, 60], distance=1, dimensions=100, seed=seed)).recipe.penalty == max(PENALTIES)


@pytest.mark.parametrize("seed", range(3))
def test_many_images_with_little_noise_choose_the_weakest_penalty(seed: int) -> None:
    assert fit_heads(modal_examples(400, 20, spread=0.5, seed=seed)).recipe.penalty == min(PENALTIES)


def test_moderate_noise_chooses_other_penalties() -> None:
    chosen = {fit_heads(modal_examples(200, 20, spread=0.8, seed=seed)).recipe.penalty for seed in range(6)}

    assert chosen - {max(PENALTIES), min(PENALTIES)}


@pytest.mark.slow
def test_the_chosen_penalty_has_nearly_the_least_error_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, judged = modal_examples(400, 20, spread=0.5), modal_examples(2000, 20, spread=0.5, seed=1)

    def errors() -> float:
        return float((fit_heads(examples).heads.scores(judged.features).argmax(axis=1) != first_classes(judged)).mean())

    chosen, alone = errors(), []
    for penalty in PENALTIES:
        monkeypatch.setattr("ocelli_training.fit.PENALTIES", (penalty,))
        alone.append(errors())

    assert chosen <= min(alone) + 0.005
    assert max(alone) > min(alone) + 0.005


def test_mirrored_images_are_used_where_they_are_like_the_images() -> None:
    assert View.MIRRORED in fit_heads(make_examples([20, 20], distance=2, views=(View.MIRRORED,))).recipe.views


def test_mirrored_images_are_not_used_where_they_are_like_the_other_class() -> None:
    examples = make_examples([20, 20], distance=2)
    mirrored = make_features([20, 20], distance=2, seed=1)[::-1]
    turned = dataclasses.replace(examples, other_views={View.MIRRORED: np.ascontiguousarray(mirrored)})

    assert fit_heads(turned).recipe.views == (View.WHOLE,)


def test_enlarged_images_are_used() -> None:
    assert fit_heads(make_examples([20, 20], views=(View.ENLARGED,))).recipe.views == (View.WHOLE, View.ENLARGED)


def test_equal_features_everywhere_fit_without_failure() -> None:
    # Plain images of one colour: the classes cannot be distinguished, and nothing may overflow.
    constant = np.ones((40, 8), dtype=np.float32)
    constant[:, 0] = np.arange(40) * 1e-12
    examples = Examples(features=constant, membership=make_membership([20, 20]), folds=make_folds(40))

    with np.errstate(over="raise", invalid="raise", divide="raise"):
        fit = fit_heads(examples)

    assert np.isfinite(fit.scores).all()


def test_features_of_zeros_fit_without_failure() -> None:
    examples = make_examples([20, 20])
    examples.features[:3] = 0

    with np.errstate(over="raise", invalid="raise", divide="raise"):
        fit = fit_heads(examples)

    assert np.isfinite(fit.scores).all()


def test_a_class_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="class 1 of 2 has 1 images"):
        fit_heads(make_examples([10, 1]))


@pytest.mark.parametrize("count", [2, 10, 60])
def test_classes_of_copies_of_one_image_are_distinguished(count: int) -> None:
    # Images of one colour in several sizes: other bytes, the same features.
    examples = make_examples([count, count], fold_seed=1)
    for first in (0, count):
        examples.features[first : first + count] = examples.features[first]

    fit = fit_heads(examples)

    assert ((fit.heads.scores(examples.features) >= 0.5) == examples.membership).all()
    assert (fit.scores.argmax(axis=1) == first_classes(examples)).all()


@pytest.mark.parametrize(("few", "many"), [(5, 55), (55, 5), (3, 7)])
def test_a_class_of_two_much_copied_images_fits(few: int, many: int) -> None:
    examples = make_examples([few + many, few + many])
    examples.features[:few] = examples.features[0]
    examples.features[few : few + many] = examples.features[few]

    for seed in range(5):
        fit = fit_heads(dataclasses.replace(examples, folds=make_folds(2 * (few + many), seed)))
        assert ((fit.heads.scores(examples.features) >= 0.5) == examples.membership).mean() > 0.9


def test_an_image_in_two_classes_does_no_harm() -> None:
    examples = make_examples([60, 60])
    examples.features[:55] = examples.features[0]
    examples.features[60:115] = examples.features[0]

    assert np.isfinite(fit_heads(examples).scores).all()


def test_a_class_whose_images_are_all_in_one_fold_fits() -> None:
    # Two images, or two bursts: by chance the same fold is theirs.
    examples = make_examples([2, 20, 20])
    folds = examples.folds.copy()
    folds[:2] = 3

    fit = fit_heads(dataclasses.replace(examples, folds=folds))

    assert np.isfinite(fit.scores).all()
    assert (fit.heads.scores(examples.features).argmax(axis=1) == first_classes(examples)).mean() > 0.9


@pytest.mark.parametrize("fold", range(FOLDS))
def test_a_dataset_whose_images_are_all_in_one_fold_fits(fold: int) -> None:
    examples = make_examples([2, 2])

    fit = fit_heads(dataclasses.replace(examples, folds=np.full(4, fold)))

    assert np.isfinite(fit.scores).all()


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="give another class or negatives"):
        fit_heads(make_examples([20]))


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: rows[:, :-1]])
def test_views_that_do_not_fit_each_other_are_refused(change: Callable[[Features], Features]) -> None:
    examples = make_examples([10, 10])

    with pytest.raises(ValueError, match="differ"):
        dataclasses.replace(examples, other_views={View.MIRRORED: change(examples.features)})


@pytest.mark.parametrize(
    "change",
    [{"folds": np.zeros(19, dtype=np.intp)}, {"membership": np.zeros((19, 2), dtype=np.bool_)}],
    ids=["folds", "classes"],
)
def test_folds_or_classes_of_other_images_are_refused(change: dict[str, NDArray[np.intp]]) -> None:
    with pytest.raises(ValueError, match="does not fit 20 images"):
        dataclasses.replace(make_examples([10, 10]), **change)


@pytest.mark.parametrize("views", [(), (View.MIRRORED, View.ENLARGED)])
def test_progress_rises_to_1(views: tuple[View, ...]) -> None:
    reported: list[float] = []

    fit_heads(make_examples([12, 12], views=views), reported.append)

    assert reported == sorted(reported)
    assert reported[-1] == 1


@pytest.mark.slow
def test_many_classes_of_few_images_fit() -> None:
    examples = make_examples([10] * 60, dimensions=64, distance=8)

    fit = fit_heads(examples)

    assert (fit.scores.argmax(axis=1) == first_classes(examples)).mean() > 0.95


def test_the_recipe_for_many_images_is_chosen_on_some_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocelli_training.fit.SEARCH_LIMIT_IMAGES", 60)

    fit = fit_heads(make_examples([300, 4, 300], negatives=4))

    assert (fit.heads.scores(make_features([20, 20, 20], seed=7)).argmax(axis=1) == np.repeat([0, 1, 2], 20)).mean() > 0.95


def test_scores_are_those_of_heads_that_are_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of the recipe leaves scores of all images, unless it was made on some of them."""
    examples = make_examples([40, 40], views=(View.ENLARGED, View.MIRRORED), distance=2.0)
    kept = fit_heads(examples)
    monkeypatch.setattr("ocelli_training.fit.SEARCH_LIMIT_IMAGES", 78)
    again = fit_heads(examples)
    assert (kept.recipe, same(kept, again)) == (again.recipe, True)
