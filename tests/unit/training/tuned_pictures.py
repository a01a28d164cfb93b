"""A small network, and images that it can learn, for tests of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocelli_training.pixel_file import PixelFile
from ocelli_training.tuning_network import TunedNetwork
from ocelli_training.tuning_recipe import RunPlan, TuningRecipe
from ocelli_training.tuning_run import Sharing, Step, TuningImages, TuningRun

SIDE = 16
IMAGES = 24
FEATURES = 6
CLASSES = 2


class SmallBody(nn.Module):
    """uint8[N, 16, 16, 3] to float32[N, 6], with a batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, FEATURES, 3, bias=False)
        self.norm = nn.BatchNorm2d(FEATURES)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(self.convolution(images.permute(0, 3, 1, 2).float() / 255))
        features: Tensor = self.dropout(values.relu().mean((2, 3)))
        return features


def make_steady_body() -> SmallBody:
    """Always the same, without dropout, which every worker draws for its own images."""
    torch.manual_seed(7)
    body = SmallBody()
    body.dropout.p = 0.0
    return body


def make_recipe(**changes: Any) -> TuningRecipe:
    return TuningRecipe(
        **{"seed": 0, "epochs": 3, "learning_rate": 0.01, "batch_images": 5, "mirror": True, **changes},
    )


def make_network(body: nn.Module | None = None) -> TunedNetwork:
    torch.manual_seed(1)
    weights = np.random.default_rng(2).normal(size=(CLASSES, FEATURES)).astype(np.float32)
    return TunedNetwork(body or SmallBody(), weights, np.zeros(CLASSES, dtype=np.float32), power=0.6).eval()


@contextmanager
def make_images(folder: Path) -> Iterator[TuningImages]:
    """A third of the images is bluish, a third reddish, and the others are grey negatives."""
    random, kinds = np.random.default_rng(3), np.arange(IMAGES) % (CLASSES + 1)
    with PixelFile(folder / "pixels", height=SIDE, width=SIDE) as pixels:
        numbers = []
        for kind in kinds:
            image = random.integers(0, 120, (SIDE, SIDE, 3))
            if kind < CLASSES:
                image[..., 2 * kind] += 100
            numbers.append(pixels.append(image.astype(np.uint8)))
        membership = kinds[:, np.newaxis] == np.arange(CLASSES)
        digests = [f"{number:064x}" for number in numbers]
        yield TuningImages(pixels=pixels, numbers=numbers, digests=digests, membership=membership)


def make_run(
    images: TuningImages, *, network: TunedNetwork | None = None, sharing: Sharing | None = None, **changes: Any
) -> TuningRun:
    """A run whose last 6 images choose its epoch."""
    torch.set_num_threads(1)
    recipe, rows = make_recipe(**changes), np.arange(IMAGES)
    return TuningRun(
        network=network or make_network(),
        recipe=recipe,
        plan=RunPlan(number=0, learned=rows[:-6], stopping=rows[-6:], judged=rows[:0]),
        images=images,
        device=torch.device("cpu"),
        epochs=recipe.epochs,
        reading_threads=2,
        sharing=sharing,
    )


class StoppedError(Exception):
    """The process was stopped."""


def stop_after(steps: int) -> Callable[[Step], None]:
    done = 0

    def after_step(_: Step) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise StoppedError

    return after_step
