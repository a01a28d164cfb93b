"""EfficientNet-Lite in PyTorch, for GPUs and for fine-tuning: batch norms are separate layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from ocelli_model.backbone import WEIGHTS_FILE, Backbone, BackboneError, NetworkKind
from ocelli_model.backbones.efficientnet_lite_table import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    CLASS_COUNT,
    FEATURE_COUNT,
    Block,
    Layer,
    build_blocks,
)
from ocelli_model.preprocessing import Preprocessing

_PUBLISH_AGAIN = "publish the backbone again"


class EfficientNetLite(nn.Module):
    """uint8[N, height, width, 3] to float32[N, 1280], or to the logits of a whole network; normalisation included."""

    def __init__(self, name: str, preprocessing: Preprocessing, kind: NetworkKind = NetworkKind.BODY) -> None:
        super().__init__()
        blocks = build_blocks(name)
        self.stem = _ConvolutionUnit(blocks[0].layers[0])
        self.blocks = nn.ModuleList(_ResidualBlock(block) for block in blocks[1:-1])
        self.last = _ConvolutionUnit(blocks[-1].layers[0])
        self.classifier = nn.Linear(FEATURE_COUNT, CLASS_COUNT) if kind is NetworkKind.CLASSIFIER else nn.Identity()
        for key, values in (("mean", preprocessing.mean), ("deviation", preprocessing.standard_deviation)):
            scale = (torch.tensor(values, dtype=torch.float64) * 255).float()
            self.register_buffer(key, scale.view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        value = self.stem((pixels - self.get_buffer("mean")) / self.get_buffer("deviation"))
        for block in self.blocks:
            value = block(value)
        answer: Tensor = self.classifier(self.last(value).mean((2, 3)))
        return answer.float()


class _ConvolutionUnit(nn.Module):
    """A layer of the table."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._layer = layer
        self.convolution = nn.Conv2d(
            layer.input_channels, layer.output_channels, layer.kernel, layer.stride, groups=layer.groups, bias=False
        )
        self.norm = nn.BatchNorm2d(layer.output_channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)

    def forward(self, value: Tensor) -> Tensor:
        rows, columns = (self._layer.borders(size) for size in value.shape[-2:])
        if any((*rows, *columns)):
            value = functional.pad(value, (*columns, *rows))
        value = self.norm(self.convolution(value))
        return functional.relu6(value) if self._layer.clipped else value


class _ResidualBlock(nn.Module):
    """A block of the table. Its layers have the last part of their names there."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self._skips = block.skips
        self._names = [layer.name.rsplit(".", 1)[-1] for layer in block.layers]
        for name, layer in zip(self._names, block.layers, strict=True):
            self.add_module(name, _ConvolutionUnit(layer))

    def forward(self, value: Tensor) -> Tensor:
        before = value
        for name in self._names:
            value = self.get_submodule(name)(value)
        return value + before if self._skips else value


def load_network(backbone: Backbone) -> EfficientNetLite:
    """The network of an installed backbone, in evaluation mode. A body ignores the classifying layer.

    Raises:
        BackboneError: the weights cannot be read, or do not fit.
    """
    metadata = backbone.metadata
    what = f"backbone {backbone.name} ({backbone.digest}): {WEIGHTS_FILE}"
    network = EfficientNetLite(metadata.name, metadata.preprocessing, metadata.kind)
    wanted = _weight_names(network)
    try:
        state = safetensors.torch.load_file(backbone.folder / WEIGHTS_FILE)
        network.load_state_dict({key: state[key] for key in wanted}, strict=False)
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"{what} cannot be read as weights; {_PUBLISH_AGAIN}") from error
    except KeyError as error:
        raise BackboneError(f"{what} does not fit: it has no {error.args[0]}; {_PUBLISH_AGAIN}") from error
    except RuntimeError as error:
        raise BackboneError(f"{what} has weights with wrong shapes; {_PUBLISH_AGAIN}") from error
    return network.eval()


def network_weights(network: nn.Module) -> Mapping[str, NDArray[np.float32]]:
    """The weights of a network on the CPU, as `efficientnet_lite.build_onnx` takes them."""
    state = network.state_dict()
    return {key: np.ascontiguousarray(state[key].numpy()) for key in _weight_names(network)}


def _weight_names(network: nn.Module) -> list[str]:
    return [key for key in network.state_dict() if not key.endswith(".num_batches_tracked")]
