"""How fine-tuning is done: its numbers, its runs, its random choices, and the reasons for which it ends. Pure, without PyTorch.

All randomness depends on the seed of the recipe, the run, the epoch and the image or the step, and on nothing else: a training
that was interrupted continues as if it had not been.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import ModelRecipe
from ocelli_training.fit import is_no_worse, scaled_losses
from ocelli_training.folds import FOLDS

EPOCHS = 10
LEARNING_RATE = 3e-4
BATCH_IMAGES = 16
"""What a recipe uses that does not say it, see `spec.model`."""
FIRST_LAYER_SHARE = 0.1
"""Learning rate of the first layer relative to the last: layers between have rates between (layer-wise decay, BEiT, 2021)."""
WEIGHT_DECAY = 0.01
WARM_UP_SHARE = 0.3
"""Share of the steps in which the learning rate rises (Goyal et al., 2017)."""
AVERAGE_DECAY = 0.98
"""Of the moving average of the weights, which is what is evaluated and served; lower in the first steps."""
PATIENCE_EPOCHS = 4
"""A run ends when this many epochs have not lowered the loss of the images that it does not learn from."""
LEAST_GAIN = 0.05
"""By which share fine-tuning has to lower the loss: less is not worth a network of its own."""
CROP_LEAST_AREA = 0.5
_CROP_LARGEST_RATIO = 4 / 3
_CROP_TRIES = 10


class TuningError(Exception):
    """Fine-tuning cannot be done, or cannot go on. The message is fact and remedy."""


class PyTorchMissingError(TuningError):
    """The trainer has no PyTorch."""

    def __init__(self) -> None:
        super().__init__(
            "spec.model.strategy FineTune needs PyTorch, which this trainer does not have; use a trainer image that was built "
            "with ACCELERATOR=cuda (before `make run`: make .venv/.torch), or set spec.model.strategy to LinearProbe"
        )


class DivergedError(TuningError):
    """The loss is not a finite number."""

    def __init__(self, *, epoch: int, learning_rate: float) -> None:
        super().__init__(
            f"fine-tuning diverged in epoch {epoch}: its loss is not a finite number; lower spec.model.learningRate, which is "
            f"{learning_rate:g}"
        )


class GpuMemoryError(TuningError):
    """Half a batch does not fit into the memory of the GPU."""

    def __init__(self, *, batch_images: int) -> None:
        super().__init__(
            f"the memory of the GPU is too small for half of a batch of {batch_images} images; lower spec.model.batchSize, "
            "name a smaller network as spec.model.backbone, or choose a larger GPU by spec.training.nodeSelector"
        )


@dataclass(frozen=True, kw_only=True)
class TuningRecipe:
    """The recipe of a definition, complete."""

    seed: int
    epochs: int
    learning_rate: float
    batch_images: int
    mirror: bool
    """Whether mirrored images are used: the choice of the linear heads."""

    @classmethod
    def complete(cls, model: ModelRecipe, *, mirror: bool) -> TuningRecipe:
        """The recipe of the definition, with defaults for what it does not say."""
        return cls(
            seed=model.seed,
            epochs=model.epochs or EPOCHS,
            learning_rate=model.learning_rate or LEARNING_RATE,
            batch_images=model.batch_size or BATCH_IMAGES,
            mirror=mirror,
        )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step of all `steps`: linear warm-up, then half a cosine (Loshchilov and Hutter, 2017)."""
        warm_up = max(1, round(WARM_UP_SHARE * steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))

    def order(self, run: int, epoch: int, count: int) -> NDArray[np.intp]:
        """In which order a run uses its `count` images in an epoch."""
        return np.random.default_rng(self._number("order", run, epoch)).permutation(count)

    def augmentation(self, run: int, epoch: int, digest: str, side: tuple[int, int]) -> Augmentation:
        """What is done in an epoch to the image with that digest, of that height and width."""
        random = np.random.default_rng(self._number("image", run, epoch, digest))
        mirror = self.mirror and bool(random.random() < 0.5)
        height, width = side
        for _ in range(_CROP_TRIES):
            area = random.uniform(CROP_LEAST_AREA, 1.0) * height * width
            ratio = math.exp(random.uniform(-1.0, 1.0) * math.log(_CROP_LARGEST_RATIO))
            # Rounded up, so that the area is never below its limit.
            crop_height, crop_width = math.ceil(math.sqrt(area / ratio)), math.ceil(math.sqrt(area * ratio))
            if crop_height <= height and crop_width <= width:
                top = int(random.integers(height - crop_height + 1))
                left = int(random.integers(width - crop_width + 1))
                return Augmentation(top=top, left=left, height=crop_height, width=crop_width, mirror=mirror)
        return Augmentation(top=0, left=0, height=height, width=width, mirror=mirror)

    def step_seed(self, run: int, update: int, worker: int = 0) -> int:
        """The seed of what is random inside the network in a step, such as dropout. Workers have different images."""
        return self._number("step", run, update, *([worker] if worker else []))

    def _number(self, *parts: object) -> int:
        text = ":".join(str(part) for part in (self.seed, *parts))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A part of an image, which is scaled to the size of the whole and perhaps mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPlan:
    """One training of a network."""

    number: int
    learned: NDArray[np.intp]
    """Rows of the images that it learns from."""
    stopping: NDArray[np.intp]
    """Rows of the images that choose its epoch; empty for the last run, which learns from all images."""
    judged: NDArray[np.intp]
    """Rows of the images that it scores: for evaluation and calibration."""


