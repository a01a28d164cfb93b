"""Training the heads: one-vs-rest logistic regression on a backbone's features, with calibration and rejection.

It knows features and classes, not images, networks or files.

The steps of a fit:

1. Features are normalised (`ocelli_model.heads.normalised`) and centred. If there are fewer examples than features, they are
   rotated to as many coordinates as there are examples, which loses nothing and makes the other steps fast.
2. Every image is scored by heads that were trained without its fold (cross-validation), at every size of the dataset. The
   served heads are trained on all images.
3. Heads are trained on whitened features (`within_class`), with an L2 penalty. The penalty is the one with the lowest
   cross-validated loss. Mirrored images are used if they lower this loss: "arrow to the left" could not be learned with them.
4. Scores of unseen images calibrate the heads, so that each class's best threshold is 0.5. Distances of unseen images set the
   border at which an image counts as unlike every example: their `REJECTION_QUANTILE`.
5. For the evaluation, calibration and border come from other images than the evaluated ones.

Other views are used for training only and are never scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ocelli_model.heads import Heads, calibrated, normalised, rejection_factors
from ocelli_training.calibration import calibrate
from ocelli_training.folds import FOLDS
from ocelli_training.regression import solve_regressions
from ocelli_training.within_class import WithinClass

CLASS_MINIMUM_IMAGES = 2
FEATURE_POWER = 0.6
PENALTIES = (0.1, 0.01, 0.001)
"""The penalties to choose from, the strongest first, relative to a mean loss on features of mean square length 1."""
REJECTION_QUANTILE = 0.95
"""Share of the classes' images that must be inside the border, measured by heads that were trained without them."""
SEARCH_LIMIT_IMAGES = 2000
"""Views and penalty are chosen on at most this many images: more do not change the choice, and would take minutes."""

_BLOCK_ROWS = 4096
_CONCURRENT_FOLDS_BYTES = 400 * 1024 * 1024
_SLOPES = np.geomspace(0.1, 100.0, 16)


class View(StrEnum):
    """The part of an image that features are computed of."""

    WHOLE = "Whole"
    MIRRORED = "Mirrored"
    """Left and right exchanged."""
    ENLARGED = "Enlarged"
    """The middle of it, as large as the whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Training data: a row per image."""

    features: NDArray[np.float32]
    """float32[N, D]: of the whole images."""
    other_views: dict[View, NDArray[np.float32]] = field(default_factory=dict)
    """float32[N, D] each: features of other views of the same images."""
    membership: NDArray[np.bool_]
    """bool[N, C]; a row without a class is a negative example."""
    folds: NDArray[np.intp]
    """intp[N], 0 to `FOLDS` - 1: images of one fold are evaluated together."""

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.features, *self.other_views.values())}
        if self.features.ndim != 2 or len(shapes) != 1:
            raise ValueError(f"examples: features of shapes {sorted(shapes)} differ")
        if self.membership.ndim != 2 or not len(self.membership) == len(self.folds) == len(self.features):
            raise ValueError(f"examples: membership {self.membership.shape} does not fit {len(self.features)} images")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What cross-validation chose."""

    views: tuple[View, ...]
    penalty: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The heads, and what an evaluation needs."""

    heads: Heads
    recipe: Recipe
    scores: NDArray[np.float32]
    """float32[N, C]: of every image, by heads, calibration and border that were fitted without it."""
    unrejected_scores: NDArray[np.float32]
    """float32[N, C]: the same before rejection."""


