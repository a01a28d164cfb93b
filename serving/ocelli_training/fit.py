"""Learning the heads: one-vs-rest logistic regression over a backbone's features, with calibration.

It knows features and classes, not images, networks or files. Only numpy: importing an optimiser would take the trainer longer
than the optimisation does. Threads are this module's own, each with some of the classes: NumPy's rounding depends on the number
of its threads, and on small matrices they cost more than they bring, so the trainer gives NumPy one.

How a fit goes:

1. Features are centred and scaled by one number, so that the mean square length of an example is 1. One number and not one for
   each feature: a backbone's own proportions between its features are information (HogColor weighs its groups by them).
2. Every class has its logistic regression against all other images, with an L2 penalty; see `_Regression`.
3. Where every class, and the negatives if there are any, have `HOLDOUT_MINIMUM_IMAGES` images, a stratified part is held out,
   and the heads that are served are those learned from the rest. Otherwise every image is scored by heads learned without it
   (cross-validation), and the heads that are served are learned from all.
4. The scores of images that heads did not see calibrate these (Platt scaling), then each class's offset is moved so that its
   best threshold is 0.5.
5. For the evaluation, a calibrated score of an image comes from a calibration that did not see it either.

Mirrored images are learned from and never scored. Images of the same features, or of each other's mirrored features, are
duplicates: they stay on the same side of a split, except in a class that has nothing but copies of one image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import Heads, calibrated

HOLDOUT_MINIMUM_IMAGES = 50
FOLDS = 5
CLASS_MINIMUM_IMAGES = 2

_PENALTY = 5e-4
# Fixed, not a share of the threads: rounding depends on it. Enough columns for products of matrices to be fast.
_CLASSES_AT_A_TIME = 32
_NEWTON_STEPS = 30
_CONJUGATE_STEPS = 40
_TOLERANCE = 1e-4


class Protocol(StrEnum):
    """How the scores that calibrate and evaluate came about."""

    HOLDOUT = "Holdout"
    """Scores of held-out images by the heads that are served."""
    CROSS_VALIDATION = "CrossValidation"
    """Scores of every image by heads learned without it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What is learned from: a row per image."""

    features: NDArray[np.float32]
    """float32[N, D]."""
    mirrored_features: NDArray[np.float32]
    """float32[N, D]: of the same images, mirrored."""
    membership: NDArray[np.bool_]
    """bool[N, C]; a row without any class is a negative example."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.shape != self.mirrored_features.shape:
            raise ValueError(f"examples: features {self.features.shape} and mirrored {self.mirrored_features.shape} differ")
        if self.membership.ndim != 2 or len(self.membership) != len(self.features):
            raise ValueError(f"examples: membership {self.membership.shape} does not fit {len(self.features)} images")

    def take(self, rows: NDArray[np.intp]) -> Examples:
        """The examples of some rows."""
        return Examples(
            features=self.features[rows], mirrored_features=self.mirrored_features[rows], membership=self.membership[rows]
        )

    def strata(self) -> NDArray[np.intp]:
        """intp[N]: each image's first class, or C for a negative."""
        first: NDArray[np.intp] = self.membership.argmax(axis=1)
        first[~self.membership.any(axis=1)] = self.membership.shape[1]
        return first


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What the recipe says about fitting."""

    seed: int = 0
    """Decides which images are held out, and the folds."""
    holdout_fraction: float = 0.2
    """Part of every class that is held out, above 0 and below 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The heads, and what an evaluation needs."""

    heads: Heads
    protocol: Protocol
    evaluated_rows: NDArray[np.intp]
    """intp[M]: the rows of the examples that were scored, rising."""
    evaluated_scores: NDArray[np.float32]
    """float32[M, C]: their scores, by heads and calibration that did not see them."""


def fit_heads(
    examples: Examples, settings: FitSettings, on_progress: Callable[[float], None] = lambda part: None, *, threads: int = 1
) -> Fit:
    """Learn calibrated heads. `on_progress` is told the part done, 0 to 1.

    The same examples and settings give the same weights to the bit, on one kind of CPU with one version of NumPy that itself
    uses one thread (`OPENBLAS_NUM_THREADS=1`), whatever `threads` is.

    Raises:
        ValueError: a class has fewer than two images, or there is nothing to tell it from; `check_dataset` refuses both before.
    """
    _refuse_too_few(examples)
    strata = examples.strata()
    groups = _duplicate_groups(examples)
    random = np.random.default_rng(settings.seed)
    counts = np.bincount(strata)
    if counts[counts > 0].min() >= HOLDOUT_MINIMUM_IMAGES:
        held_out = _held_out(strata, groups, settings.holdout_fraction, random)
        rows = np.flatnonzero(held_out)
        weights, bias = _fit_linear(examples.take(np.flatnonzero(~held_out)), threads)
        margins = _margins(examples.features[rows], weights, bias)
        folds = _folds(strata[rows], groups[rows], FOLDS, random)
        protocol = Protocol.HOLDOUT
    else:
        rows = np.arange(len(strata))
        folds = _folds(strata, groups, FOLDS, random)
        margins = np.empty(examples.membership.shape, dtype=np.float64)
        for fold in range(FOLDS):
            inside = folds == fold
            part = _fit_linear(examples.take(np.flatnonzero(~inside)), threads)
            margins[inside] = _margins(examples.features[inside], *part)
            on_progress((fold + 1) / (FOLDS + 1))
        weights, bias = _fit_linear(examples, threads)
        protocol = Protocol.CROSS_VALIDATION
    membership = examples.membership[rows]
    slope, offset = _calibration(margins, membership)
    scores = np.empty(margins.shape, dtype=np.float32)
    for fold in range(FOLDS):
        inside = folds == fold
        scores[inside] = calibrated(margins[inside], *_calibration(margins[~inside], membership[~inside]))
    on_progress(1.0)
    heads = Heads(weights=weights, bias=bias, slope=slope, offset=offset)
    return Fit(heads=heads, protocol=protocol, evaluated_rows=rows, evaluated_scores=scores)


def _refuse_too_few(examples: Examples) -> None:
    classes = examples.membership.shape[1]
    for index in range(classes):
        images = int(examples.membership[:, index].sum())
        if images < CLASS_MINIMUM_IMAGES:
            raise ValueError(f"examples: class {index} of {classes} has {images} images; give {CLASS_MINIMUM_IMAGES} at least")
        if images == len(examples.membership):
            raise ValueError(f"examples: class {index} of {classes} has all images; give another class or negatives")


def _duplicate_groups(examples: Examples) -> NDArray[np.intp]:
    """intp[N]: the same number for images whose features are the same, as they are or mirrored."""
    numbers: dict[bytes, int] = {}
    groups = np.empty(len(examples.features), dtype=np.intp)
    for row, (features, mirrored) in enumerate(zip(examples.features, examples.mirrored_features, strict=True)):
        key = min(hashlib.sha256(features.tobytes()).digest(), hashlib.sha256(mirrored.tobytes()).digest())
        groups[row] = numbers.setdefault(key, len(numbers))
    strata = examples.strata()
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        if len(np.unique(groups[rows])) == 1:
            # Plain images of one colour, say: on one side of every split they could not be learned or not be judged.
            groups[rows] = len(numbers) + rows
    return groups


def _folds(strata: NDArray[np.intp], groups: NDArray[np.intp], count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """intp[N]: a fold for each row. Every stratum is dealt out evenly, duplicates together."""
    folds = np.empty(len(strata), dtype=np.intp)
    fold_of_group: dict[int, int] = {}
    position = 0
    for stratum in np.unique(strata):
        for row in random.permutation(np.flatnonzero(strata == stratum)):
            group = int(groups[row])
            if group not in fold_of_group:
                fold_of_group[group] = position % count
                position += 1
            folds[row] = fold_of_group[group]
    return folds


def _held_out(
    strata: NDArray[np.intp], groups: NDArray[np.intp], fraction: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """bool[N]: `fraction` of every stratum, at least one image and not all; duplicates together."""
    held_out = np.zeros(len(strata), dtype=np.bool_)
    decided: dict[int, bool] = {}
    for stratum in np.unique(strata):
        rows = random.permutation(np.flatnonzero(strata == stratum))
        wanted = min(len(rows) - 1, max(1, round(fraction * len(rows))))
        for row in rows:
            group = int(groups[row])
            if group not in decided:
                decided[group] = wanted > 0
            held_out[row] = decided[group]
            wanted -= bool(held_out[row])
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        if held_out[rows].all():
            # Its images are few and much copied: one of them goes back, with its copies.
            held_out[groups == groups[rows[0]]] = False
    return held_out


def _fit_linear(examples: Examples, threads: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights float32[C, D] and bias float32[C] for features as they come: standardisation is folded in."""
    rows, mirrored_rows = examples.features, examples.mirrored_features
    mean = (rows.mean(axis=0, dtype=np.float64) + mirrored_rows.mean(axis=0, dtype=np.float64)) / 2
    # The last column is the constant that the bias multiplies.
    inputs = np.empty((2 * len(rows), rows.shape[1] + 1), dtype=np.float32)
    np.subtract(rows, mean, out=inputs[: len(rows), :-1], casting="same_kind")
    np.subtract(mirrored_rows, mean, out=inputs[len(rows) :, :-1], casting="same_kind")
    inputs[:, -1] = 0
    scale = max(float(np.sqrt(np.einsum("nd,nd->n", inputs, inputs, dtype=np.float64).mean())), 1e-12)
    inputs /= scale
    inputs[:, -1] = 1
    membership = np.concatenate([examples.membership, examples.membership])
    blocks = [membership[:, start : start + _CLASSES_AT_A_TIME] for start in range(0, membership.shape[1], _CLASSES_AT_A_TIME)]
    with ThreadPoolExecutor(threads) as pool:
        solution = np.concatenate(list(pool.map(lambda block: _Regression(inputs, block).solve(), blocks)), axis=1)
    weights = solution[:-1].astype(np.float64).T / scale
    bias = solution[-1] - weights @ mean
    return weights.astype(np.float32), bias.astype(np.float32)