def plan_runs(folds: NDArray[np.intp], membership: NDArray[np.bool_]) -> tuple[RunPlan, ...]:
    """A run for each fold intp[N] of the images with membership bool[N, C], and one that learns from all images.

    Each image is judged by one run and chooses the epoch of another one. Folds consist of whole groups of near duplicates, so
    no image helps to judge a near duplicate of itself. A class whose images are all in the two folds that a run holds out
    would not be learned: then its images learn instead of choosing the epoch.
    """
    present = [fold for fold in range(FOLDS) if (folds == fold).any()]
    runs: list[RunPlan] = []
    for position, fold in enumerate(present):
        judged = folds == fold
        stopping = folds == present[(position + 1) % len(present)]
        sets = [*membership.T, ~membership.any(axis=1)]
        for members in sets:
            if members.any() and not (members & ~judged & ~stopping).any():
                stopping = stopping & ~members
        stopping = stopping & ~judged
        runs.append(
            RunPlan(
                number=len(runs),
                learned=np.flatnonzero(~judged & ~stopping),
                stopping=np.flatnonzero(stopping),
                judged=np.flatnonzero(judged),
            )
        )
    everything, nothing = np.arange(len(folds)), np.empty(0, dtype=np.intp)
    return (*runs, RunPlan(number=len(runs), learned=everything, stopping=nothing, judged=nothing))


@dataclass(frozen=True, kw_only=True, eq=False)
class StoppingScores:
    """How N images are scored that choose the epoch of a run."""

    losses: NDArray[np.float64]
    """float64[N]."""
    right: NDArray[np.bool_]
    """bool[N]: the class with the highest score is the actual one; for a negative example: no class is predicted."""

    @classmethod
    def measure(cls, margins: NDArray[np.float64], membership: NDArray[np.bool_]) -> StoppingScores:
        """From margins float64[N, C] and membership bool[N, C]."""
        predicted = margins.argmax(axis=1)
        of_class = membership[np.arange(len(margins)), predicted]
        right = np.where(membership.any(axis=1), of_class, margins.max(axis=1) < 0)
        return cls(losses=scaled_losses(margins, membership), right=right)


def is_improvement(linear: StoppingScores, tuned: StoppingScores) -> bool:
    """Whether tuned networks are better than the linear heads: their losses are lower, by one standard error and by
    `LEAST_GAIN`, and they have fewer errors.

    A lower loss alone can mean that the same errors are less certain, which calibration achieves without another network.
    """
    lower = not is_no_worse(linear.losses, tuned.losses)
    enough = float(tuned.losses.sum()) <= (1.0 - LEAST_GAIN) * float(linear.losses.sum())
    return lower and enough and int(tuned.right.sum()) > int(linear.right.sum())


def choose_epochs(best_epochs: Sequence[int]) -> int:
    """For how long the last run trains: the median of the best epochs of the others. 0: not at all."""
    return int(np.median(best_epochs))