def fit_heads(examples: Examples, on_progress: Callable[[float], None] = lambda part: None, *, threads: int = 1) -> Fit:
    """Train calibrated heads. `on_progress` is called with the part done, 0 to 1.

    The same examples give bit-identical weights for any number of `threads`, on one kind of CPU with one version of NumPy that
    uses one thread itself (`OPENBLAS_NUM_THREADS=1`).

    Raises:
        ValueError: a class has fewer than two images, or there are no other images; `check_dataset` refuses both earlier.
    """
    _refuse_too_few(examples)
    material = _Material.prepare(examples)
    recipe, unseen = _choose_recipe(material, on_progress, threads)
    margins, distances = unseen.margins, unseen.distances

    def score(fold: int, threads: int) -> None:
        inside = material.folds == fold
        if not (inside & np.isnan(distances)).any():
            return
        # If the classes have no images in other folds, all images are used.
        others = ~inside if material.membership[~inside].any() else np.ones_like(inside)
        learned = _learn(material, np.flatnonzero(others), recipe, threads)
        rows = np.flatnonzero(inside)
        margins[rows] = learned.margins(material.whole[rows])
        distances[rows] = learned.within_class.distances(material.whole[rows], material.squared_lengths[rows])

    for done, _ in enumerate(_for_each_fold(score, material, recipe.views, threads), start=1):
        on_progress(0.4 + 0.5 * done / FOLDS)
    learned = _learn(material, np.arange(len(margins)), recipe, threads)
    scored = score_unseen(margins, distances, material.membership, material.folds, learned.within_class.least_border)
    weights, bias = learned.heads(material)
    heads = Heads(
        weights=weights,
        bias=bias,
        slope=scored.slope,
        offset=scored.offset,
        power=FEATURE_POWER,
        rejection=learned.within_class.rejection(material.basis, material.origin, scored.border),
    )
    on_progress(1.0)
    return Fit(heads=heads, recipe=recipe, scores=scored.scores, unrejected_scores=scored.unrejected_scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class UnseenScores:
    """What follows from images that were scored by heads that were trained without them."""

    slope: NDArray[np.float32]
    offset: NDArray[np.float32]
    border: float
    """Calibration and border, from all images: for the served heads."""
    scores: NDArray[np.float32]
    """float32[N, C]: with calibration and border from the images of the other folds."""
    unrejected_scores: NDArray[np.float32]
    """float32[N, C]: the same before rejection."""


def score_unseen(
    margins: NDArray[np.float64],
    distances: NDArray[np.float64],
    membership: NDArray[np.bool_],
    folds: NDArray[np.intp],
    least_border: float,
) -> UnseenScores:
    """Calibrate margins float64[N, C], and set the border by distances float64[N], both of unseen images."""
    slope, offset = calibrate(margins, membership)
    of_classes = membership.any(axis=1)
    unrejected, scores = np.empty(margins.shape, dtype=np.float32), np.empty(margins.shape, dtype=np.float32)
    for fold in range(FOLDS):
        inside = folds == fold
        others = ~inside if (of_classes & ~inside).any() else np.ones_like(inside)
        unrejected[inside] = calibrated(margins[inside], *calibrate(margins[others], membership[others]))
        factors = rejection_factors(distances[inside] / _border(distances[of_classes & others], least_border))
        scores[inside] = unrejected[inside] * factors[:, np.newaxis]
    border = _border(distances[of_classes], least_border)
    return UnseenScores(slope=slope, offset=offset, border=border, scores=scores, unrejected_scores=unrejected)


class PartialHeads:
    """Linear heads of parts of the examples, for the start of fine-tuning."""

    def __init__(self, examples: Examples, recipe: Recipe, *, threads: int) -> None:
        self._material = _Material.prepare(examples)
        self._recipe = recipe
        self._threads = threads

    def learn(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights float32[C, D] and bias float32[C] for normalised features, from some of the images."""
        return _learn(self._material, rows, self._recipe, self._threads).heads(self._material)


def _for_each_fold(
    work: Callable[[int, int], None], material: _Material, views: Sequence[View], threads: int
) -> Iterator[None]:
    """Run `work`, with a fold and a number of threads, for each fold; yields after each. Folds must not depend on each other.

    As many run at a time as there are threads and as memory allows. Each copies its images twice.
    """
    fold_bytes = 2 * len(views) * material.whole.nbytes
    at_a_time = max(1, min(threads, FOLDS, _CONCURRENT_FOLDS_BYTES // max(fold_bytes, 1)))
    if at_a_time == 1:
        for fold in range(FOLDS):
            work(fold, threads)
            yield
        return
    with ThreadPoolExecutor(at_a_time, thread_name_prefix="fold") as pool:
        yield from pool.map(lambda fold: work(fold, max(1, threads // at_a_time)), range(FOLDS))


def _refuse_too_few(examples: Examples) -> None:
    classes = examples.membership.shape[1]
    for index in range(classes):
        images = int(examples.membership[:, index].sum())
        if images < CLASS_MINIMUM_IMAGES:
            raise ValueError(f"examples: class {index} of {classes} has {images} images; give at least {CLASS_MINIMUM_IMAGES}")
        if images == len(examples.membership):
            raise ValueError(f"examples: class {index} of {classes} has all images; give another class or negatives")


def _border(distances: NDArray[np.float64], least: float) -> float:
    # The plain quantile of few distances is too low: more unseen images would be outside.
    part = min(1.0, REJECTION_QUANTILE * (1.0 + 1.0 / len(distances)))
    return max(float(np.quantile(distances, part)), least)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Material:
    """Examples in K coordinates: normalised, centred, and rotated if that gives fewer coordinates."""

    views: dict[View, NDArray[np.float32]]
    """float32[N, K] each."""
    squared_lengths: NDArray[np.float64]
    """float64[N]: of the whole images' centred features."""
    membership: NDArray[np.bool_]
    folds: NDArray[np.intp]
    origin: NDArray[np.float64]
    """float64[D]: the mean that was subtracted."""
    basis: NDArray[np.float64] | None
    """float64[D, K] from features to coordinates; None: they are the same."""

    @property
    def whole(self) -> NDArray[np.float32]:
        return self.views[View.WHOLE]

    @classmethod
    def prepare(cls, examples: Examples) -> _Material:
        raw = {View.WHOLE: examples.features, **examples.other_views}
        views = {view: normalised_rows(features) for view, features in raw.items()}
        origin = np.mean([rows.mean(axis=0, dtype=np.float64) for rows in views.values()], axis=0)
        for rows in views.values():
            np.subtract(rows, origin, out=rows, casting="same_kind")
        whole = views[View.WHOLE]
        squared_lengths = np.einsum("nd,nd->n", whole, whole, dtype=np.float64)
        basis = _basis(list(views.values()))
        if basis is not None:
            views = {view: (rows @ basis).astype(np.float32) for view, rows in views.items()}
        return cls(
            views=views,
            squared_lengths=squared_lengths,
            membership=examples.membership,
            folds=examples.folds,
            origin=origin,
            basis=basis,
        )

    def take(self, rows: NDArray[np.intp]) -> _Material:
        """Some of the images."""
        return _Material(
            views={view: inputs[rows] for view, inputs in self.views.items()},
            squared_lengths=self.squared_lengths[rows],
            membership=self.membership[rows],
            folds=self.folds[rows],
            origin=self.origin,
            basis=self.basis,
        )


def normalised_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features float32[N, D] as heads take them, see `ocelli_model.heads.normalised`; in blocks, to limit memory."""
    rows = np.empty_like(features)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        rows[block] = normalised(features[block].astype(np.float64), FEATURE_POWER)
    return rows


def _basis(views: Sequence[NDArray[np.float32]]) -> NDArray[np.float64] | None:
    """An orthonormal basis float64[D, K] of what the rows span; None where there are D or more."""
    count, features = sum(map(len, views)), views[0].shape[1]
    if count >= features:
        return None
    rows = np.concatenate(views).astype(np.float64)
    squares, vectors = np.linalg.eigh(rows @ rows.T)
    kept = squares > squares[-1] * 1e-10
    basis: NDArray[np.float64] = (rows.T @ vectors[:, kept]) / np.sqrt(squares[kept])
    return basis if kept.any() and squares[-1] > 0 else np.zeros((features, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Learned:
    """Heads in coordinates."""

    weights: NDArray[np.float64]
    """float64[K, C]."""
    bias: NDArray[np.float64]
    within_class: WithinClass

    def margins(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        return inputs @ self.weights + self.bias

    def heads(self, material: _Material) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights float32[C, D] and bias float32[C] for normalised features."""
        weights = self.weights if material.basis is None else material.basis @ self.weights
        bias = self.bias - material.origin @ weights
        return np.ascontiguousarray(weights.T).astype(np.float32), bias.astype(np.float32)


def _learn(material: _Material, rows: NDArray[np.intp], recipe: Recipe, threads: int) -> _Learned:
    """Train on some of the images."""
    whitened = _Whitened.build(material, rows, recipe.views)
    return whitened.solve(recipe.penalty, threads)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Whitened:
    """Views of images, whitened and scaled, ready for regressions of any penalty."""

    inputs: NDArray[np.float32]
    """float32[M, K + 1]: the last column is 1, which the bias multiplies."""
    membership: NDArray[np.bool_]
    whitening: NDArray[np.float32]
    scale: float
    within_class: WithinClass

    @classmethod
    def build(cls, material: _Material, rows: NDArray[np.intp], views: Sequence[View]) -> _Whitened:
        inputs = np.concatenate([material.views[view][rows] for view in views])
        membership = np.concatenate([material.membership[rows]] * len(views))
        within_class = WithinClass.measure(inputs, membership, len(material.origin))
        whitening = within_class.whitening()
        whitened = np.empty((len(inputs), inputs.shape[1] + 1), dtype=np.float32)
        for start in range(0, len(inputs), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            whitened[block, :-1] = inputs[block] @ whitening
        whitened[:, -1] = 0
        scale = max(float(np.sqrt(np.einsum("nk,nk->n", whitened, whitened, dtype=np.float64).mean())), 1e-12)
        whitened /= scale
        whitened[:, -1] = 1
        return cls(inputs=whitened, membership=membership, whitening=whitening, scale=scale, within_class=within_class)

    def solve(self, penalty: float, threads: int) -> _Learned:
        solution = solve_regressions(self.inputs, self.membership, penalty, threads=threads).astype(np.float64)
        weights = self.whitening.astype(np.float64) @ solution[:-1] / self.scale
        return _Learned(weights=weights, bias=solution[-1], within_class=self.within_class)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unseen:
    """What heads say about images that they were trained without."""

    margins: NDArray[np.float64]
    """float64[N, C]."""
    distances: NDArray[np.float64]
    """float64[N]; NaN for images that were not scored."""

    @classmethod
    def allocate(cls, membership: NDArray[np.bool_]) -> _Unseen:
        return cls(margins=np.zeros(membership.shape), distances=np.full(len(membership), np.nan))


def _choose_recipe(material: _Material, on_progress: Callable[[float], None], threads: int) -> tuple[Recipe, _Unseen]:
    """Penalty and views by cross-validated loss, see `is_no_worse` for what counts as equal; and what the cross-validation of
    this choice has found, if it was that of all images.
    """
    rows = _search_rows(material)
    part = material.take(rows)
    views: tuple[View, ...] = tuple(view for view in material.views if view is not View.MIRRORED)
    losses, penalty, unseen = _cross_validate(part, views, threads)
    on_progress(0.2)
    if View.MIRRORED in material.views:
        with_mirrored = (*views, View.MIRRORED)
        mirrored_losses, mirrored_penalty, mirrored_unseen = _cross_validate(part, with_mirrored, threads)
        if is_no_worse(mirrored_losses, losses):
            views, penalty, unseen = with_mirrored, mirrored_penalty, mirrored_unseen
    if len(rows) < len(material.folds):
        unseen = _Unseen.allocate(material.membership)
    return Recipe(views=views, penalty=penalty), unseen


def is_no_worse(losses: NDArray[np.float64], than: NDArray[np.float64]) -> bool:
    """Whether the sum of the losses float64[N] exceeds that of the other choice by at most one standard error.

    This is the rule of one standard error (Breiman, 1984): if the difference between two choices is within the error, the one
    that is better on most datasets is taken, which is the mirrored view and the stronger penalty.
    """
    differences = losses - than
    return float(differences.sum()) <= float(differences.std()) * math.sqrt(len(differences))


def _search_rows(material: _Material) -> NDArray[np.intp]:
    """A proportional selection of rows of each class and of the negatives; all rows of a small dataset."""
    count = len(material.folds)
    if count <= SEARCH_LIMIT_IMAGES:
        return np.arange(count)
    strata = np.where(material.membership.any(axis=1), material.membership.argmax(axis=1), material.membership.shape[1])
    chosen = []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        wanted = max(2, round(SEARCH_LIMIT_IMAGES * len(rows) / count))
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(wanted, len(rows))).astype(np.intp)])
    return np.sort(np.concatenate(chosen))


