"""EfficientNet-Lite as a family of backbones. Its weights come as ordinary Python packages.

Only running one on a GPU needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import (
    CORE_ML_BODY_FILE,
    ONNX_BODY_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneMetadata,
    BackboneSource,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
)
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.efficientnet_lite_table import FEATURE_COUNT
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS, read_packaged_weights
from ocelli_model.exports.onnx_parts import build_onnx_body
from ocelli_model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


class EfficientNetLiteFamily:
    """See `families.Family`."""

    version = efficientnet_lite.VERSION

    def owns(self, name: str) -> bool:
        """Whether it is one of the sizes that have weights."""
        return name in efficientnet_lite.NAMES

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """The digest of the packaged weights, which is pinned here."""
        packaged = PACKAGED_WEIGHTS[name]
        if where is not None or sha256 is not None:
            raise BackboneUnavailableError(
                f"backbone {name}: its weights are those of the package {packaged.distribution}; "
                "leave out --weights and --sha256"
            )
        return packaged.sha256

    @contextmanager
    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> Iterator[BackboneSource]:
        """Read the weights from their package."""
        build = partial(_build, name, read_packaged_weights(name))
        yield BackboneSource(weights=PACKAGED_WEIGHTS[name].describe(), build=build)

    def load_network(self, backbone: Backbone) -> nn.Module:
        """A body, or a whole network."""
        from ocelli_model.backbones import efficientnet_lite_torch

        return efficientnet_lite_torch.load_network(backbone)

    def build_files(self, metadata: BackboneMetadata, network: nn.Module) -> Mapping[str, bytes]:
        """See `families.Family`."""
        from ocelli_model.backbones import efficientnet_lite_torch

        return _build_files(metadata.name, efficientnet_lite_torch.network_weights(network), metadata.preprocessing)


def _build(name: str, data: bytes) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
    preprocessing = efficientnet_lite.preprocessing_for(name)
    weights = efficientnet_lite.parse_weights(name, data)
    files = _build_files(name, weights, preprocessing)
    metadata = BackboneMetadata(
        name=name,
        version=efficientnet_lite.VERSION,
        preprocessing=preprocessing,
        feature_count=FEATURE_COUNT,
        precision=Precision.FLOAT32,
        weights=PACKAGED_WEIGHTS[name].describe(),
        licence=PACKAGED_WEIGHTS[name].licence,
        files={file_name: sha256_hex(data) for file_name, data in files.items()},
    )
    return metadata, files


def _build_files(name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing) -> Mapping[str, bytes]:
    onnx, _ = efficientnet_lite.build_onnx(name, weights, preprocessing, NetworkKind.BODY)
    return {
        ONNX_FILE: onnx,
        WEIGHTS_FILE: efficientnet_lite.to_safetensors(weights),
        ONNX_BODY_FILE: build_onnx_body(onnx, preprocessing),
        CORE_ML_BODY_FILE: efficientnet_lite.build_core_ml_body(name, weights, preprocessing),
    }
