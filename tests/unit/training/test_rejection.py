"""None of the above: images unlike every example get low scores, without negatives too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.heads import Rejection, normalised
from ocelli_training.fit import FEATURE_POWER, Fit, fit_heads
from ocelli_training.within_class import DIRECTIONS_LIMIT, SHRINKAGE, WithinClass
from tests.unit.training.made_examples import Features, make_examples, make_features, make_membership

CLASSES = [90, 90]
DIMENSIONS = 128


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Of two classes without negatives."""
    return fit_heads(make_examples(CLASSES, distance=8, dimensions=DIMENSIONS))


def like_the_classes(seed: int = 7) -> Features:
    return make_features([300, 300], distance=8, dimensions=DIMENSIONS, seed=seed)


def unlike_every_class() -> Features:
    """Images of 20 other classes."""
    return make_features([0, 0, *[20] * 20], distance=8, dimensions=DIMENSIONS, seed=7)


def test_images_unlike_every_class_are_below_half(fit: Fit) -> None:
    assert (fit.heads.scores(unlike_every_class()) < 0.5).all(axis=1).mean() >= 0.9


def test_without_rejection_they_would_not_be(fit: Fit) -> None:
    heads = dataclasses.replace(fit.heads, rejection=None)

    assert (heads.scores(unlike_every_class()) < 0.5).all(axis=1).mean() < 0.7


def test_rejection_loses_one_correct_prediction_in_twenty(fit: Fit) -> None:
    truth, images = np.repeat([0, 1], 300), like_the_classes()
    right = dataclasses.replace(fit.heads, rejection=None).scores(images)[np.arange(600), truth] >= 0.5
    kept = fit.heads.scores(images)[np.arange(600), truth] >= 0.5

    lost = (right & ~kept).sum() / right.sum()

    # 5 %, plus chance: the border comes from 180 images, and is applied to 600 others.
    assert lost < 0.05 + 3 * np.sqrt(0.05 * 0.95 * (1 / 180 + 1 / 600))


def test_one_evaluated_image_in_twenty_is_rejected(fit: Fit) -> None:
    rejected = (fit.scores < 0.5 * fit.unrejected_scores).any(axis=1).mean()

    assert 0.01 < rejected < 0.1


def test_rejection_keeps_the_order_of_the_classes(fit: Fit) -> None:
    images = np.concatenate([like_the_classes(), unlike_every_class()])

    scores, unrejected = fit.heads.scores(images), dataclasses.replace(fit.heads, rejection=None).scores(images)

    assert np.array_equal(scores.argmax(axis=1), unrejected.argmax(axis=1))
    assert (np.diff(np.take_along_axis(scores, unrejected.argsort(axis=1), axis=1), axis=1) >= 0).all()


def test_a_class_of_nearly_equal_images_keeps_its_images() -> None:
    # Frames of a camera in front of which nothing moves: float32 rounding must not reject them.
    examples = make_examples([40, 40], distance=8)
    for first in (0, 40):
        rows = examples.features[first : first + 40]
        rows[:] = rows[0] + np.random.default_rng(first).normal(0, 1e-4, rows.shape)

    heads = fit_heads(examples).heads

    assert ((heads.scores(examples.features) >= 0.5) == examples.membership).mean() > 0.9


def test_the_artifact_keeps_no_image_s_features() -> None:
    # An erased picture must be gone: only means are kept, and directions in which many images differ.
    examples = make_examples([20, 20, 20], distance=3, dimensions=64)
    heads = fit_heads(examples).heads
    assert heads.rejection is not None
    images = normalised(examples.features.astype(np.float64), FEATURE_POWER)
    centred = images - images.mean(axis=0)

    kept = np.concatenate([heads.weights, heads.rejection.linear, heads.rejection.directions])
    kept = kept[np.linalg.norm(kept, axis=1) > 0]

    for rows in (images, centred):
        likeness = np.abs((rows / np.linalg.norm(rows, axis=1)[:, None]) @ (kept / np.linalg.norm(kept, axis=1)[:, None]).T)
        assert likeness.max() < 0.95
    assert len(kept) < len(images) + DIRECTIONS_LIMIT
    assert not any(np.isclose(kept, image, atol=1e-4).all(axis=1).any() for image in [*images, *examples.features])


