"""One run of fine-tuning: a network is trained on some images, epoch by epoch, in PyTorch.

Its whole state is tensors and a small document, so that another process continues where this one was stopped.

Several workers train it together: each computes its part of every batch, and all take the same step, because they add up their
gradients. Their networks are equal at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from ocelli_training.pixel_file import PixelFile
from ocelli_training.tuning_curves import CurvePoint
from ocelli_training.tuning_network import (
    MovingAverage,
    TunedNetwork,
    build_optimiser,
    named_moments,
    restore_moments,
    set_rate,
)
from ocelli_training.tuning_recipe import PATIENCE_EPOCHS, DivergedError, GpuMemoryError, RunPlan, StoppingScores, TuningRecipe

_EVALUATED_IMAGES = 64

T = TypeVar("T", bound=np.generic)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningImages:
    """The images of a dataset, one row each."""

    pixels: PixelFile
    numbers: Sequence[int]
    """Of each row in the pixel file."""
    digests: Sequence[str]
    membership: NDArray[np.bool_]
    """bool[N, C]; a row without a class is a negative example."""

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Whole images, uint8[len(rows), height, width, 3]."""
        return self.pixels.read([self.numbers[row] for row in rows])


@dataclass
class RunState:
    """How far a run is, apart from the numbers of its network."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps of the next epoch that are done."""
    updates: int = 0
    best_epoch: int = 0
    """Epoch of the lowest loss of the images that choose it; 0: the linear heads."""
    halved: bool = False
    """Each step runs as two halves, because the GPU has too little memory for the whole."""
    losses: list[float] = field(default_factory=list)
    """The mean loss of the images that choose the epoch, from epoch 0 on."""
    accuracies: list[float] = field(default_factory=list)
    """The share of these images that is right, from epoch 0 on."""
    training_losses: list[float] = field(default_factory=list)
    """The mean loss of the images that are learned from, while each epoch learned, from epoch 1 on."""
    loss_sum: float = 0.0
    """Of the images that the next epoch has learned from."""
    ended_at: list[float] = field(default_factory=list, compare=False)
    """Unix time, seconds: the start, then the end of each epoch."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step that was done, for progress and checkpoints."""

    done_epochs: float
    loss: float


