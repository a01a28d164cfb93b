"""The fine-tuning that `make gpu-check` measures: the product's run, on made pictures, with the network of the prepared folder.

Import it after `prepare_imports`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import WEIGHTS_FILE, Backbone, load_backbone
from ocelli_model.backbones.families import load_network
from ocelli_model.heads import Heads
from ocelli_storage.layout import ClassifierLocation
from ocelli_training.fit import FEATURE_POWER
from ocelli_training.pixel_file import PixelFile
from ocelli_training.tuning_network import TunedNetwork
from ocelli_training.tuning_recipe import RunPlan, TuningRecipe
from ocelli_training.tuning_run import TuningImages, TuningRun
from tests.gpu_check.compare import DESCRIPTION_FILE, STORE_FOLDER
from tests.gpu_check.folder_store import FolderStore
from tests.gpu_check.pictures import CLASS_NAMES, make_picture

LEARNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTuning:
    """A network with the linear heads that fine-tuning begins with, and pictures."""

    backbone: Backbone
    heads: Heads
    images: TuningImages
    device: torch.device

    def build_network(self) -> TunedNetwork:
        """As fine-tuning begins, on the CPU."""
        heads = self.heads
        weights, bias = heads.slope[:, np.newaxis] * heads.weights, heads.slope * heads.bias + heads.offset
        return TunedNetwork(load_network(self.backbone), weights, bias, power=FEATURE_POWER)

    def start(self, *, batch_images: int, epochs: int) -> TuningRun:
        """The last run of a fine-tuning, which learns from all pictures."""
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.set_num_threads(count_cores())
        everything, nothing = np.arange(len(self.images.numbers)), np.empty(0, dtype=np.intp)
        return TuningRun(
            network=self.build_network(),
            recipe=TuningRecipe(seed=0, epochs=epochs, learning_rate=LEARNING_RATE, batch_images=batch_images, mirror=True),
            plan=RunPlan(number=0, learned=everything, stopping=nothing, judged=nothing),
            images=self.images,
            device=self.device,
            epochs=epochs,
            reading_threads=count_cores(),
        )


@contextmanager
def open_tuning(folder: Path, device: str, *, pictures: int, scratch: Path) -> Iterator[PreparedTuning]:
    """What is in a prepared folder, with that many pictures in a file in the folder `scratch`.

    Raises:
        OSError: the folder was not prepared.
    """
    description = json.loads((folder / DESCRIPTION_FILE).read_text())
    backbone, heads = asyncio.run(_load(folder, description, scratch))
    height, width = backbone.metadata.preprocessing.height, backbone.metadata.preprocessing.width
    kinds = np.arange(pictures) % len(CLASS_NAMES)
    with PixelFile(scratch / "pixels", height=height, width=width) as pixels:
        numbers = [pixels.append(make_picture(int(kind), seed, height=height, width=width)) for seed, kind in enumerate(kinds)]
        images = TuningImages(
            pixels=pixels,
            numbers=numbers,
            digests=[f"{number:064x}" for number in numbers],
            membership=kinds[:, np.newaxis] == np.arange(len(CLASS_NAMES)),
        )
        yield PreparedTuning(backbone=backbone, heads=heads, images=images, device=torch.device(device))


async def _load(folder: Path, description: dict[str, Any], scratch: Path) -> tuple[Backbone, Heads]:
    store: Any = FolderStore(folder / STORE_FOLDER)
    location = ClassifierLocation(namespace=description["namespace"], classifier_id=description["classifierID"])
    artifact = await load_artifact(store, location, description["revision"])
    backbone = await load_backbone(store, artifact.backbone_digest, cache=scratch / "backbones", files=[WEIGHTS_FILE])
    assert isinstance(artifact.heads, Heads)
    return backbone, artifact.heads


def count_cores() -> int:
    return len(os.sched_getaffinity(0))
