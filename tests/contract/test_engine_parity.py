"""The scores of every engine are close to PyTorch's with float32.

The bound is 0.0005: every backbone is computed with float32.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import models

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, load_backbone
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.engine import Engine, TorchEngine, load_engine
from ocelli_model.preprocessing import mirrored
from ocelli_model.publish import publish_backbone
from ocelli_storage.store_url import open_store
from ocelli_training.fit import Examples, View, fit_heads
from ocelli_training.folds import FOLDS
from tests.unit.model.images import striped

BOUND = 0.0005
LEARNED_IMAGES = 16
JUDGED_IMAGES = 12


def install(folder: Path, name: str) -> Backbone:
    weights: str | None = None
    if name != DEFAULT_BACKBONE:
        torch.manual_seed(0)
        weights = str(folder / "weights.pth")
        torch.save(models.get_model(name, weights=None).state_dict(), weights)

    async def publish() -> Backbone:
        store = open_store((folder / "store").as_uri())
        published = await publish_backbone(store, name, weights=weights)
        return await load_backbone(store, published.digest, cache=folder / "cache", files=(ONNX_FILE, WEIGHTS_FILE))

    return asyncio.run(publish())


def striped_images(backbone: Backbone, count: int, *, seed: int) -> NDArray[np.uint8]:
    """Images of vertical stripes, then as many of horizontal ones."""
    size = backbone.metadata.preprocessing.height
    return np.stack(
        [striped(vertical=vertical, seed=seed + row, size=size) for vertical in (True, False) for row in range(count)]
    )


def largest_difference(backbone: Backbone, served: Engine, reference: Engine) -> float:
    """Between the scores of heads that were trained with the serving engine, for both kinds of images."""
    learned = striped_images(backbone, LEARNED_IMAGES, seed=0)
    membership = np.repeat(np.eye(2, dtype=np.bool_), LEARNED_IMAGES, axis=0)
    examples = Examples(
        features=served.features(learned),
        other_views={View.MIRRORED: served.features(mirrored(learned))},
        membership=membership,
        folds=np.arange(len(learned)) % LEARNED_IMAGES % FOLDS,
    )
    heads = fit_heads(examples).heads
    judged = striped_images(backbone, JUDGED_IMAGES, seed=1000)
    scores, expected = heads.scores(served.features(judged)), heads.scores(reference.features(judged))
    # Heads that cannot distinguish the classes would agree in any engine. Rejection lowers both scores of an image alike.
    upright = expected[:, 0] > expected[:, 1]
    assert (upright[:JUDGED_IMAGES].mean() > 0.8, upright[JUDGED_IMAGES:].mean() < 0.2) == (True, True)
    return float(np.abs(scores - expected).max())


@pytest.mark.parametrize("name", [DEFAULT_BACKBONE, "squeezenet1_1"])
def test_every_engine_scores_like_pytorch_with_float32(tmp_path: Path, name: str) -> None:
    backbone = install(tmp_path, name)
    reference = TorchEngine(backbone, torch_device="cpu", threads=2)
    served = load_engine(backbone, threads=2, device=Accelerator.AUTO)

    difference = largest_difference(backbone, served, reference)

    print(f"{name}, {served.name}: {difference:.6f}")
    assert "float32" in served.name
    assert difference <= BOUND
