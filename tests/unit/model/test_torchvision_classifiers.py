"""Whole torchvision networks: any number of outputs, and the errors for wrong weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import models

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneError,
    BackboneMetadata,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
)
from ocelli_model.backbones import torchvision_backbones, torchvision_family
from ocelli_model.backbones.onnx_export import export_onnx
from ocelli_model.engine import TorchEngine, load_engine
from tests.networks import save_torchvision
from tests.unit.model.images import make_pixels

# PyTorch alone takes seconds to import.
pytestmark = pytest.mark.slow

NAME = "squeezenet1_1"


def build(path: Path, name: str = NAME) -> Any:
    preprocessing, _ = torchvision_backbones.preprocessing_for(name, "")
    return torchvision_backbones.build_classifier(name, path, preprocessing, what="weights x")


def refusal(path: Path, name: str = NAME) -> str:
    with pytest.raises(BackboneUnavailableError) as caught:
        build(path, name)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A stored whole network with seven outputs."""
    folder = tmp_path_factory.mktemp("whole")
    preprocessing, _ = torchvision_backbones.preprocessing_for(NAME, "")
    network = build(save_torchvision(folder / "weights.pth", spread=20))
    onnx, count = export_onnx(network, preprocessing)
    files = {ONNX_FILE: onnx, WEIGHTS_FILE: torchvision_backbones.network_weights(network)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    metadata = BackboneMetadata(
        name=NAME,
        version=torchvision_family.VERSION,
        preprocessing=preprocessing,
        feature_count=count,
        precision=Precision.FLOAT32,
        weights=None,
        licence=None,
        files={name: sha256_hex(data) for name, data in files.items()},
        kind=NetworkKind.CLASSIFIER,
    )
    return Backbone(metadata=metadata, folder=folder)


@pytest.mark.parametrize("outputs", [1, 2, 7, 1000])
def test_the_weights_say_how_many_outputs_there_are(tmp_path: Path, outputs: int) -> None:
    network = build(save_torchvision(tmp_path / "weights.pth", outputs=outputs))
    assert network(torch.zeros((2, 224, 224, 3), dtype=torch.uint8)).shape == (2, outputs)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "pt"])
def test_the_format_of_a_file_is_detected_by_its_bytes(tmp_path: Path, suffix: str) -> None:
    fetched = save_torchvision(tmp_path / f"weights.{suffix}").rename(tmp_path / "source-1.zip")
    assert build(fetched)(torch.zeros((1, 224, 224, 3), dtype=torch.uint8)).shape == (1, 7)


def test_helpers_of_a_training_may_be_missing(tmp_path: Path) -> None:
    name = "googlenet"
    state = models.get_model(name, weights=None, num_classes=3, init_weights=False).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith(("aux", "AuxLogits"))}, tmp_path / "x.pth")
    preprocessing, _ = torchvision_backbones.preprocessing_for(name, "")
    images = torch.zeros((1, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8)
    assert build(tmp_path / "x.pth", name)(images).shape == (1, 3)


@pytest.mark.parametrize("name", ["mnasnet0_5", "regnet_y_400mf"])
def test_networks_with_special_constructors_are_accepted(tmp_path: Path, name: str) -> None:
    # The first recognises older weights by their versions; the second computes while it is built.
    network = build(save_torchvision(tmp_path / "weights.pth", name), name)
    assert network(torch.zeros((1, 224, 224, 3), dtype=torch.uint8)).shape == (1, 7)


def test_in_pytorch_it_answers_as_in_openvino(whole: Backbone) -> None:
    images = np.stack([make_pixels(seed, height=224, width=224) for seed in range(3)])
    on_cpu = load_engine(whole, threads=2, device=Accelerator.CPU).features(images)
    in_torch = TorchEngine(whole, torch_device="cpu", threads=1).features(images)
    assert on_cpu.shape == (3, 7)
    assert on_cpu == pytest.approx(in_torch, abs=1e-3)


def test_pytorch_says_that_it_cannot_run_onnx(whole: Backbone) -> None:
    metadata = BackboneMetadata(**{**vars(whole.metadata), "kind": NetworkKind.ONNX})
    with pytest.raises(BackboneError, match="run it on a CPU"):
        TorchEngine(Backbone(metadata=metadata, folder=whole.folder), torch_device="cpu", threads=1)


def test_weights_of_a_similar_network_are_refused_by_their_shapes(tmp_path: Path) -> None:
    text = refusal(save_torchvision(tmp_path / "x.pth", "squeezenet1_0", outputs=3))
    assert text == "weights x has weights with wrong shapes; give the weights of this model"


def test_weights_of_another_architecture_are_refused_by_their_last_layer(tmp_path: Path) -> None:
    text = refusal(save_torchvision(tmp_path / "x.pth", "shufflenet_v2_x0_5"))
    assert text.startswith("weights x does not fit: it has no classifier.1.weight, the classifying layer; name the network")


def test_weights_without_their_last_layer_are_refused(tmp_path: Path) -> None:
    state = models.get_model(NAME, weights=None).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, tmp_path / "x.pth")
    assert "it has no classifier.1.weight" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("ResNet50_Weights.IMAGENET1K_V3", "ResNet50_Weights.IMAGENET1K_V"),
        ("Resnet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
    ],
)
def test_close_names_of_weights_are_offered(name: str, close: str) -> None:
    with pytest.raises(BackboneUnavailableError, match=f"did you mean .*{close}"):
        torchvision_backbones.find_published_weights(name)


@pytest.mark.parametrize(
    "name",
    [
        "VGG16_Weights.IMAGENET1K_FEATURES",
        "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
        "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
    ],
)
def test_weights_without_a_classifier_are_not_offered(name: str) -> None:
    with pytest.raises(BackboneUnavailableError, match="no published weights of a classifying network"):
        torchvision_backbones.find_published_weights(name)


def test_published_weights_come_with_their_network_file_and_categories() -> None:
    found = torchvision_backbones.find_published_weights("ResNet50_Weights.IMAGENET1K_V2")
    assert (found.architecture, found.file_name, len(found.categories)) == ("resnet50", "resnet50-11ad3fa6.pth", 1000)


def test_close_names_of_networks_are_offered() -> None:
    with pytest.raises(BackboneUnavailableError, match=r"did you mean .*resnet50"):
        torchvision_backbones.check_architecture("resnet51")
