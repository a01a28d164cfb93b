"""Fine-tuning of torchvision networks, from the file of their weights to scores that both engines agree on.

The weights are random, and batch norms have the statistics of the images, so that features distinguish them: what counts is
that every family can be trained, stored, exported and served.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import models

from ocelli_api.classifier import Accelerator
from ocelli_api.export import ExportFormat, PartPlace
from ocelli_api.outcome import OutcomeReason
from ocelli_api.pods import Environment
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, load_backbone
from ocelli_model.engine import TorchEngine, load_engine
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import decode_image
from ocelli_model.publish import publish_backbone
from ocelli_training import fine_tuning
from tests.unit.model.images import make_file
from tests.unit.training.conftest import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BOUND = 0.0005
IMAGES = 10


def draw(seed: int, *, red: bool, size: int = 240) -> NDArray[np.uint8]:
    """uint8[size, size, 3]: noise around one of two colours, which also the features of random weights distinguish."""
    noise = np.random.default_rng(seed).integers(0, 60, (size, size, 3))
    return (noise + np.array([180, 60, 60] if red else [60, 60, 180])).astype(np.uint8)


def make_zip(*, red: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for seed in range(IMAGES):
            archive.writestr(f"{seed}.jpg", make_file(draw(seed, red=red), "JPEG"))
    return file.getvalue()


def make_weights(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # The statistics of one batch, not their moving average.
            module.momentum = 1.0
    images = np.stack([draw(seed, red=red, size=224) for red in (True, False) for seed in range(8)])
    with torch.no_grad():
        network.train()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 64 - 2)
    return network.state_dict()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_a_tuned_torchvision_network_is_served_alike_by_both_engines(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / f"{name}.pth"
    torch.save(make_weights(name), weights)
    (tmp_path / "trainer").mkdir()
    trainer = Trainer(tmp_path / "trainer")
    published = asyncio.run(publish_backbone(trainer.store, name, weights=str(weights)))
    trainer.environment[Environment.BACKBONES] = str(published)
    for class_name, red in (("red", True), ("blue", False)):
        trainer.add_class(class_name, trainer.upload(make_zip(red=red)))
    trainer.definition["model"] = {"strategy": "FineTune", "backbone": name, "epochs": 1, "batchSize": 8, "learningRate": 1e-5}
    # Random weights need not improve in one epoch.
    monkeypatch.setattr(fine_tuning, "is_improvement", lambda linear, tuned: True)
    monkeypatch.setattr(fine_tuning, "choose_epochs", lambda best: 1)
    outcome, _ = trainer.run()
    assert outcome.reason is OutcomeReason.SUCCEEDED, outcome

    artifact = asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision))
    assert (artifact.backbone_name, artifact.backbone_place) == (name, PartPlace.ARTIFACT)
    assert artifact.backbone_digest != published.digest
    assert ExportFormat.ONNX in artifact.exports
    network = asyncio.run(
        load_backbone(
            trainer.store,
            artifact.backbone_digest,
            cache=tmp_path / "cache",
            files=(ONNX_FILE, WEIGHTS_FILE),
            prefix=trainer.location.network_prefix(trainer.revision),
        )
    )
    judged = np.stack(
        [
            decode_image(make_file(draw(1000 + seed, red=red), "JPEG"), artifact.preprocessing)
            for red in (True, False)
            for seed in range(IMAGES)
        ]
    )
    heads = artifact.heads
    assert isinstance(heads, Heads)
    on_cpu = heads.scores(load_engine(network, threads=2, device=Accelerator.CPU).features(judged))
    in_pytorch = heads.scores(TorchEngine(network, torch_device="cpu", threads=2).features(judged))
    # Heads that cannot distinguish the classes would agree in any engine.
    red_wins = in_pytorch[:, 0] > in_pytorch[:, 1]
    assert (red_wins[:IMAGES].mean() > 0.8, red_wins[IMAGES:].mean() < 0.2) == (True, True)
    assert np.abs(on_cpu - in_pytorch).max() <= BOUND
