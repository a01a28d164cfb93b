"""Torchvision's classification models as a family of backbones. The user provides the published weights.

Building a backbone's files and running it on a GPU need PyTorch; finding a backbone that is already published does not.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

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
    Precision,
)
from ocelli_model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from ocelli_model.backbones.published_weights import WeightsFile

VERSION = "1"
"""Raise it with any change that alters features."""
_NAME = re.compile(r"[a-z0-9_]+")
"""A name that torchvision could use. Listing its models would need PyTorch."""


class TorchvisionFamily:
    """See `families.Family`."""

    version = VERSION

    def owns(self, name: str) -> bool:
        """Whether torchvision could have a model of this name."""
        return _NAME.fullmatch(name) is not None

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """The digest that the user pins."""
        return sha256

    @contextmanager
    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> Iterator[BackboneSource]:
        """See `published_weights.find_weights`."""
        from ocelli_model.backbones.published_weights import find_weights

        with find_weights(name, where, sha256=sha256, published_names=lambda: _published_names(name)) as file:
            yield BackboneSource(weights=file.weights, build=partial(_build, name, file))

    def load_network(self, backbone: Backbone) -> nn.Module:
        """A body, or a whole network."""
        from ocelli_model.backbones.torchvision_backbones import load_installed

        return load_installed(backbone)

    def build_files(self, metadata: BackboneMetadata, network: nn.Module) -> Mapping[str, bytes]:
        """See `families.Family`."""
        return _build_files(network, metadata.preprocessing)[0]


def _build(name: str, file: WeightsFile) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
    _require_torch(name)
    from ocelli_model.backbones import torchvision_backbones

    preprocessing, licence = torchvision_backbones.preprocessing_for(name, file.path.name)
    network = torchvision_backbones.build_network(name, file.path, preprocessing)
    files, feature_count = _build_files(network, preprocessing)
    metadata = BackboneMetadata(
        name=name,
        version=VERSION,
        preprocessing=preprocessing,
        feature_count=feature_count,
        precision=Precision.FLOAT32,
        weights=file.weights,
        licence=licence,
        files={file_name: sha256_hex(data) for file_name, data in files.items()},
    )
    return metadata, files


def _build_files(network: nn.Module, preprocessing: Preprocessing) -> tuple[Mapping[str, bytes], int]:
    """The files of a body, and the number of its features."""
    from ocelli_model.backbones import torchvision_backbones
    from ocelli_model.backbones.onnx_export import export_onnx
    from ocelli_model.exports.core_ml_parts import build_core_ml_body
    from ocelli_model.exports.onnx_parts import build_onnx_body

    onnx, feature_count = export_onnx(network, preprocessing)
    files = {
        ONNX_FILE: onnx,
        WEIGHTS_FILE: torchvision_backbones.network_weights(network),
        ONNX_BODY_FILE: build_onnx_body(onnx, preprocessing),
    }
    core_ml = build_core_ml_body(network, preprocessing)
    if core_ml is not None:
        files[CORE_ML_BODY_FILE] = core_ml
    return files, feature_count


def _published_names(name: str) -> Sequence[str]:
    _require_torch(name)
    from ocelli_model.backbones.torchvision_backbones import weights_file_names

    return weights_file_names(name)


def _require_torch(name: str) -> None:
    if importlib.util.find_spec("torchvision") is None:
        raise BackboneUnavailableError(
            f"backbone {name}: exporting a torchvision model needs PyTorch, which is not installed here; "
            "publish it from an environment with the extra `torch`, or choose EfficientNetLite0, which needs no PyTorch"
        )
