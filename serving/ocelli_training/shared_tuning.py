"""What the first worker sends to the others, so that they train the same network: once the images, then each run.

The others read no source and no checkpoint. They get the backbone from the store, by its digest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ocelli_model.backbone import Backbone
from ocelli_model.backbones.families import load_network
from ocelli_training.fit import FEATURE_POWER
from ocelli_training.pixel_file import PixelFile
from ocelli_training.tuning_network import TunedNetwork
from ocelli_training.tuning_recipe import RunPlan, TuningRecipe
from ocelli_training.tuning_run import RunState, TuningImages, TuningRun
from ocelli_training.worker_group import WorkerGroup

IMAGES, RUN = "images", "run"
"""Commands of the first worker."""
_SENT_IMAGES = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedTask:
    """What is the same for all runs of a training."""

    backbone_digest: str
    recipe: TuningRecipe
    images: TuningImages


def send_images(group: WorkerGroup, task: SharedTask) -> None:
    """Let all other workers have the images and the recipe. Raises WorkerLostError."""
    images = task.images
    group.command(IMAGES)
    height, width = images.read(np.array([0])).shape[1:3]
    document = {
        "backbone": task.backbone_digest,
        "recipe": asdict(task.recipe),
        "digests": list(images.digests),
        "classes": images.membership.shape[1],
        "height": height,
        "width": width,
    }
    group.send(json.dumps(document).encode())
    group.send(images.membership.tobytes())
    count = len(images.digests)
    for start in range(0, count, _SENT_IMAGES):
        group.send(images.read(np.arange(start, min(start + _SENT_IMAGES, count))).tobytes())
    logger.info("workers.images_sent", extra={"images": count})


def receive_images(group: WorkerGroup, path: Path) -> tuple[SharedTask, PixelFile]:
    """What the first worker sends; the pixels are in a new file, which the caller has to close.

    Raises:
        WorkerLostError: see there.
        OSError: the scratch folder is full.
    """
    document = json.loads(group.receive())
    digests, shape = document["digests"], (-1, document["height"], document["width"], 3)
    count, classes = len(digests), document["classes"]
    membership = np.frombuffer(group.receive(), dtype=np.bool_).reshape(count, classes)
    pixels = PixelFile(path, height=document["height"], width=document["width"])
    numbers: list[int] = []
    while len(numbers) < count:
        numbers += [pixels.append(image) for image in np.frombuffer(group.receive(), dtype=np.uint8).reshape(shape)]
    images = TuningImages(pixels=pixels, numbers=numbers, digests=digests, membership=membership)
    recipe = TuningRecipe(**document["recipe"])
    return SharedTask(backbone_digest=document["backbone"], recipe=recipe, images=images), pixels


def send_run(group: WorkerGroup, run: TuningRun, plan: RunPlan, epochs: int) -> None:
    """Let all other workers train a run with this one, from the state that it is in. Raises WorkerLostError."""
    group.command(RUN)
    document = {
        "number": plan.number,
        "learned": plan.learned.tolist(),
        "stopping": plan.stopping.tolist(),
        "epochs": epochs,
        "state": asdict(run.state),
    }
    group.send(json.dumps(document).encode())
    group.send(safetensors.torch.save(run.tensors()))


def receive_run(group: WorkerGroup, task: SharedTask, backbone: Backbone, *, device: torch.device, threads: int) -> TuningRun:
    """The run that the first worker sends, in the same state.

    Raises:
        BackboneError: the backbone cannot be tuned in PyTorch.
        WorkerLostError: see there.
    """
    document: Mapping[str, Any] = json.loads(group.receive())
    tensors: dict[str, Tensor] = safetensors.torch.load(group.receive())
    weights = np.zeros(tuple(tensors["network.head.weight"].shape), dtype=np.float32)
    run = TuningRun(
        network=TunedNetwork(load_network(backbone), weights, np.zeros(len(weights), dtype=np.float32), power=FEATURE_POWER),
        recipe=task.recipe,
        plan=RunPlan(
            number=document["number"],
            learned=np.array(document["learned"], dtype=np.intp),
            stopping=np.array(document["stopping"], dtype=np.intp),
            judged=np.empty(0, dtype=np.intp),
        ),
        images=task.images,
        device=device,
        epochs=document["epochs"],
        reading_threads=threads,
        sharing=group,
    )
    run.restore(RunState(**document["state"]), tensors)
    return run