def make_basis(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of the rows."""
    basis: NDArray[np.float64] = np.linalg.qr(features.T)[0]
    return basis


def mahalanobis(
    images: NDArray[np.float64],
    learned: NDArray[np.float64],
    membership: NDArray[np.bool_],
    covariance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """To the nearest class mean, by definition."""
    inverse = np.linalg.inv(covariance)
    means = [learned[membership[:, index]].mean(axis=0) for index in range(membership.shape[1])]
    squares = [np.einsum("nd,de,ne->n", images - mean, inverse, images - mean) for mean in means]
    distances: NDArray[np.float64] = np.sqrt(np.min(squares, axis=0))
    return distances


def shrunk_covariance(learned: NDArray[np.float64], membership: NDArray[np.bool_]) -> NDArray[np.float64]:
    own = np.concatenate([learned[of_class] - learned[of_class].mean(axis=0) for of_class in membership.T])
    covariance, features = own.T @ own / len(own), learned.shape[1]
    shrunk: NDArray[np.float64] = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / features * np.eye(features)
    return shrunk


def rotated(
    learned: NDArray[np.float64], membership: NDArray[np.bool_], *, turn: bool
) -> tuple[WithinClass, NDArray[np.float64], NDArray[np.float64] | None]:
    """Measured with the mean taken off, in fewer coordinates where asked for; with the mean and the basis."""
    origin = learned.mean(axis=0)
    basis = make_basis(learned - origin) if turn else None
    inputs = learned - origin if basis is None else (learned - origin) @ basis
    return WithinClass.measure(inputs.astype(np.float32), membership, learned.shape[1]), origin, basis


@pytest.mark.parametrize(
    ("counts", "dimensions", "turn"),
    [([60, 40, 30], 24, False), ([12, 9], 100, True), ([300, 200], 100, False)],
    ids=["few features", "fewer images than features", "many images"],
)
def test_the_distance_is_mahalanobis_s_to_the_nearest_mean(counts: list[int], dimensions: int, turn: bool) -> None:
    membership, border = make_membership(counts), 7.0
    learned = normalised(make_features(counts, dimensions=dimensions, distance=3).astype(np.float64), FEATURE_POWER)
    images = normalised(make_features([50] * 5, dimensions=dimensions, distance=3, seed=7).astype(np.float64), FEATURE_POWER)
    expected = mahalanobis(images, learned, membership, shrunk_covariance(learned, membership))
    within_class, origin, basis = rotated(learned, membership, turn=turn)
    centred = images - origin

    inputs = centred if basis is None else centred @ basis
    measured = within_class.distances(inputs.astype(np.float32), (centred**2).sum(axis=1))
    kept = within_class.rejection(basis, origin, border).distances(images)

    assert measured == pytest.approx(expected, rel=1e-4)
    assert kept == pytest.approx(expected / border, rel=1e-4)


def test_narrow_directions_of_many_features_share_one_variance() -> None:
    counts, dimensions = [300, 300], DIRECTIONS_LIMIT + 60
    membership = make_membership(counts)
    learned = normalised(make_features(counts, dimensions=dimensions, distance=3).astype(np.float64), FEATURE_POWER)
    images = normalised(make_features([50] * 3, dimensions=dimensions, distance=3, seed=7).astype(np.float64), FEATURE_POWER)
    variances, vectors = np.linalg.eigh(shrunk_covariance(learned, membership))
    variances[:-DIRECTIONS_LIMIT] = variances[:-DIRECTIONS_LIMIT].mean()
    expected = mahalanobis(images, learned, membership, vectors * variances @ vectors.T)
    within_class, origin, basis = rotated(learned, membership, turn=False)

    rejection = within_class.rejection(basis, origin, 1.0)

    assert len(rejection.directions) == DIRECTIONS_LIMIT
    assert rejection.distances(images) == pytest.approx(expected, rel=1e-4)


def test_heads_reject_at_the_distance_that_cross_validation_found(fit: Fit) -> None:
    rejection = fit.heads.rejection
    assert isinstance(rejection, Rejection)

    distances = rejection.distances(normalised(like_the_classes().astype(np.float64), FEATURE_POWER))

    assert 0.9 < (distances < 1).mean() < 0.99
