"""Torchvision's classification models as a family of backbones: with published weights that the user has.

PyTorch is imported only to make a backbone's files and to run it on a GPU; finding one that was made before needs none.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneMetadata,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
    Weights,
)

if TYPE_CHECKING:
    from torch import nn

    from ocelli_model.backbones.published_weights import WeightsFile

VERSION = "1"
"""Raise it with any change that alters features."""
_NAME = re.compile(r"[a-z0-9_]+")
"""Of a model of torchvision's. Which there are can only be asked with PyTorch."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionSource:
    """A model of torchvision's, and the file of its weights."""

    name: str
    file: WeightsFile

    @property
    def weights(self) -> Weights:
        return self.file.weights

    def build(self) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
        """See `families.BackboneSource`. Needs PyTorch."""
        _require_torch(self.name)
        from ocelli_model.backbones import torchvision_backbones
        from ocelli_model.backbones.onnx_export import export_onnx
        from ocelli_model.exports.backbone_parts import build_body_files

        preprocessing, licence = torchvision_backbones.preprocessing_for(self.name, self.file.path.name)
        network = torchvision_backbones.build_network(self.name, self.file.path, preprocessing)
        onnx, feature_count = export_onnx(network, preprocessing)
        files = {
            ONNX_FILE: onnx,
            WEIGHTS_FILE: torchvision_backbones.network_weights(network),
            **build_body_files(network, onnx, preprocessing),
        }
        metadata = BackboneMetadata(
            name=self.name,
            version=VERSION,
            preprocessing=preprocessing,
            feature_count=feature_count,
            precision=Precision.FLOAT32,
            weights=self.weights,
            licence=licence,
            files={file_name: sha256_hex(data) for file_name, data in files.items()},
        )
        return metadata, files


class TorchvisionFamily:
    """See `families.Family`."""

    version = VERSION

    def owns(self, name: str) -> bool:
        """Whether torchvision could have a model of this name."""
        return _NAME.fullmatch(name) is not None

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """What the user pins."""
        return sha256

    @contextmanager
    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> Iterator[TorchvisionSource]:
        """See `published_weights.find_weights`."""
        from ocelli_model.backbones.published_weights import find_weights

        with find_weights(name, where, sha256=sha256, published_names=lambda: _published_names(name)) as file:
            yield TorchvisionSource(name=name, file=file)

    def load_network(self, backbone: Backbone) -> nn.Module:
        """A body, or a whole network."""
        from ocelli_model.backbones import torchvision_backbones

        if backbone.metadata.kind is NetworkKind.CLASSIFIER:
            return torchvision_backbones.load_installed_classifier(backbone)
        return torchvision_backbones.load_installed_network(backbone)


def _published_names(name: str) -> Sequence[str]:
    _require_torch(name)
    from ocelli_model.backbones.torchvision_backbones import weights_file_names

    return weights_file_names(name)


def _require_torch(name: str) -> None:
    if importlib.util.find_spec("torchvision") is None:
        raise BackboneUnavailableError(
            f"backbone {name}: exporting a torchvision model needs PyTorch, which is not installed here; "
            "publish it from an environment with the extra `torch`, or choose EfficientNetLite0, which needs none"
        )