class Sharing(Protocol):
    """How the work is divided between workers."""

    @property
    def worker(self) -> int:
        """The number of this worker, from 0."""

    def share(self, rows: NDArray[T]) -> NDArray[T]:
        """The part of the rows that this worker computes."""

    def sum(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of the workers' arrays."""

    def sum_gradients(self, network: nn.Module, loss: float | None) -> float | None:
        """Add up the gradients of all workers, in place, and their losses; None: for one of them the memory is too small."""


class Alone:
    """One worker does all of the work."""

    worker = 0

    def share(self, rows: NDArray[T]) -> NDArray[T]:
        """All of them."""
        return rows

    def sum(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same."""
        return numbers

    def sum_gradients(self, network: nn.Module, loss: float | None) -> float | None:
        """The same."""
        return loss


class TuningRun:
    """A network in training."""

    def __init__(
        self,
        *,
        network: TunedNetwork,
        recipe: TuningRecipe,
        plan: RunPlan,
        images: TuningImages,
        device: torch.device,
        epochs: int,
        reading_threads: int,
        sharing: Sharing | None = None,
    ) -> None:
        """`epochs`: after how many it ends at the latest; the learning rate follows the recipe's. `sharing`: None, without
        other workers."""
        self.network = network.to(device)
        self.state = RunState()
        self._recipe, self._plan, self._images, self._device, self._epochs = recipe, plan, images, device, epochs
        self._reading_threads = reading_threads
        self._sharing: Sharing = sharing or Alone()
        self._optimiser = build_optimiser(self.network)
        self._average = MovingAverage(self.network)
        self._best = {name: value.clone() for name, value in self._average.values.items()}
        self._first_scores: StoppingScores | None = None
        self._best_scores: StoppingScores | None = None
        # 16 bits only where a GPU has them; a CPU trains with 32.
        self._mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()

    @property
    def engine_name(self) -> str:
        """For the progress, such as `PyTorch GPU bfloat16`."""
        device = "GPU" if self._device.type == "cuda" else "CPU"
        return f"PyTorch {device} {'bfloat16' if self._mixed else 'float32'}"

    @property
    def stopping_scores(self) -> tuple[StoppingScores, StoppingScores]:
        """Of the images that choose the epoch: by the linear heads, and in the best epoch."""
        assert self._first_scores is not None
        assert self._best_scores is not None
        return self._first_scores, self._best_scores

    def train(self, after_step: Callable[[Step], None]) -> None:
        """Train to the end, then load the best weights. `after_step` may raise to stop.

        Raises:
            DivergedError, GpuMemoryError: see there.
        """
        state, steps = self.state, self._steps
        if not state.ended_at:
            state.ended_at.append(time.time())
        if not state.losses and len(self._plan.stopping):
            self._note_losses()
        while not self._is_over():
            self.network.train()
            order = self._recipe.order(self._plan.number, state.epoch, len(self._plan.learned))
            rows = self._plan.learned[order]
            batches = [
                rows[start : start + self._recipe.batch_images] for start in range(0, len(rows), self._recipe.batch_images)
            ]
            for batch, images in zip(batches[state.step :], self._augmented(batches[state.step :]), strict=True):
                rate = self._recipe.rate(state.updates, steps * self._recipe.epochs)
                loss = self._update(images, self._targets(self._sharing.share(batch)), rate, batch_images=len(batch))
                state.step += 1
                state.loss_sum += loss * len(batch)
                if state.step == len(batches):
                    state.epoch, state.step = state.epoch + 1, 0
                    state.training_losses.append(state.loss_sum / len(rows))
                    state.loss_sum = 0.0
                    self._note_losses()
                    state.ended_at.append(time.time())
                after_step(Step(done_epochs=state.epoch + state.step / steps, loss=loss))
        for name, value in self.network.named_parameters():
            value.data.copy_(self._best[name])
        self.network.eval()

    def tensors(self) -> dict[str, Tensor]:
        """All numbers of the state, by name."""
        found = {f"network.{name}": value.detach() for name, value in self.network.named_parameters()}
        found |= {f"average.{name}": value for name, value in self._average.values.items()}
        found |= {f"best.{name}": value for name, value in self._best.items()}
        found |= dict(named_moments(self._optimiser, self.network))
        for name, scores in (("first", self._first_scores), ("best", self._best_scores)):
            if scores is not None:
                # A file of tensors must not name one memory twice, as both are while the linear heads are the best.
                found[f"losses.{name}"] = torch.from_numpy(scores.losses.copy())
                found[f"right.{name}"] = torch.from_numpy(scores.right.copy())
        return {name: value.contiguous().cpu() for name, value in found.items()}

    def restore(self, state: RunState, tensors: dict[str, Tensor]) -> None:
        """Continue from the state that `tensors` and `state` were at the same time.

        Raises:
            KeyError, RuntimeError: they are not of this network.
        """
        for name, value in self.network.named_parameters():
            value.data.copy_(tensors[f"network.{name}"])
            self._average.values[name].copy_(tensors[f"average.{name}"])
            self._best[name].copy_(tensors[f"best.{name}"])
        if state.updates:
            restore_moments(self._optimiser, self.network, tensors, updates=state.updates)
        self._first_scores, self._best_scores = (
            StoppingScores(losses=tensors[f"losses.{name}"].numpy(), right=tensors[f"right.{name}"].numpy())
            if f"losses.{name}" in tensors
            else None
            for name in ("first", "best")
        )
        self.state = state

    def curve(self) -> tuple[CurvePoint, ...]:
        """A point for epoch 0, the linear heads, and for each epoch that is done."""
        state, steps = self.state, self._steps

        def part(values: Sequence[float], epoch: int) -> float | None:
            return values[epoch] if 0 <= epoch < len(values) else None

        return tuple(
            CurvePoint(
                epoch=epoch,
                at=at,
                learning_rate=self._recipe.rate(epoch * steps - 1, steps * self._recipe.epochs) if epoch else None,
                training_loss=part(state.training_losses, epoch - 1),
                loss=part(state.losses, epoch),
                accuracy=part(state.accuracies, epoch),
            )
            for epoch, at in enumerate(state.ended_at)
        )

    @property
    def _steps(self) -> int:
        """In an epoch."""
        return -(-len(self._plan.learned) // self._recipe.batch_images)

    def _is_over(self) -> bool:
        waited = self.state.epoch - self.state.best_epoch
        return self.state.epoch >= self._epochs or (len(self._plan.stopping) > 0 and waited >= PATIENCE_EPOCHS)

    def _targets(self, rows: NDArray[np.intp]) -> Tensor:
        """float32[N, C]: all zeros for a negative example."""
        return torch.from_numpy(self._images.membership[rows].astype(np.float32)).to(self._device)

    def _augmented(self, batches: Sequence[NDArray[np.intp]]) -> Iterator[Tensor]:
        """This worker's images of each batch, uint8[N, height, width, 3]. Those of the next batch are made meanwhile."""
        with ThreadPoolExecutor(self._reading_threads, thread_name_prefix="augment") as pool:
            epoch = self.state.epoch

            def start(batch: NDArray[np.intp]) -> list[Any]:
                return [pool.submit(self._augment, int(row), epoch) for row in self._sharing.share(batch)]

            coming = start(batches[0])
            for following in [*batches[1:], np.empty(0, dtype=np.intp)]:
                futures, coming = coming, start(following)
                # A batch with fewer images than workers leaves nothing for some of them.
                yield torch.stack([future.result() for future in futures]) if futures else torch.empty(0, dtype=torch.uint8)

    def _augment(self, row: int, epoch: int) -> Tensor:
        """One image as it is learned from in an epoch, uint8[height, width, 3]."""
        image = torch.from_numpy(self._images.read(np.array([row]))[0]).permute(2, 0, 1)
        size = [int(image.shape[1]), int(image.shape[2])]
        chosen = self._recipe.augmentation(self._plan.number, epoch, self._images.digests[row], (size[0], size[1]))
        cut: Tensor = transforms.resized_crop(image, chosen.top, chosen.left, chosen.height, chosen.width, size, antialias=True)
        if chosen.mirror:
            cut = transforms.horizontal_flip(cut)
        return cut.permute(1, 2, 0)

    def _update(self, images: Tensor, targets: Tensor, rate: float, *, batch_images: int) -> float:
        """One step on a batch of which these images are this worker's part; returns the loss of the batch."""
        loss = self._find_gradients(images, targets, batch_images)
        if loss is None and not self.state.halved and batch_images > 1:
            self.state.halved = True
            logger.warning("tuning.batch_halved", extra={"batch": batch_images})
            loss = self._find_gradients(images, targets, batch_images)
        if loss is None:
            raise GpuMemoryError(batch_images=self._recipe.batch_images)
        if not np.isfinite(loss):
            raise DivergedError(epoch=self.state.epoch + 1, learning_rate=self._recipe.learning_rate)
        set_rate(self._optimiser, rate)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._average.update(self.state.updates)
        self.state.updates += 1
        return loss

    def _find_gradients(self, images: Tensor, targets: Tensor, batch_images: int) -> float | None:
        """The loss of the batch, with its gradients in the parameters; None: the memory of a GPU is too small."""
        loss: float | None
        try:
            loss = self._add_gradients(images, targets, batch_images)
        except torch.OutOfMemoryError:
            loss = None
        if loss is None:
            # Not in the handler: its error keeps what the step has allocated.
            self._optimiser.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        total = self._sharing.sum_gradients(self.network, loss)
        if total is None:
            self._optimiser.zero_grad(set_to_none=True)
        return total

    def _add_gradients(self, images: Tensor, targets: Tensor, batch_images: int) -> float:
        """Batch norms keep their statistics, so parts of a batch have the same gradient as the whole, apart from rounding."""
        # Also seeds dropout.
        torch.manual_seed(self._recipe.step_seed(self._plan.number, self.state.updates, self._sharing.worker))
        if not len(images):
            return 0.0
        loss = 0.0
        size = -(-len(images) // 2) if self.state.halved else len(images)
        for part, part_targets in zip(torch.split(images, size), torch.split(targets, size), strict=True):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed):
                logits = self.network(part.to(self._device))
            summed = functional.binary_cross_entropy_with_logits(logits, part_targets, reduction="sum")
            part_loss = summed / (batch_images * targets.shape[1])
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += float(part_loss.detach())
        return loss

    def _note_losses(self) -> None:
        """Keep the averaged weights if they are the best so far."""
        rows, state = self._plan.stopping, self.state
        if not len(rows):
            state.best_epoch = state.epoch
            self._best = {name: value.clone() for name, value in self._average.values.items()}
            return
        self._average.swap()
        margins = self._margins(rows)
        self._average.swap()
        if not np.isfinite(margins).all():
            raise DivergedError(epoch=state.epoch, learning_rate=self._recipe.learning_rate)
        scores = StoppingScores.measure(margins, self._images.membership[rows])
        if self._first_scores is None:
            self._first_scores = scores
        if self._best_scores is None or scores.losses.sum() < self._best_scores.losses.sum():
            state.best_epoch, self._best_scores = state.epoch, scores
            self._best = {name: value.clone() for name, value in self._average.values.items()}
        state.losses.append(float(scores.losses.mean()))
        state.accuracies.append(float(scores.right.mean()))

    def _margins(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """float64[len(rows), C] of whole images."""
        self.network.eval()
        margins = np.zeros((len(rows), self._images.membership.shape[1]))
        places = self._sharing.share(np.arange(len(rows)))
        with torch.inference_mode():
            for start in range(0, len(places), _EVALUATED_IMAGES):
                here = places[start : start + _EVALUATED_IMAGES]
                images = torch.from_numpy(self._images.read(rows[here]))
                margins[here] = self.network(images.to(self._device)).double().cpu().numpy()
        self.network.train()
        # The other workers' rows are zeros here, so that the sum has all rows, and the same for all workers.
        return self._sharing.sum(margins)
