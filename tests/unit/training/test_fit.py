from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_training.fit import Examples, Fit, FitSettings, Protocol, fit_heads

Features = NDArray[np.float32]


def make_features(counts: list[int], *, distance: float = 6.0, dimensions: int = 20, seed: int = 0) -> Features:
    """Rows around one centre for each count, one after the other; centres lie `distance` deviations from the middle."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(np.random.default_rng(99).normal(size=(dimensions, dimensions)))[0][: len(counts)] * distance
    return np.concatenate(
        [centre + random.normal(size=(count, dimensions)) for centre, count in zip(centres, counts, strict=True)]
    ).astype(np.float32)


def make_examples(
    counts: list[int], *, negatives: int = 0, distance: float = 6.0, dimensions: int = 20, seed: int = 0
) -> Examples:
    """`counts` images of each class, then the negatives. Mirrored images are like other ones of the same class."""
    every = [*counts, negatives] if negatives else counts
    membership = np.zeros((sum(every), len(counts)), dtype=np.bool_)
    membership[np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts)] = True
    options: dict[str, Any] = {"distance": distance, "dimensions": dimensions}
    return Examples(
        features=make_features(every, seed=seed, **options),
        mirrored_features=make_features(every, seed=seed + 1000, **options),
        membership=membership,
    )


def same(first: Fit, second: Fit) -> bool:
    return all(
        np.array_equal(getattr(first.heads, name), getattr(second.heads, name))
        for name in ("weights", "bias", "slope", "offset")
    ) and np.array_equal(first.evaluated_scores, second.evaluated_scores)


@pytest.mark.parametrize("counts", [[10, 10], [10, 10, 10], [60, 60], [200, 10, 30]])
def test_images_like_those_of_a_class_reach_half_in_that_class_only(counts: list[int]) -> None:
    heads = fit_heads(make_examples(counts), FitSettings()).heads

    scores = heads.scores(make_features(counts, seed=7))

    truth = np.repeat(np.arange(len(counts)), counts)
    assert ((scores >= 0.5) == np.eye(len(counts), dtype=bool)[truth]).mean() > 0.98


@pytest.mark.parametrize(("count", "negatives"), [(10, 10), (10, 300), (60, 60)])
def test_one_class_and_negatives_give_one_class(count: int, negatives: int) -> None:
    heads = fit_heads(make_examples([count], negatives=negatives), FitSettings()).heads

    scores = heads.scores(make_features([count, negatives], seed=7))

    assert scores.shape == (count + negatives, 1)
    assert (scores[:count] >= 0.5).mean() > 0.95
    assert (scores[count:] < 0.5).mean() > 0.98


def test_images_like_the_negatives_reach_half_in_no_class() -> None:
    heads = fit_heads(make_examples([20, 20, 20], negatives=20), FitSettings()).heads

    scores = heads.scores(make_features([1, 1, 1, 100], seed=7))[3:]

    assert (scores < 0.5).all(axis=1).mean() > 0.95


@pytest.mark.parametrize(
    ("counts", "negatives", "protocol"),
    [
        ([50, 50], 0, Protocol.HOLDOUT),
        ([50, 49], 0, Protocol.CROSS_VALIDATION),
        ([50, 50], 49, Protocol.CROSS_VALIDATION),
        ([50, 50], 50, Protocol.HOLDOUT),
    ],
)
def test_below_50_images_of_a_class_the_scores_are_cross_validated(
    counts: list[int], negatives: int, protocol: Protocol
) -> None:
    examples = make_examples(counts, negatives=negatives)

    fit = fit_heads(examples, FitSettings())

    assert fit.protocol is protocol
    if protocol is Protocol.CROSS_VALIDATION:
        assert len(fit.evaluated_rows) == len(examples.features)


def test_the_holdout_takes_its_fraction_of_every_class() -> None:
    examples = make_examples([50, 100], negatives=60)

    fit = fit_heads(examples, FitSettings(holdout_fraction=0.3))

    assert np.bincount(examples.strata()[fit.evaluated_rows]).tolist() == [15, 30, 18]


def test_held_out_images_are_not_learned_from() -> None:
    examples = make_examples([60, 60])
    fit = fit_heads(examples, FitSettings())
    changed = Examples(
        features=examples.features.copy(),
        mirrored_features=examples.mirrored_features.copy(),
        membership=examples.membership,
    )
    changed.features[fit.evaluated_rows] += 1
    changed.mirrored_features[fit.evaluated_rows] -= 3

    assert np.array_equal(fit_heads(changed, FitSettings()).heads.weights, fit.heads.weights)


def test_cross_validated_scores_are_by_heads_that_did_not_see_the_image() -> None:
    # Labels by chance: whoever saw an image knows its class, nobody else does.
    examples = make_examples([40, 40], distance=0, dimensions=200)

    fit = fit_heads(examples, FitSettings())

    truth = examples.strata()
    seen = fit.heads.scores(examples.features).argmax(axis=1)
    assert (seen == truth).mean() > 0.95
    assert 0.3 < (fit.evaluated_scores.argmax(axis=1) == truth).mean() < 0.7


def test_below_50_images_the_heads_are_learned_from_all() -> None:
    examples = make_examples([20, 20])
    changed = Examples(
        features=examples.features.copy(),
        mirrored_features=examples.mirrored_features,
        membership=examples.membership,
    )
    for row in range(40):
        changed.features[:] = examples.features
        changed.features[row] += 1
        assert not np.array_equal(
            fit_heads(changed, FitSettings()).heads.weights, fit_heads(examples, FitSettings()).heads.weights
        )


@pytest.mark.parametrize("count", [30, 60])
@pytest.mark.parametrize("mirrored", [False, True], ids=["same", "mirrored"])
def test_duplicates_are_never_on_both_sides_of_a_split(count: int, mirrored: bool) -> None:
    # By chance again: a duplicate on the other side would give an image's class away.
    once = make_examples([count, count], distance=0, dimensions=400)
    twice = Examples(
        features=np.concatenate([once.features, once.mirrored_features if mirrored else once.features]),
        mirrored_features=np.concatenate([once.mirrored_features, once.features if mirrored else once.mirrored_features]),
        membership=np.concatenate([once.membership, once.membership]),
    )

    fit = fit_heads(twice, FitSettings())

    right = (fit.evaluated_scores.argmax(axis=1) == twice.strata()[fit.evaluated_rows]).mean()
    assert right < 0.75


@pytest.mark.parametrize("counts", [[12, 15, 30], [60, 80]])
def test_a_second_run_gives_the_same_to_the_bit(counts: list[int]) -> None:
    examples = make_examples(counts, distance=2)

    assert same(fit_heads(examples, FitSettings(seed=3)), fit_heads(examples, FitSettings(seed=3)))


def test_another_seed_splits_otherwise() -> None:
    examples = make_examples([60, 60])

    rows = [set(fit_heads(examples, FitSettings(seed=seed)).evaluated_rows.tolist()) for seed in (0, 1)]

    assert rows[0] != rows[1]


def test_the_order_of_classes_is_that_of_membership() -> None:
    examples = make_examples([30, 30, 30])
    turned = Examples(
        features=examples.features,
        mirrored_features=examples.mirrored_features,
        membership=np.ascontiguousarray(examples.membership[:, [2, 0, 1]]),
    )

    scores = fit_heads(turned, FitSettings()).heads.scores(examples.features)

    assert scores[[0, 30, 60]].argmax(axis=1).tolist() == [1, 2, 0]


@pytest.mark.parametrize("counts", [[200, 200], [300, 60, 60]])
def test_half_is_each_class_s_best_threshold(counts: list[int]) -> None:
    fit = fit_heads(make_examples(counts, distance=2), FitSettings(holdout_fraction=0.4))
    scores = fit.heads.scores(make_features([10 * count for count in counts], distance=2, seed=7))
    truth = np.eye(len(counts), dtype=bool)[np.repeat(np.arange(len(counts)), [10 * count for count in counts])]

    def f1(index: int, threshold: float) -> float:
        predicted = scores[:, index] >= threshold
        return float(2 * (predicted & truth[:, index]).sum() / (predicted.sum() + truth[:, index].sum()))

    for index in range(len(counts)):
        best = max(f1(index, threshold) for threshold in np.linspace(0.02, 0.98, 97))
        assert f1(index, 0.5) > best - 0.03


def test_features_of_any_scale_and_place_fit_alike() -> None:
    examples = make_examples([20, 20], distance=3)
    moved = Examples(
        features=examples.features * 64 + 512,
        mirrored_features=examples.mirrored_features * 64 + 512,
        membership=examples.membership,
    )

    plain, other = fit_heads(examples, FitSettings()), fit_heads(moved, FitSettings())

    assert other.evaluated_scores == pytest.approx(plain.evaluated_scores, abs=2e-3)


def test_the_solution_is_the_minimum() -> None:
    from sklearn.linear_model import LogisticRegression

    examples = make_examples([30, 12, 40], distance=1.5)
    weights = fit_heads(examples, FitSettings()).heads.weights

    rows = np.concatenate([examples.features, examples.mirrored_features]).astype(np.float64)
    rows -= rows.mean(axis=0)
    scale = np.sqrt((rows * rows).sum(axis=1).mean())
    for index in range(3):
        of_class = np.concatenate([examples.membership, examples.membership])[:, index]
        reference = LogisticRegression(C=1 / (5e-4 * len(rows)), class_weight="balanced", tol=1e-10, max_iter=10_000)
        reference.fit(rows / scale, of_class)
        assert weights[index] == pytest.approx(
            reference.coef_[0] / scale, rel=5e-3, abs=float(1e-3 * np.abs(weights[index]).max())
        )


def test_equal_features_everywhere_fit_without_failure() -> None:
    # Plain images of one colour: nothing tells the classes apart, and nothing may overflow.
    constant = np.ones((40, 8), dtype=np.float32)
    constant[:, 0] = np.arange(40) * 1e-12
    membership = np.zeros((40, 2), dtype=np.bool_)
    membership[:20, 0] = membership[20:, 1] = True

    with np.errstate(over="raise", invalid="raise", divide="raise"):
        fit = fit_heads(Examples(features=constant, mirrored_features=constant, membership=membership), FitSettings())

    assert np.isfinite(fit.evaluated_scores).all()


def test_a_class_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="class 1 of 2 has 1 images"):
        fit_heads(make_examples([10, 1]), FitSettings())


@pytest.mark.parametrize("count", [2, 10, 60])
def test_classes_of_copies_of_one_image_are_told_apart(count: int) -> None:
    # Images of one colour in several sizes: other bytes, the same features.
    examples = make_examples([count, count])
    for first in (0, count):
        for rows in (examples.features, examples.mirrored_features):
            rows[first : first + count] = rows[first]

    fit = fit_heads(examples, FitSettings())

    scores = fit.heads.scores(examples.features)
    assert ((scores >= 0.5) == examples.membership).all()
    assert (fit.evaluated_scores.argmax(axis=1) == examples.strata()[fit.evaluated_rows]).all()


@pytest.mark.parametrize(("few", "many"), [(5, 55), (55, 5), (3, 7)])
def test_a_class_of_two_much_copied_images_fits(few: int, many: int) -> None:
    examples = make_examples([few + many, few + many])
    for rows in (examples.features, examples.mirrored_features):
        rows[:few] = rows[0]
        rows[few : few + many] = rows[few]

    for seed in range(5):
        fit = fit_heads(examples, FitSettings(seed=seed))
        assert ((fit.heads.scores(examples.features) >= 0.5) == examples.membership).mean() > 0.9


def test_an_image_in_two_classes_does_no_harm() -> None:
    examples = make_examples([60, 60])
    for rows in (examples.features, examples.mirrored_features):
        rows[:55] = rows[0]
        rows[60:115] = rows[0]

    fit = fit_heads(examples, FitSettings())

    assert np.isfinite(fit.evaluated_scores).all()


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="give another class or negatives"):
        fit_heads(make_examples([20]), FitSettings())


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: rows[:, :-1]])
def test_rows_that_do_not_fit_each_other_are_refused(change: Callable[[Features], Features]) -> None:
    examples = make_examples([10, 10])

    with pytest.raises(ValueError, match="differ"):
        Examples(
            features=change(examples.features),
            mirrored_features=examples.mirrored_features,
            membership=examples.membership,
        )


@pytest.mark.parametrize("counts", [[12, 12], [60, 60]])
def test_progress_rises_to_1(counts: list[int]) -> None:
    told: list[float] = []

    fit_heads(make_examples(counts), FitSettings(), told.append)

    assert told == sorted(told)
    assert told[-1] == 1


def test_many_classes_of_few_images_fit() -> None:
    examples = make_examples([10] * 60, dimensions=64, distance=8)

    fit = fit_heads(examples, FitSettings())

    assert (fit.evaluated_scores.argmax(axis=1) == examples.strata()).mean() > 0.95