class _Regression:
    """Logistic regressions that share their inputs, one for each class, solved side by side.

    Each minimises the mean logistic loss, with positives and negatives weighed to count alike in all, plus the penalty
    `_PENALTY / 2 * |weights|²` (the bias is free). The method is Newton's with conjugate gradients (truncated Newton, Nocedal
    and Wright, Numerical Optimization, section 7.1) and step halving; its work is products of whole matrices.
    """

    def __init__(self, inputs: NDArray[np.float32], membership: NDArray[np.bool_]) -> None:
        self._inputs = inputs
        self._targets = np.where(membership, np.float32(1), np.float32(-1))
        # A part of a split may lack a class whose few images are much copied.
        positives = np.maximum(membership.sum(axis=0), 1)
        negatives = np.maximum((~membership).sum(axis=0), 1)
        self._importance = np.where(membership, 0.5 / positives, 0.5 / negatives).astype(np.float32)
        self._penalties = np.full((inputs.shape[1], 1), _PENALTY, dtype=np.float32)
        self._penalties[-1] = 0

    def solve(self) -> NDArray[np.float32]:
        """float32[D + 1, C]: the bias is the last row."""
        weights = np.zeros((self._inputs.shape[1], self._targets.shape[1]), dtype=np.float32)
        margins = np.zeros(self._targets.shape, dtype=np.float32)
        first_norm: NDArray[np.float32] | None = None
        for _ in range(_NEWTON_STEPS):
            probability = _sigmoid(-self._targets * margins)
            gradient = self._inputs.T @ (-self._importance * self._targets * probability) + self._penalties * weights
            norm = np.sqrt((gradient * gradient).sum(axis=0))
            first_norm = norm if first_norm is None else first_norm
            if (norm <= _TOLERANCE * first_norm).all():
                break
            # Rough far from the solution, exact near it.
            accuracy = np.minimum(np.float32(0.1), np.sqrt(norm / np.maximum(first_norm, 1e-30)))
            step = self._newton_step(gradient, self._importance * probability * (1 - probability), accuracy)
            moved = self._inputs @ step
            size = self._step_size(weights, margins, step, moved, gradient)
            weights += size * step
            margins += size * moved
        return weights

    def _newton_step(
        self, gradient: NDArray[np.float32], curvature: NDArray[np.float32], accuracy: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Conjugate gradients on `hessian @ step = -gradient`, all classes side by side, to a relative residual [C]."""
        step = np.zeros_like(gradient)
        residual = -gradient
        direction = residual.copy()
        square = (residual * residual).sum(axis=0)
        goal = square * accuracy * accuracy
        for _ in range(_CONJUGATE_STEPS):
            open_classes = square > goal
            if not open_classes.any():
                break
            product = self._inputs.T @ (curvature * (self._inputs @ direction)) + self._penalties * direction
            slope = (direction * product).sum(axis=0)
            length = np.where(open_classes & (slope > 0), square / np.where(slope > 0, slope, 1), 0).astype(np.float32)
            step += length * direction
            residual -= length * product
            new_square = (residual * residual).sum(axis=0)
            direction = (
                residual + np.where(open_classes, new_square / np.maximum(square, 1e-30), 0).astype(np.float32) * direction
            )
            square = np.where(open_classes, new_square, square)
        return step

    def _step_size(
        self,
        weights: NDArray[np.float32],
        margins: NDArray[np.float32],
        step: NDArray[np.float32],
        moved: NDArray[np.float32],
        gradient: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """float32[C]: 1, halved until the loss falls enough (Armijo); 0 where rounding leaves nothing to gain."""
        before = self._loss(weights, margins)
        expected = (gradient * step).sum(axis=0)
        size = np.ones(weights.shape[1], dtype=np.float32)
        for _ in range(12):
            too_far = (
                self._loss(weights + size * step, margins + size * moved) > before + 1e-4 * size * expected + 1e-7 * before
            )
            if not too_far.any():
                return size
            size = np.where(too_far, size / 2, size)
        return np.where(too_far, np.float32(0), size)

    def _loss(self, weights: NDArray[np.float32], margins: NDArray[np.float32]) -> NDArray[np.float32]:
        losses = np.logaddexp(np.float32(0), -self._targets * margins)
        total: NDArray[np.float32] = (self._importance * losses).sum(axis=0) + 0.5 * (self._penalties * weights * weights).sum(
            axis=0
        )
        return total


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(values, -80, 80)))


def _margins(features: NDArray[np.float32], weights: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float64]:
    neutral = np.ones_like(bias)
    return Heads(weights=weights, bias=bias, slope=neutral, offset=neutral).margins(features)


def _calibration(
    margins: NDArray[np.float64], membership: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and offset float32[C] from margins float64[M, C] of images that the heads did not see."""
    slope, offset = np.ones(margins.shape[1]), np.zeros(margins.shape[1])
    for index in range(margins.shape[1]):
        of_class = membership[:, index]
        if of_class.any() and not of_class.all():
            slope[index], offset[index] = _platt(margins[:, index], of_class)
            offset[index] -= _best_threshold(slope[index] * margins[:, index] + offset[index])
    return slope.astype(np.float32), offset.astype(np.float32)


def _platt(margins: NDArray[np.float64], of_class: NDArray[np.bool_]) -> tuple[float, float]:
    """Platt scaling (1999), with his targets, which keep a few separable images from certainty; slope is above 0."""
    positives, negatives = int(of_class.sum()), int((~of_class).sum())
    targets = np.where(of_class, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    spread = max(float(margins.std()), 1e-6)
    centre = float(margins.mean())
    inputs = np.stack([(margins - centre) / spread, np.ones_like(margins)])
    parameters = np.array([1.0, np.log((positives + 1) / (negatives + 1))])
    loss = np.inf
    damping = 1e-6
    for _ in range(100):
        exponents = parameters @ inputs
        probability = 1 / (1 + np.exp(-np.clip(exponents, -500, 500)))
        gradient = inputs @ (probability - targets)
        if np.abs(gradient).max() < 1e-9 * len(margins):
            break
        hessian = (inputs * (probability * (1 - probability))) @ inputs.T + damping * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        loss = _cross_entropy(exponents, targets)
        size = 1.0
        while _cross_entropy((parameters - size * step) @ inputs, targets) > loss and size > 1e-6:
            size /= 2
        parameters = parameters - size * step
    # A class that cannot be told from the rest would get a slope of 0 or less: all its images the same score, or an order
    # turned round by chance.
    slope = max(float(parameters[0]), 0.05)
    return slope / spread, float(parameters[1]) - slope * centre / spread


def _cross_entropy(exponents: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0, exponents) - targets * exponents).sum())


def _best_threshold(exponents: NDArray[np.float64]) -> float:
    """The exponent from which on images should count as of the class, by the F1 that calibrated probabilities lead to expect.

    The expectation over probabilities, not the F1 of these very images, whose best threshold jumps with every image. At the
    best threshold the probability is half the F1 that is reached (Lipton, Elkan and Narayanaswamy, 2014), so that it is 0.5
    for a class that is told apart without fault, and less for a rare one that is not.
    """
    probability = np.sort(1 / (1 + np.exp(-np.clip(exponents, -500, 500))))[::-1]
    expected_f1 = 2 * np.cumsum(probability) / (probability.sum() + np.arange(1, len(probability) + 1))
    threshold = min(0.5, max(1e-4, float(expected_f1.max()) / 2))
    return float(np.log(threshold / (1 - threshold)))
