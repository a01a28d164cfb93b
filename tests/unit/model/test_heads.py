import numpy as np
import pytest

from ocelli_model.heads import Heads


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
    with pytest.raises(ValueError, match="do not fit 700 weights"):
        make_heads().scores(make_features(1, features=701))


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Heads(
            weights=np.full((1, 2), np.nan, dtype=np.float32),
            bias=np.zeros(1, dtype=np.float32),
            slope=np.ones(1, dtype=np.float32),
            offset=np.zeros(1, dtype=np.float32),
        )
