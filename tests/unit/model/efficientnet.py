"""EfficientNet-Lite in tests: its published weights, the network that they were made for, and installed backbones.

The reference is the PyTorch network of the package efficientnet-lite-pytorch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray

from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, BackboneMetadata, NetworkKind, Precision
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.packaged_weights import read_packaged_weights
from ocelli_model.preprocessing import Interpolation, Preprocessing

NAME = "EfficientNetLite0"
BOUND = 1e-4
"""For features and logits: the rounding of single precision."""

Weights = Mapping[str, NDArray[np.float32]]


@cache
def weights_of(name: str) -> Weights:
    return efficientnet_lite.parse_weights(name, read_packaged_weights(name))


@cache
def reference_network(name: str) -> Any:
    """The package's network. Without a given size it pads by the size of its input."""
    network = EfficientNet.from_name(f"efficientnet-lite{name[-1]}", image_size=None)
    network.load_state_dict(torch.load(io.BytesIO(read_packaged_weights(name)), weights_only=True))
    return network.eval()


def reference(name: str, images: NDArray[np.uint8], kind: NetworkKind = NetworkKind.BODY) -> NDArray[np.float32]:
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    network = reference_network(name)
    with torch.inference_mode():
        answer = network(pixels) if kind is NetworkKind.CLASSIFIER else network.extract_features(pixels).mean((2, 3))
    computed: NDArray[np.float32] = answer.numpy()
    return computed


def sized(height: int, width: int) -> Preprocessing:
    return Preprocessing(
        height=height,
        width=width,
        interpolation=Interpolation.BICUBIC,
        mean=(127 / 255,) * 3,
        standard_deviation=(128 / 255,) * 3,
    )


def installed(
    folder: Path, name: str = NAME, kind: NetworkKind = NetworkKind.BODY, preprocessing: Preprocessing | None = None
) -> Backbone:
    """The backbone as in a server's cache."""
    prepared = preprocessing or efficientnet_lite.preprocessing_for(name)
    network, count = efficientnet_lite.build_onnx(name, weights_of(name), prepared, kind)
    (folder / ONNX_FILE).write_bytes(network)
    (folder / WEIGHTS_FILE).write_bytes(efficientnet_lite.to_safetensors(weights_of(name)))
    metadata = BackboneMetadata(
        name=name,
        version=efficientnet_lite.VERSION,
        preprocessing=prepared,
        feature_count=count,
        precision=Precision.FLOAT32,
        weights=None,
        licence=None,
        files={},
        kind=kind,
    )
    return Backbone(metadata=metadata, folder=folder)
