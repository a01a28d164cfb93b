"""The families of backbones: everything that can be published, and that PyTorch can run on a GPU.

A family owns names of backbones. It finds the weights for a name, builds the files of a backbone, and rebuilds its network in
PyTorch. Importing this module does not import PyTorch. A backbone whose family was removed is served from its ONNX file on a
CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import (
    WEIGHTS_FILE,
    Backbone,
    BackboneError,
    BackboneMetadata,
    BackboneSource,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
    Weights,
)
from ocelli_model.backbones.efficientnet_lite_family import EfficientNetLiteFamily
from ocelli_model.backbones.torchvision_family import TorchvisionFamily

if TYPE_CHECKING:
    from torch import nn

DEFAULT_BACKBONE = "EfficientNetLite0"
"""The backbone for `Auto`. Every installation has it, because its weights come as a package."""
REMOVED_BACKBONES = frozenset({"HogColor"})
"""Names of earlier releases. Nothing new is learned on them."""


class Family(Protocol):
    """One kind of network."""

    @property
    def version(self) -> str:
        """Version of the code that builds the files; raised with any change that alters features."""
        ...

    def owns(self, name: str) -> bool:
        """Whether a backbone of this name belongs to this family."""
        ...

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """SHA-256 (hex) of the weights, if it is known before they are read.

        `where` and `sha256` come from the user, see `ocelli_model.publish`.

        Raises:
            BackboneUnavailableError: this family accepts neither.
        """
        ...

    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> AbstractContextManager[BackboneSource]:
        """Find the weights, which are available as long as the context.

        Raises:
            BackboneUnavailableError: there is no such backbone, there are no weights, or they have the wrong digest.
        """
        ...

    def load_network(self, backbone: Backbone) -> nn.Module:
        """The PyTorch network of an installed backbone of this version, in evaluation mode, see `load_network` below."""
        ...

    def build_files(self, metadata: BackboneMetadata, network: nn.Module) -> Mapping[str, bytes]:
        """The files of a body whose weights were changed: `network` comes from `load_network`, and is on the CPU.

        `metadata` are those of the backbone that it was.
        """
        ...


FAMILIES: tuple[Family, ...] = (EfficientNetLiteFamily(), TorchvisionFamily())


def find_family(name: str) -> Family | None:
    """The family of a backbone; None if there is none."""
    return next((family for family in FAMILIES if family.owns(name)), None)


def choose_family(name: str) -> Family:
    """The family that publishes a backbone of this name.

    Raises:
        BackboneUnavailableError: there is none.
    """
    family = find_family(name)
    if family is not None:
        return family
    remedy = f"choose {DEFAULT_BACKBONE} or the name of a torchvision classification model"
    if name in REMOVED_BACKBONES:
        raise BackboneUnavailableError(
            f"backbone {name}: it was removed from Ocelli. Classifiers learned on it are still served; for new ones {remedy}"
        )
    raise BackboneUnavailableError(f"backbone {name!r}: Ocelli has no backbone of that name; {remedy}")


def load_network(backbone: Backbone) -> nn.Module:
    """The network in evaluation mode: uint8[N, height, width, 3] to float32[N, features]. Imports PyTorch.

    Raises:
        BackboneError: the network has no PyTorch code, is of another version, or its weights do not fit.
    """
    what = f"backbone {backbone.name} ({backbone.digest})"
    family = find_family(backbone.name)
    if backbone.metadata.kind is NetworkKind.ONNX or family is None:
        raise BackboneError(f"{what}: it has only an ONNX network, which PyTorch cannot run; run it on a CPU")
    if backbone.metadata.version != family.version:
        raise BackboneError(
            f"{what}: it has version {backbone.metadata.version}, but this program runs version {family.version} in PyTorch; "
            "publish the backbone again and retrain, or run it on a CPU"
        )
    return family.load_network(backbone)


def build_tuned(backbone: BackboneMetadata, network: nn.Module) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
    """The metadata and the files of a body that was tuned: `network` comes from `load_network`, and is on the CPU.

    It is stored like a backbone, with the artifact that it belongs to.
    """
    files = choose_family(backbone.name).build_files(backbone, network)
    weights = Weights(origin=f"{backbone.name} ({backbone.digest}), fine-tuned", sha256=sha256_hex(files[WEIGHTS_FILE]))
    digests = {name: sha256_hex(data) for name, data in files.items()}
    return replace(backbone, weights=weights, precision=Precision.FLOAT32, files=digests), files
