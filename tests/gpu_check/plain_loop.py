"""The other side: fine-tuning as one writes it with PyTorch and torchvision, with the same network, batch and precision.

Import it after `prepare_imports`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ocelli_training.tuning_recipe import CROP_LEAST_AREA

LEARNING_RATE = 1e-6
"""As low as that of the measured steps of ours, which are warm-up: a damaged network has denormal numbers, which are slow."""
_SHARED_MEMORY = "/dev/shm"
_BATCHES_OF_WORKER = 3
"""In shared memory: two that it prefetches, and one that is used."""


class MadePictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures in memory, augmented as the product does: crops not below half, scaled to the whole, and mirrored at random."""

    def __init__(self, pictures: NDArray[np.uint8], membership: NDArray[np.bool_]) -> None:
        """Pictures uint8[N, height, width, 3] with membership bool[N, C]."""
        self._pictures, self._membership = torch.from_numpy(pictures), torch.from_numpy(membership).float()
        side = pictures.shape[1:3]
        self._augment = v2.Compose(
            [
                v2.RandomResizedCrop(side, scale=(CROP_LEAST_AREA, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        augmented: Tensor = self._augment(self._pictures[row].permute(2, 0, 1))
        return augmented.permute(1, 2, 0), self._membership[row]


def count_workers(batch_bytes: int) -> int:
    """One for each core, or as many as there is shared memory for: containers often have 64 MB."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if Path(_SHARED_MEMORY).is_dir() else 0
    return max(1, min(len(os.sched_getaffinity(0)), free // (_BATCHES_OF_WORKER * batch_bytes)))


def train_plainly(
    network: nn.Module,
    pictures: MadePictures,
    device: torch.device,
    *,
    batch_images: int,
    workers: int,
    after_step: Callable[[], None],
) -> None:
    """Train until `after_step`, called after each whole batch, raises."""
    network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(
        pictures,
        batch_size=batch_images,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
    while True:
        for images, targets in loader:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                logits = network(images.to(device, non_blocking=True))
            loss = functional.binary_cross_entropy_with_logits(logits, targets.to(device, non_blocking=True))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            after_step()
