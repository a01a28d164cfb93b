import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import REJECTION_FLOOR, REJECTION_START, Heads, Rejection, normalised, rejection_factors


def make_heads(*, classes: int = 3, features: int = 700, seed: int = 0) -> Heads:
    random = np.random.default_rng(seed)
    return Heads(
        weights=random.normal(size=(classes, features)).astype(np.float32),
        bias=random.normal(size=classes).astype(np.float32),
        slope=np.full(classes, 0.1, dtype=np.float32),
        offset=random.normal(size=classes).astype(np.float32),
    )


def make_features(count: int, features: int = 700) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(count, features)).astype(np.float32)


def make_rejection(features: NDArray[np.float32], *, power: float = 0.6, rank: int = 8) -> Rejection:
    """A rejection with three class means among the features, half of which are beyond the border."""
    inputs = normalised(features.astype(np.float64), power)
    means, directions = inputs[:3], np.random.default_rng(2).normal(size=(rank, inputs.shape[1])) / inputs.shape[1]
    squares = np.min([((inputs - mean) ** 2).sum(axis=1) for mean in means], axis=0) - ((inputs @ directions.T) ** 2).sum(
        axis=1
    )
    scale = 1 / float(np.median(squares))
    return Rejection(
        linear=(-2 * scale * means).astype(np.float32),
        constant=(scale * (1 + (means**2).sum(axis=1))).astype(np.float32),
        directions=(np.sqrt(scale) * directions).astype(np.float32),
        centre=np.zeros(rank, dtype=np.float32),
    )