def _cross_validate(material: _Material, views: Sequence[View], threads: int) -> tuple[NDArray[np.float64], float, _Unseen]:
    """The cross-validated loss float64[N] of every image with these views and the best penalty, the penalty, and the scores."""
    unseen = {penalty: _Unseen.allocate(material.membership) for penalty in PENALTIES}

    def score(fold: int, threads: int) -> None:
        inside = material.folds == fold
        if not inside.any() or not material.membership[~inside].any():
            return
        whitened = _Whitened.build(material, np.flatnonzero(~inside), views)
        distances = whitened.within_class.distances(material.whole[inside], material.squared_lengths[inside])
        for penalty, found in unseen.items():
            found.margins[inside] = whitened.solve(penalty, threads).margins(material.whole[inside])
            found.distances[inside] = distances

    for _ in _for_each_fold(score, material, views, threads):
        pass
    losses = {penalty: scaled_losses(found.margins, material.membership) for penalty, found in unseen.items()}
    least = min(losses.values(), key=lambda losses: float(losses.sum()))
    penalty = next(penalty for penalty in PENALTIES if is_no_worse(losses[penalty], least))
    return losses[penalty], penalty, unseen[penalty]


def scaled_losses(margins: NDArray[np.float64], membership: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic losses float64[N], with equal weight for positives and negatives of a class, at the best slope for all margins.

    Calibration sets the slope later, so a penalty must not be chosen for the scale of its margins.
    """
    targets = np.where(membership, 1.0, -1.0)
    importance = np.where(
        membership, 0.5 / np.maximum(membership.sum(axis=0), 1), 0.5 / np.maximum((~membership).sum(axis=0), 1)
    )
    spread = max(float(np.abs(margins).mean()), 1e-12)
    candidates = [(importance * np.logaddexp(0.0, -targets * margins * (slope / spread))).sum(axis=1) for slope in _SLOPES]
    return min(candidates, key=lambda losses: float(losses.sum()))
