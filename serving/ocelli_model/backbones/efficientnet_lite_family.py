"""EfficientNet-Lite as a family of backbones: its weights come as ordinary Python packages, and nothing here needs PyTorch.

Only running one on a GPU does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import (
    CORE_ML_BODY_FILE,
    ONNX_BODY_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneMetadata,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
    Weights,
)
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS, read_packaged_weights
from ocelli_model.exports.onnx_parts import build_onnx_body

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class EfficientNetLiteSource:
    """The bytes of packaged weights, verified."""

    name: str
    data: bytes

    @property
    def weights(self) -> Weights:
        return PACKAGED_WEIGHTS[self.name].describe()

    def build(self) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
        """See `families.BackboneSource`."""
        preprocessing = efficientnet_lite.preprocessing_for(self.name)
        weights = efficientnet_lite.parse_weights(self.name, self.data, what=f"backbone {self.name}: {self.weights.origin}")
        onnx, feature_count = efficientnet_lite.build_onnx(self.name, weights, preprocessing, NetworkKind.BODY)
        files = {
            ONNX_FILE: onnx,
            WEIGHTS_FILE: efficientnet_lite.to_safetensors(weights),
            ONNX_BODY_FILE: build_onnx_body(onnx, preprocessing),
            CORE_ML_BODY_FILE: efficientnet_lite.build_core_ml_body(self.name, weights, preprocessing),
        }
        metadata = BackboneMetadata(
            name=self.name,
            version=efficientnet_lite.VERSION,
            preprocessing=preprocessing,
            feature_count=feature_count,
            precision=Precision.FLOAT32,
            weights=self.weights,
            licence=PACKAGED_WEIGHTS[self.name].licence,
            files={file_name: sha256_hex(data) for file_name, data in files.items()},
        )
        return metadata, files


class EfficientNetLiteFamily:
    """See `families.Family`."""

    version = efficientnet_lite.VERSION

    def owns(self, name: str) -> bool:
        """Whether it is one of the sizes that have weights."""
        return name in efficientnet_lite.NAMES

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """Those of the package, whose digest is pinned here."""
        packaged = PACKAGED_WEIGHTS[name]
        if where is not None or sha256 is not None:
            raise BackboneUnavailableError(
                f"backbone {name}: its weights are those of the package {packaged.distribution}; "
                "leave out --weights and --sha256"
            )
        return packaged.sha256

    @contextmanager
    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> Iterator[EfficientNetLiteSource]:
        """Read them from the package."""
        yield EfficientNetLiteSource(name=name, data=read_packaged_weights(name))

    def load_network(self, backbone: Backbone) -> nn.Module:
        """A body, or a whole network."""
        from ocelli_model.backbones import efficientnet_lite_torch

        return efficientnet_lite_torch.load_network(backbone)
