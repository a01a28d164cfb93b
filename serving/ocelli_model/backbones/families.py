"""The families of backbones: the one list of what can be published, and of what PyTorch runs on a GPU.

A family owns names. It knows where the weights of a name come from, makes the files of a backbone, and rebuilds its network in
PyTorch. Importing this module imports no PyTorch. A backbone whose family is gone is served from its ONNX file, on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ocelli_model.backbone import Backbone, BackboneError, BackboneMetadata, BackboneUnavailableError, NetworkKind, Weights
from ocelli_model.backbones.efficientnet_lite_family import EfficientNetLiteFamily
from ocelli_model.backbones.torchvision_family import TorchvisionFamily

if TYPE_CHECKING:
    from torch import nn

DEFAULT_BACKBONE = "EfficientNetLite0"
"""What `Auto` means. Every installation has it, because its weights come as a package."""
REMOVED_BACKBONES = frozenset({"HogColor"})
"""Names of earlier releases: nothing new is learned on them."""


class BackboneSource(Protocol):
    """A backbone that can be made: its weights are at hand, and their digest is known."""

    @property
    def weights(self) -> Weights: ...

    def build(self) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
        """The backbone's metadata, and its files by name. Takes seconds.

        Raises:
            BackboneUnavailableError: the weights cannot be used.
        """
        ...


class Family(Protocol):
    """One kind of networks."""

    @property
    def version(self) -> str:
        """Of the code that makes the files: raised with any change that alters features."""
        ...

    def owns(self, name: str) -> bool:
        """Whether a backbone of this name would be of this family."""
        ...

    def known_weights(self, name: str, *, where: str | None, sha256: str | None) -> str | None:
        """SHA-256 (hex) of the weights, where it is known before they are read.

        `where` and `sha256` are the user's, see `ocelli_model.publish`.

        Raises:
            BackboneUnavailableError: this family takes neither.
        """
        ...

    def open_source(self, name: str, *, where: str | None, sha256: str | None) -> AbstractContextManager[BackboneSource]:
        """Find the weights; what is found lasts as long as the context.

        Raises:
            BackboneUnavailableError: there is no such backbone, there are no weights, or they have another digest.
        """
        ...

    def load_network(self, backbone: Backbone) -> nn.Module:
        """The PyTorch network of an installed backbone of this version, in evaluation mode: see `load_network` below."""
        ...


FAMILIES: tuple[Family, ...] = (EfficientNetLiteFamily(), TorchvisionFamily())


def find_family(name: str) -> Family | None:
    """The family of a backbone; None where no code here knows it."""
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
            f"backbone {name}: it was removed from Ocelli; classifiers learned on it are still served; for new ones {remedy}"
        )
    raise BackboneUnavailableError(f"backbone {name!r}: Ocelli has no backbone of that name; {remedy}")


def load_network(backbone: Backbone) -> nn.Module:
    """The network in evaluation mode: uint8[N, height, width, 3] to float32[N, features]. Imports PyTorch.

    Raises:
        BackboneError: this program's code made other networks of that name, knows none of this kind, or the weights do not fit.
    """
    what = f"backbone {backbone.name} ({backbone.digest})"
    family = find_family(backbone.name)
    if backbone.metadata.kind is NetworkKind.ONNX or family is None:
        raise BackboneError(f"{what}: there is no PyTorch network of it, only ONNX; run it on a CPU")
    if backbone.metadata.version != family.version:
        raise BackboneError(
            f"{what}: it has version {backbone.metadata.version}, PyTorch here runs version {family.version}; "
            "publish the backbone again and retrain, or run it on a CPU"
        )
    return family.load_network(backbone)