def scores_before_power_and_rejection(heads: Heads, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The formula of releases without power and rejection, operation by operation."""
    margins = np.empty((len(features), heads.class_count), dtype=np.float64)
    for row, image_features in enumerate(features.astype(np.float64)):
        margins[row] = heads.weights.astype(np.float64) @ image_features
    exponents = np.clip(heads.slope * (margins + heads.bias) + heads.offset, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(-exponents))).astype(np.float32)


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_heads_without_power_and_rejection_score_exactly_as_before(classes: int) -> None:
    heads, features = make_heads(classes=classes), make_features(30)

    assert np.array_equal(heads.scores(features), scores_before_power_and_rejection(heads, features))


def test_scores_follow_the_formula() -> None:
    heads, features = make_heads(), make_features(5)

    margins = features.astype(np.float64) @ heads.weights.T.astype(np.float64) + heads.bias
    expected = 1 / (1 + np.exp(-(heads.slope * margins + heads.offset)))

    assert heads.scores(features) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 37, 500])
def test_an_image_has_the_same_scores_alone_and_among_others(classes: int) -> None:
    heads, features = make_heads(classes=classes), make_features(23)

    together = heads.scores(features)

    for row in range(len(features)):
        assert np.array_equal(heads.scores(features[row : row + 1])[0], together[row])


def test_no_images_have_no_scores() -> None:
    assert make_heads().scores(make_features(0)).shape == (0, 3)


def test_extreme_margins_give_0_and_1_without_warning() -> None:
    heads = Heads(
        weights=np.array([[1e6]], dtype=np.float32),
        bias=np.zeros(1, dtype=np.float32),
        slope=np.ones(1, dtype=np.float32),
        offset=np.zeros(1, dtype=np.float32),
    )

    with np.errstate(all="raise"):
        scores = heads.scores(np.array([[1e6], [-1e6]], dtype=np.float32))

    assert scores.ravel() == pytest.approx([1, 0])


def test_features_of_another_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \[N, 700\]"):
        make_heads().scores(make_features(1, features=701))


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Heads(
            weights=np.full((1, 2), np.nan, dtype=np.float32),
            bias=np.zeros(1, dtype=np.float32),
            slope=np.ones(1, dtype=np.float32),
            offset=np.zeros(1, dtype=np.float32),
        )


def test_heads_with_a_power_score_normalised_features() -> None:
    heads, features = dataclasses.replace(make_heads(), power=0.6), make_features(20)

    raised = np.sign(features) * np.abs(features.astype(np.float64)) ** 0.6
    expected = make_heads().scores((raised / np.linalg.norm(raised, axis=1, keepdims=True)).astype(np.float32))

    assert heads.scores(features) == pytest.approx(expected, abs=1e-6)


def test_the_scale_of_features_does_not_matter_with_a_power() -> None:
    heads, features = dataclasses.replace(make_heads(), power=0.6), make_features(20)

    assert heads.scores(features * 1000) == pytest.approx(heads.scores(features), abs=1e-6)


def test_features_of_zeros_are_scored() -> None:
    features = make_features(3)
    features[1] = 0
    heads = dataclasses.replace(make_heads(), power=0.6, rejection=make_rejection(make_features(20)))

    with np.errstate(all="raise"):
        scores = heads.scores(features)

    assert np.isfinite(scores).all()


@pytest.mark.parametrize("rank", [0, 8])
def test_a_rejection_multiplies_the_scores_by_its_factor(rank: int) -> None:
    features = make_features(40)
    rejection = make_rejection(features, rank=rank)
    plain = dataclasses.replace(make_heads(), power=0.6)

    inputs = normalised(features.astype(np.float64), 0.6)
    squares = np.array([(rejection.linear @ row + rejection.constant).min() for row in inputs])
    squares -= ((inputs @ rejection.directions.T + rejection.centre) ** 2).sum(axis=1)
    factors = rejection_factors(np.sqrt(np.maximum(squares, 0)))
    scores = dataclasses.replace(plain, rejection=rejection).scores(features)

    assert 5 < (factors < 0.5).sum() < 35
    assert scores == pytest.approx(plain.scores(features) * factors[:, None], rel=1e-3)


def test_rejection_does_not_change_margins() -> None:
    features = make_features(20)
    plain = dataclasses.replace(make_heads(), power=0.6)

    rejecting = dataclasses.replace(plain, rejection=make_rejection(features))

    assert np.array_equal(rejecting.margins(features), plain.margins(features))


@pytest.mark.parametrize("classes", [1, 37])
def test_an_image_has_the_same_distance_alone_and_among_others(classes: int) -> None:
    features = make_features(23)
    heads = dataclasses.replace(make_heads(classes=classes), power=0.6, rejection=make_rejection(features))

    together = heads.scores(features)

    for row in range(len(features)):
        assert np.array_equal(heads.scores(features[row : row + 1])[0], together[row])


def test_factors_fall_from_1_near_the_classes_over_half_at_the_border_to_a_floor() -> None:
    factors = rejection_factors(np.array([0.0, REJECTION_START, 1.0, 1.5, 1e9, np.inf]))

    assert factors.tolist() == [1, 1, pytest.approx(0.5), REJECTION_FLOOR, REJECTION_FLOOR, REJECTION_FLOOR]


def test_factors_never_rise_with_the_distance() -> None:
    assert (np.diff(rejection_factors(np.linspace(0, 3, 1000))) <= 0).all()


@pytest.mark.parametrize("power", [0.0, -1.0, 1.5, float("nan")])
def test_an_invalid_power_is_refused(power: float) -> None:
    with pytest.raises(ValueError, match="power"):
        dataclasses.replace(make_heads(), power=power)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"constant": np.zeros(2, dtype=np.float32)}, "do not match"),
        ({"directions": np.zeros((8, 699), dtype=np.float32)}, "do not match"),
        ({"centre": np.zeros(7, dtype=np.float32)}, "do not match"),
        ({"centre": np.zeros(8)}, "finite float32"),
        ({"constant": np.full(3, np.inf, dtype=np.float32)}, "finite float32"),
    ],
    ids=["another number of classes", "another number of features", "another number of directions", "float64", "infinite"],
)
def test_a_rejection_that_does_not_fit_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        dataclasses.replace(make_rejection(make_features(20)), **changes)


def test_a_rejection_for_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match="another number of features"):
        dataclasses.replace(make_heads(features=699), rejection=make_rejection(make_features(20)))
