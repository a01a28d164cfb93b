"""The PyTorch network of an installed backbone."""

from __future__ import annotations

from torch import nn

from ocelli_model.backbone import Backbone, BackboneError, NetworkKind
from ocelli_model.backbones import hog_color, torchvision_backbones


def load_network(backbone: Backbone) -> nn.Module:
    """The network in evaluation mode: uint8[N, height, width, 3] to float32[N, features].

    Raises:
        BackboneError: this program's code made other networks of that name, knows none of this kind, or the weights do not fit.
    """
    if backbone.metadata.kind is NetworkKind.ONNX:
        raise BackboneError(f"backbone {backbone.name} ({backbone.digest}): it is ONNX only; run it on a CPU")
    is_hog_color = backbone.name == hog_color.NAME
    version = hog_color.VERSION if is_hog_color else torchvision_backbones.VERSION
    if backbone.metadata.version != version:
        raise BackboneError(
            f"backbone {backbone.name} ({backbone.digest}): it has version {backbone.metadata.version}, PyTorch here runs "
            f"version {version}; publish the backbone again and retrain, or run it on a CPU"
        )
    if is_hog_color:
        return hog_color.HogColor().eval()
    if backbone.metadata.kind is NetworkKind.CLASSIFIER:
        return torchvision_backbones.load_installed_classifier(backbone)
    return torchvision_backbones.load_installed_network(backbone)
